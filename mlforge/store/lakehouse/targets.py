"""From the name of a format to the table that an export writes."""

from __future__ import annotations

import os
from collections.abc import Callable

from mlforge.core.paths import path_of
from mlforge.errors import DefinitionError
from mlforge.store.addresses import as_path, is_bucket, scheme_of
from mlforge.store.lakehouse.delta_target import DeltaTarget
from mlforge.store.lakehouse.iceberg_target import IcebergTarget
from mlforge.store.lakehouse.target import Target

TARGETS: dict[str, Callable[[str], Target]] = {"delta": DeltaTarget, "iceberg": IcebergTarget}


def target_at(kind: str, place: str) -> Target:
    """The table of a format in a folder, or at the address of a bucket. Raises DefinitionError for a place that is neither."""
    if as_path(place) is not None and is_bucket(place):
        return TARGETS[kind](place.rstrip("/"))
    if as_path(place) is not None or scheme_of(place) is not None or not place:
        raise DefinitionError(
            f"{place!r} is neither a folder nor an address such as 's3://bucket/tables/user_spend'"
        )
    return TARGETS[kind](os.path.abspath(path_of(place)))  # noqa: PTH100 - links stay
