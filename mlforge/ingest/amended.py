"""Amended files: the events that a large file had, read once, from which the digest of those that it has now follows.

To hash all rows of a file of a million takes longer than to read those that it had and to compare both. The version's diff and
its new rows need the same events, which then are in memory.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

import polars as pl

from mlforge.core.manifest import MODULUS, Partial
from mlforge.core.side_by_side import begin
from mlforge.errors import MlforgeError
from mlforge.frames.common_rows import without_common_rows
from mlforge.frames.digest import digest
from mlforge.ingest import partials
from mlforge.sources.damage import DAMAGE
from mlforge.store import Store

LEAST_ROWS = 200_000
"""Files of fewer rows are hashed in a moment."""
MOST_VALUES = 16_000_000
"""Events of more values are not held twice, nor read while a file is decoded: that bounds the memory of the whole process.

Nor do those of all files stay in memory that have more of them together.
"""
_FEW = 4
"""A digest follows from the rows that differ while they are at most one in so many."""


@dataclass
class AmendedFiles:
    """The events that files of a feature had, read by threads while the files are hashed and decoded."""

    store: Store
    feature: str
    _before: dict[str, tuple[Partial, Future[pl.DataFrame | None]]] = field(default_factory=dict)
    _held: int = 0

    def expect(self, path: str, before: Partial | None) -> None:
        """Begin to read the partial of the content that a file had, if that is large; once for a file."""
        if self.store.fetches_files or before is None or path in self._before:
            return
        if before.rows >= LEAST_ROWS and _values(before) <= MOST_VALUES:
            self._before[path] = before, begin(self._read, before)

    def forget(self, path: str) -> None:
        """Let go of the events that a file had: it is not ingested."""
        self._before.pop(path, None)

    def digest_of(self, path: str, events: pl.DataFrame) -> int:
        """The digest of the events that a file has now."""
        before, reading = self._before.pop(path, (None, None))
        known = reading.result() if reading is not None else None
        if before is None or known is None:
            return digest(events)
        self._hold(before, known)
        stored = partials.stored(events)
        if known.schema != stored.schema:
            return digest(events)
        went, came = without_common_rows(known, stored)
        if (went.height + came.height) * _FEW > stored.height:
            return digest(events)
        return (before.digest - digest(went) + digest(came)) % MODULUS

    def _hold(self, partial: Partial, known: pl.DataFrame) -> None:
        """Have the events at hand for the version's diff, if there is room for them beside those of other files."""
        self._held += _values(partial)
        if self._held <= MOST_VALUES:
            self.store.hold(self.feature, partial, known)

    def _read(self, partial: Partial) -> pl.DataFrame | None:
        """The stored events of a partial in their order; None where it has no file of its own, or not all of that is as it was written."""
        try:
            [place] = self.store.locate(self.feature, [partial.hash])
            if place.number is None and self.store.is_whole(self.feature, place.file):
                return pl.read_parquet(place.file, glob=False)
        except (MemoryError, MlforgeError, *DAMAGE):
            pass  # whoever needs them is told
        return None


def _values(partial: Partial) -> int:
    return partial.rows * len(partial.schema)
