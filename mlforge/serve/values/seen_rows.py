"""Stored rows that were looked at before: many callers ask for the same few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mlforge.online.row_pattern import RowPattern

_ABOUT = 100
"""Bytes that a row takes beside its own."""


@dataclass(slots=True)
class SeenRows:
    """Rows that their pattern accepts, which need no second look.

    most_bytes: about how much memory they may take; beyond it all are forgotten.
    """

    most_bytes: int = 16 << 20
    _rows: dict[RowPattern, set[bytes]] = field(default_factory=dict)
    _bytes: int = 0

    def fit(self, pattern: RowPattern, rows: Sequence[bytes]) -> bool:
        """Whether the pattern accepts each of these rows."""
        seen = self._rows.get(pattern)
        unseen = set(rows) if seen is None else set(rows) - seen
        if not unseen:
            return True
        if not pattern.fits_all(tuple(unseen)):
            return False
        self._note(pattern, unseen)
        return True

    def _note(self, pattern: RowPattern, rows: set[bytes]) -> None:
        self._bytes += sum(map(len, rows)) + _ABOUT * len(rows)
        if self._bytes > self.most_bytes:
            self._rows, self._bytes = {}, 0
        self._rows.setdefault(pattern, set()).update(rows)
