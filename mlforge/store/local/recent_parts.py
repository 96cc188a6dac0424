"""Rows of the parts that this process wrote last, in memory: the next drop writes most of them anew, and reads no file for it.

Only a cache, by the hash of a part's file: a manifest says which parts there are.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from mlforge.core.manifest import Part

MOST_BYTES = 1 << 20
"""Bytes of rows that are held of a feature, at the most: some ten thousand rows, as those of the last few drops."""


class RecentParts:
    """The rows of a feature's parts that were written last."""

    def __init__(self) -> None:
        self._rows: dict[str, pl.DataFrame] = {}

    def add(self, part: Part, rows: pl.DataFrame) -> None:
        """Hold the rows of a part that was just written, if they are few; those that were written longest ago make room."""
        if rows.estimated_size() > MOST_BYTES:
            return
        places = pl.int_range(rows.height, dtype=pl.UInt32, eager=True)
        self._rows[part.hash] = rows[places]  # a copy, as a slice would keep all of its frame
        while sum(held.estimated_size() for held in self._rows.values()) > MOST_BYTES:
            del self._rows[next(iter(self._rows))]

    def retain(self, parts: Sequence[Part]) -> None:
        """Let go of all but some parts: rows that were forgotten since are in none of a newer version's."""
        hashes = {part.hash for part in parts} if self._rows else set()
        self._rows = {hash_: rows for hash_, rows in self._rows.items() if hash_ in hashes}

    def rows_of(self, parts: Sequence[Part]) -> pl.DataFrame | None:
        """The rows of some parts, at least one, in their order; None where any is not held."""
        held = [self._rows[part.hash] for part in parts if part.hash in self._rows]
        return pl.concat(held) if len(held) == len(parts) else None
