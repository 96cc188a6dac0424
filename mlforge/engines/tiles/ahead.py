"""Tiles built of events that are in memory, while their files are being written: none of them is read again."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future

import polars as pl

from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.schema import dtypes
from mlforge.core.side_by_side import begin
from mlforge.engines.tiles import build
from mlforge.engines.tiles.cache import kind_of, tiles_of
from mlforge.store.file_tasks import FileScanTask, TileWrite

_MOST_BYTES = 64_000_000
"""So many bytes of tiles are held, roughly; those of further files are built of the files."""
_AT_ONCE = 2  # files whose events are held


class TilesAhead:
    """The tiles of a feature's files of which somebody tells.

    Nobody knows yet of which schema the version will be: they are stored once that is known, if they are of its kind.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        self._spec = spec
        self._begun: deque[tuple[str, Future[TileWrite]]] = deque()
        self._made: list[tuple[str, TileWrite]] = []
        self._bytes = 0

    def take(self, task: FileScanTask) -> None:
        """Begin to build the tiles of a file whose rows are in memory, if they pay; waits while those of others are built."""
        self._settle(but=_AT_ONCE - 1)
        schema = task.schema
        if task.rows < build.FEWEST or self._bytes > _MOST_BYTES:
            return
        if not set(self._spec.needed()) <= set(dtypes(schema)):
            return
        kind = kind_of(self._spec, schema)
        if kind is not None:
            self._begun.append((kind, begin(tiles_of, task, self._spec, schema)))

    def of_kind(self, kind: str) -> Mapping[str, TileWrite]:
        """The tiles of a kind, by file. A file whose tiles could not be built is left out."""
        self._settle()
        return {write.of: write for known, write in self._made if known == kind}

    def _settle(self, but: int = 0) -> None:
        """Wait until tiles are built, but for the last few."""
        while len(self._begun) > but:
            kind, building = self._begun.popleft()
            if building.exception() is None:
                write = building.result()
                self._made.append((kind, write))
                assert isinstance(write.rows, pl.DataFrame)
                self._bytes += int(write.rows.estimated_size())
