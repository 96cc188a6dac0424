"""Rows that were looked at before need no second look, and are remembered within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from mlforge.core.schema import Column
from mlforge.online.row_pattern import RowPattern, row_pattern
from mlforge.serve.values.seen_rows import SeenRows

ROWS = [b'{"n":%d}' % number for number in range(1, 101)]


@dataclass(frozen=True, eq=False)
class Counted(RowPattern):
    """A pattern that notes how many rows it looks at."""

    looked_at: list[int] = field(default_factory=list)

    def fits_all(self, rows: Sequence[bytes]) -> bool:
        self.looked_at.append(len(rows))
        return super().fits_all(rows)


@pytest.fixture
def pattern() -> Counted:
    pattern = row_pattern((Column("n", "Int64"),))
    assert pattern is not None
    return Counted(pattern.row, pattern.rows)


def test_only_rows_that_were_not_seen_yet_are_looked_at(pattern: Counted) -> None:
    seen = SeenRows()
    asked = [ROWS[:60], ROWS[40:], ROWS, ROWS[:1] * 5, []]
    assert all(seen.fit(pattern, rows) for rows in asked)
    assert pattern.looked_at == [60, 40]


def test_a_row_that_does_not_fit_is_refused_however_often_it_comes(pattern: Counted) -> None:
    seen = SeenRows()
    assert seen.fit(pattern, ROWS)
    for _ in range(2):
        assert not seen.fit(pattern, [*ROWS, b'{"n":1,}'])
    assert seen.fit(pattern, ROWS)


def test_what_one_pattern_accepts_another_looks_at(pattern: Counted) -> None:
    text = row_pattern((Column("n", "String"),))
    assert text is not None
    seen = SeenRows()
    assert seen.fit(pattern, ROWS)
    assert not seen.fit(text, ROWS)


def test_all_is_forgotten_beyond_the_memory_that_rows_may_take(pattern: Counted) -> None:
    seen = SeenRows(most_bytes=12_000)
    for start in (0, 50, 0, 50):
        assert seen.fit(pattern, ROWS[start : start + 50])
    assert pattern.looked_at == [50, 50]
    assert seen.fit(pattern, [b'{"n":%d}' % number for number in range(1_000, 1_050)])
    assert seen.fit(pattern, ROWS[:10])
    assert pattern.looked_at == [50, 50, 50, 10]
