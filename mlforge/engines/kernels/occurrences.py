"""How often each distinct value occurs in each of many windows, without a look at every row of every window.

The windows are slices of a column whose starts and ends do not go back from one to the next. An occurrence is
the first of its value in a run of consecutive windows: those that begin after the value's previous occurrence, and
hold this one. Likewise it is the last of its value in a run. By value, then window, both lists of runs
enumerate the same pairs (window, value), and the occurrences in between are the value's count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from mlforge.engines.kernels.pairwise import Segments

PAIRS_AT_ONCE = 4_000_000
"""About how many pairs of a window and a value are held in memory at a time, at most."""
_AT, _CODE, _RUN, _WINDOW = "at", "code", "run", "window"
_FIRST, _FIRST_END, _LAST, _LAST_END = "first", "first_end", "last", "last_end"


@dataclass(frozen=True)
class Codes:
    """A column's values as numbers that go up with the values (Int64), by number, then place in the column (Int64).

    weights: how often each of them counts (Int64); None for once.
    """

    code: pl.Series
    at: pl.Series
    weights: pl.Series | None = None

    @classmethod
    def of(cls, values: pl.Series, weights: pl.Series | None = None) -> tuple[Codes, pl.Series]:
        """The codes of values without nulls, and the distinct values: the positions of these are the codes."""
        rows = (
            values.alias(_CODE)
            .to_frame()
            .with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias(_AT))
        )
        rows = rows.sort(_CODE, maintain_order=True)
        begins = rows.select(pl.col(_CODE).ne_missing(pl.col(_CODE).shift())).to_series()
        weights = None if weights is None else weights.gather(rows[_AT])
        codes = cls(begins.cum_sum().cast(pl.Int64) - 1, rows[_AT], weights)
        return codes, rows[_CODE].filter(begins)

    def within(self, start: int, end: int) -> Codes:
        """The codes of some places, counted from the first of them."""
        inside = self.at.is_between(start, end, closed="left")
        weights = None if self.weights is None else self.weights.filter(inside)
        return Codes(self.code.filter(inside), self.at.filter(inside) - start, weights)

    def many(self, first: pl.Series, last: pl.Series) -> pl.Series:
        """How often a value occurs from one position to another, both included."""
        if self.weights is None:
            return last - first + 1
        until = self.weights.cum_sum()
        return until.gather(last) - until.gather(first) + self.weights.gather(first)

    @cached_property
    def earlier(self) -> pl.Series:
        """The place of the same value's previous occurrence, null for its first."""
        return self._beside(1)

    @cached_property
    def later(self) -> pl.Series:
        """The place of the same value's next occurrence, null for its last."""
        return self._beside(-1)

    def _beside(self, by: int) -> pl.Series:
        same, at = pl.col(_CODE) == pl.col(_CODE).shift(by), pl.col(_AT).shift(by)
        rows = pl.DataFrame([self.code.alias(_CODE), self.at.alias(_AT)])
        return rows.select(pl.when(same).then(at)).to_series()


@dataclass(frozen=True)
class Occurrences:
    """Values as codes, and windows of their column: none empty, neither starts nor ends go back."""

    codes: Codes
    windows: Segments

    def distinct(self, *, weighed: bool = True) -> pl.Series:
        """The number of distinct values in each window (Int64); weighed: each counts with the weight of its first occurrence there."""
        runs, many = self._runs, len(self.windows.starts)
        if weighed and self.codes.weights is not None:
            held = runs.with_columns(self.codes.weights.alias(_RUN)).filter(
                pl.col(_FIRST) < pl.col(_FIRST_END)
            )
            changes = _sums(held, _FIRST, many) - _sums(held, _FIRST_END, many)
            return changes.cum_sum().head(many)
        runs = runs.filter(pl.col(_FIRST) < pl.col(_FIRST_END))
        changes = _counts(runs[_FIRST].sort(), many) - _counts(runs[_FIRST_END].sort(), many)
        return changes.cum_sum().head(many)

    def most_frequent(self, most: int) -> tuple[pl.Series, pl.Series]:
        """For each window so many codes at most, from the most frequent on, ties from the least on.

        Returns the number of distinct codes in each window, and the codes of all windows, one window after another (Int64).
        """
        ranked = [part._most_frequent(most) for part in self._batches()]
        return pl.concat([many for many, _ in ranked]), pl.concat([codes for _, codes in ranked])

    def _most_frequent(self, most: int) -> tuple[pl.Series, pl.Series]:
        first = self._enumerated(_FIRST, _FIRST_END)
        last = self._enumerated(_LAST, _LAST_END)
        counts = self.codes.many(first[_RUN], last[_RUN])
        # A number for each pair that puts them in order: by window, then count, then code.
        several, codes = int(self.codes.code.max() or 0) + 1, self.codes.code  # type: ignore[arg-type]
        step = (int(counts.max()) + 1) * several  # type: ignore[arg-type]
        dtype = pl.Int64 if step * len(self.windows.starts) < 1 << 63 else pl.Int128
        within = codes.gather(first[_RUN]) - counts * several + (step - several)
        in_order = pl.DataFrame([first[_WINDOW], within.alias(_CODE)]).select(
            (pl.col(_WINDOW).cast(dtype) * pl.lit(step, dtype) + pl.col(_CODE)).sort()
        )
        window, code = in_order.select(
            (pl.col(_WINDOW) // pl.lit(step, dtype)).cast(pl.Int64).alias(_WINDOW),
            (pl.col(_WINDOW) % pl.lit(several, dtype)).cast(pl.Int64).alias(_CODE),
        ).get_columns()
        place = pl.int_range(len(window), dtype=pl.Int64, eager=True)
        in_each = _counts(window, len(self.windows.starts) - 1)
        before = (in_each.cum_sum() - in_each).gather(window)
        return in_each, code.filter(place - before < most)

    @cached_property
    def _runs(self) -> pl.DataFrame:
        """For each occurrence the windows of which it is the first, and the last of its value."""
        starts, many = self.windows.starts, len(self.codes.at)
        begun = _counts(starts, many).cum_sum()  # windows that start at a place or before
        ended = _counts(starts + self.windows.lengths, many).cum_sum()  # that end there or before
        held, gone = begun.gather(self.codes.at), ended.gather(self.codes.at)
        return pl.DataFrame(
            {
                _FIRST: begun.gather(self.codes.earlier).fill_null(0),
                _FIRST_END: held,
                _LAST: gone,
                _LAST_END: ended.gather(self.codes.later).fill_null(len(starts)),
            }
        ).with_columns(
            pl.max_horizontal(_FIRST, _LAST).alias(_FIRST),
            pl.min_horizontal(_FIRST_END, _LAST_END).alias(_LAST_END),
        )

    def _enumerated(self, start: str, end: str) -> pl.DataFrame:
        """A row for each run and window in it: _RUN and _WINDOW."""
        starts, lengths = self._runs[start], self._runs[end] - self._runs[start]
        runs = (lengths > 0).arg_true().cast(pl.Int64)
        starts, lengths = starts.gather(runs), lengths.gather(runs)
        if lengths.max() != 1:  # most windows of different entities hold no row in common
            of = _repeated(lengths)
            before = lengths.cum_sum() - lengths
            place = pl.int_range(len(of), dtype=pl.Int64, eager=True)
            runs, starts = runs.gather(of), (starts - before).gather(of) + place
        return pl.DataFrame([runs.alias(_RUN), starts.alias(_WINDOW)])

    def _batches(self) -> Iterator[Occurrences]:
        """The windows in turn, as many at a time as have few rows together."""
        batches = (self.windows.lengths.cum_sum() // PAIRS_AT_ONCE).rle().struct.unnest()
        if batches.height == 1:
            yield self
            return
        first = 0
        for many in batches["len"]:
            windows = self.windows.slice(first, many)
            start = int(windows.starts[0])
            codes = self.codes.within(start, int((windows.starts + windows.lengths)[-1]))
            yield Occurrences(codes, Segments(windows.starts - start, windows.lengths))
            first += many


def _repeated(times: pl.Series) -> pl.Series:
    """The places of some positive numbers, each so many times (Int64)."""
    begins = times.cum_sum() - times
    ones = pl.Series([0], dtype=pl.Int64).new_from_index(0, int(times.sum())).scatter(begins, 1)
    return ones.cum_sum() - 1


def _sums(rows: pl.DataFrame, at: str, greatest: int) -> pl.Series:
    """The sum of _RUN of the rows of each of the numbers 0 to `greatest` (Int64)."""
    sums = rows.group_by(at).agg(pl.col(_RUN).sum())
    zeros = pl.Series([0], dtype=pl.Int64).new_from_index(0, greatest + 1)
    return zeros.scatter(sums[at], sums[_RUN])


def _counts(ascending: pl.Series, greatest: int) -> pl.Series:
    """How often each of the numbers 0 to `greatest` occurs (Int64)."""
    runs = ascending.rle().struct.unnest()
    zeros = pl.Series([0], dtype=pl.Int64).new_from_index(0, greatest + 1)
    return zeros.scatter(runs["value"], runs["len"].cast(pl.Int64))
