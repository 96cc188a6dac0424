"""A partial in a file of its own, which describes it in its metadata."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from mlforge.core.failpoints import reach
from mlforge.core.manifest import Partial
from mlforge.store.file_tasks import PartialWrite
from mlforge.store.local import io
from mlforge.store.partial_json import partial_from_json, partial_to_json

_DESCRIPTION = "mlforge.partial"
_ROW_GROUP = 32_768


def write_partial(path: Path, write: PartialWrite) -> None:
    """Write a partial, whole or not at all; the caller syncs the folder."""
    described = json.dumps(partial_to_json(write.partial))
    io.write_sealed(path, write.events, _ROW_GROUP, {_DESCRIPTION: described})
    reach("partial.written")


def partial_in(path: Path) -> Partial | None:
    """The description of the partial in a file; None for a file of another kind. Raises one of MISREAD."""
    described = pl.read_parquet_metadata(path).get(_DESCRIPTION)
    return None if described is None else partial_from_json(json.loads(described))
