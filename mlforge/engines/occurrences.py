"""How often each distinct value occurs in each of many windows, without a look at every row of every window.

The windows are slices of a column whose starts and ends do not go back from one to the next. An occurrence is
the first of its value in a run of consecutive windows: those that begin after the value's previous occurrence, and
hold this one. Likewise it is the last of its value in a run. By value, then window, both lists of runs
enumerate the same pairs (window, value), and the occurrences in between are the value's count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from mlforge.engines.pairwise import Segments

WINDOW, CODE, COUNT = "window", "code", "count"
_AT, _RANK, _RUN, _FIRST, _FIRST_END, _LAST, _LAST_END = (
    "at",
    "rank",
    "run",
    "first",
    "first_end",
    "last",
    "last_end",
)
PAIRS_AT_ONCE = 4_000_000
"""About how many pairs of a window and a value are held in memory at a time, at most."""


@dataclass(frozen=True)
class Occurrences:
    """Codes of a column's values (UInt32, nulls left out), which go up with the values, and windows of them.

    windows: none empty; neither starts nor ends go back.
    """

    codes: pl.Series
    windows: Segments

    def distinct(self) -> pl.Series:
        """The number of distinct values in each window (Int64)."""
        runs = self._runs().filter(pl.col(_FIRST) < pl.col(_FIRST_END))
        many = len(self.windows.starts)
        changes = _counts(runs[_FIRST].sort(), many) - _counts(runs[_FIRST_END].sort(), many)
        return changes.cum_sum().head(many)

    def pairs(self) -> Iterator[pl.DataFrame]:
        """Frames of windows with their values: WINDOW (Int64, the position), CODE, COUNT, each window within one frame."""
        for start, windows in self._batches():
            end = int((windows.starts + windows.lengths)[-1])
            base = int(windows.starts[0])
            inside = Segments(windows.starts - base, windows.lengths)
            part = Occurrences(self.codes.slice(base, end - base), inside)
            yield part._pairs().with_columns(pl.col(WINDOW) + start)

    def most_frequent(self, most: int) -> tuple[pl.Series, pl.Series]:
        """For each window so many codes at most, from the most frequent on, ties from the least on.

        Returns their number in each window (Int64), and the codes of all windows, one window after another.
        """
        several, codes = int(self.codes.max() or 0) + 1, []  # type: ignore[arg-type]
        for pairs in self.pairs():
            greatest = (pl.col(COUNT) * several - pl.col(CODE).cast(pl.Int64)).alias(_RANK)
            ranked = _by_rank(pairs.select(WINDOW, CODE, greatest))
            begins = pl.col(WINDOW).ne_missing(pl.col(WINDOW).shift())
            place = pl.int_range(pl.len(), dtype=pl.Int64)
            first = pl.when(begins).then(place).forward_fill()
            codes.append(ranked.filter(place - first < most).select(WINDOW, CODE))
        chosen = pl.concat(codes)
        return _counts(chosen[WINDOW], len(self.windows.starts) - 1), chosen[CODE]

    def _pairs(self) -> pl.DataFrame:
        runs = self._runs()
        first = _enumerated(runs, _FIRST, _FIRST_END)
        last = _enumerated(runs, _LAST, _LAST_END)
        code = runs[CODE].gather(first[_RUN])
        count = (last[_RUN] - first[_RUN] + 1).alias(COUNT)
        return pl.DataFrame([first[WINDOW], code, count])

    def _runs(self) -> pl.DataFrame:
        """Each occurrence by code, then place, with the windows of which it is the first and the last of its value."""
        starts, many = self.windows.starts, len(self.codes)
        begun = _counts(starts, many).cum_sum()  # windows that start at a place or before
        ended = _counts(starts + self.windows.lengths, many).cum_sum()  # that end there or before
        rows = pl.DataFrame([self.codes.alias(CODE)]).with_columns(
            pl.int_range(pl.len(), dtype=pl.Int64).alias(_AT)
        )
        rows = rows.sort(CODE, maintain_order=True)
        at = rows[_AT]
        earlier, later = rows.select(
            pl.when(pl.col(CODE) == pl.col(CODE).shift(by)).then(pl.col(_AT).shift(by)).alias(name)
            for by, name in ((1, _FIRST), (-1, _LAST))
        ).get_columns()
        held, gone = begun.gather(at), ended.gather(at)
        edges = pl.DataFrame(
            [
                begun.gather(earlier).fill_null(0).alias(_FIRST),
                ended.gather(later).fill_null(len(starts)).alias(_LAST_END),
                held.alias(_FIRST_END),
                gone.alias(_LAST),
            ]
        )
        return rows.select(CODE).hstack(
            edges.select(
                pl.max_horizontal(_FIRST, _LAST).alias(_FIRST),
                _FIRST_END,
                _LAST,
                pl.min_horizontal(_FIRST_END, _LAST_END).alias(_LAST_END),
            )
        )

    def _batches(self) -> Iterator[tuple[int, Segments]]:
        """The windows in turn, as many at a time as have few rows together, and the position of the first."""
        batch = (self.windows.lengths.cum_sum() // PAIRS_AT_ONCE).rle().struct.unnest()
        start = 0
        for many in batch["len"]:
            yield start, self.windows.slice(start, many)
            start += many


def _by_rank(pairs: pl.DataFrame) -> pl.DataFrame:
    """Pairs by window, then from the greatest rank on; as one number where it fits, which sorts several times faster."""
    first, last = int(pairs[WINDOW][0]), int(pairs[WINDOW].max())  # type: ignore[arg-type]
    step = int(pairs[_RANK].max()) + 1  # type: ignore[arg-type]
    if (last - first + 1) * step >= 1 << 62:
        return pairs.sort(WINDOW, _RANK, descending=[False, True])
    return pairs.select(
        WINDOW, CODE, ((pl.col(WINDOW) - first + 1) * step - pl.col(_RANK)).alias(_RANK)
    ).sort(_RANK)


def _counts(ascending: pl.Series, greatest: int) -> pl.Series:
    """How often each of the numbers 0 to `greatest` occurs (Int64)."""
    runs = ascending.rle().struct.unnest()
    zeros = pl.Series([0], dtype=pl.Int64).new_from_index(0, greatest + 1)
    return zeros.scatter(runs["value"], runs["len"].cast(pl.Int64))


def _enumerated(runs: pl.DataFrame, start: str, end: str) -> pl.DataFrame:
    """A row for each run and window in it: _RUN and WINDOW."""
    numbered = runs.select(pl.int_range(pl.len(), dtype=pl.Int64).alias(_RUN), start, end)
    windows = pl.int_ranges(start, end).alias(WINDOW)
    return numbered.filter(pl.col(start) < pl.col(end)).select(_RUN, windows).explode(WINDOW)
