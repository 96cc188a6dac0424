"""A partial in a file of its own, which describes it in its metadata."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from mlforge.core.failpoints import reach
from mlforge.core.manifest import Partial
from mlforge.frames.shared_results import are_shared, once
from mlforge.store.file_tasks import PartialWrite
from mlforge.store.local.sealed_file import Sealed, write_sealed
from mlforge.store.partial_json import partial_from_json, partial_to_json

_DESCRIPTION = "mlforge.partial"
_ROW_GROUP = 32_768


def write_partial(path: Path, write: PartialWrite) -> None:
    """Write a partial, whole or not at all; the caller syncs the folder. One that several features of a job have alike is encoded once."""
    described = json.dumps(partial_to_json(write.partial))
    events, metadata = write.events, {_DESCRIPTION: described}
    if are_shared(events):
        sealed = once(
            "a partial's file",
            lambda: described,
            lambda: Sealed.of(events, _ROW_GROUP, metadata),
            events,
        )
        sealed.write(path)
    else:
        write_sealed(path, events, _ROW_GROUP, metadata)
    reach("partial.written")


def partial_in(path: Path) -> Partial | None:
    """The description of the partial in a file; None for a file of another kind. Raises one of MISREAD."""
    described = pl.read_parquet_metadata(path).get(_DESCRIPTION)
    return None if described is None else partial_from_json(json.loads(described))
