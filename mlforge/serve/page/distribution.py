"""The distribution of a column as bars of a picture, of one profile or of two beside one another. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from mlforge.core.values import LAST_INSTANT, PRECISION, from_us
from mlforge.profiles.buckets import WEEK_US, lower_edge, upper_edge
from mlforge.profiles.codec import shown
from mlforge.profiles.column_profile import ColumnProfile
from mlforge.serve.page.words import number, share

BINS, WIDTH, HEIGHT = 28, 224, 44
_GAP = 1
_TAIL = 0.01  # of rows at either end, which the outermost bars take in
_MOST_FREQUENT = 5
_ROW = 15
_BUCKETED = ("number", "time")
Edges = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar in units of the picture."""

    x: float
    width: float
    top: float
    height: float


@dataclass(frozen=True, slots=True)
class Ranked:
    """A frequent value, with the share of rows that hold it, here and in the other profile, and its bars' lengths."""

    text: str
    share: str
    length: float
    share_b: str | None
    length_b: float


@dataclass(frozen=True, slots=True)
class Distribution:
    """A column's distribution: bars between two labels, or frequent values.

    words: the picture in a sentence. outline: the path around the other profile's bars, empty where there is none.
    """

    words: str
    bars: tuple[Bar, ...] = ()
    outline: str = ""
    least: str = ""
    greatest: str = ""
    ranked: tuple[Ranked, ...] = ()


def distribution(a: ColumnProfile, b: ColumnProfile | None = None) -> Distribution | None:
    """The distribution of a profile beside that of another one of its kind; None where there are no values to draw."""
    if b is not None and (b.kind != a.kind or not b.values):
        b = None
    if not a.values:
        return None
    if a.kind in _BUCKETED:
        return _bucketed(a, b)
    if a.kind in ("text", "boolean") and a.is_complete and (b is None or b.is_complete):
        return _ranked(a, b)
    return None


@dataclass(frozen=True, slots=True)
class _Grid:
    """The bins of a picture: how many of which width, from a value on."""

    low: float
    width: float
    count: int

    @property
    def high(self) -> float:
        return self.low + self.count * self.width

    def index(self, value: float) -> int:
        """The bin of a value; the outermost one of a value beyond."""
        return min(max(int((value - self.low) / self.width), 0), self.count - 1)

    def parts(self, start: float, end: float) -> Iterator[tuple[int, float]]:
        """The bins that a range of values lies in, with the part of the range that lies in each."""
        start, end = min(max(start, self.low), self.high), min(max(end, self.low), self.high)
        if end <= start:
            yield self.index(start), 1.0
            return
        for index in range(self.index(start), self.index(end) + 1):
            left = max(start, self.low + index * self.width)
            right = min(end, self.low + (index + 1) * self.width)
            if right > left:
                yield index, (right - left) / (end - start)


def _bucketed(a: ColumnProfile, b: ColumnProfile | None) -> Distribution:
    sides = [a] if b is None else [a, b]
    grid = _grid(sides)
    of_a, *others = [_shares(side, grid) for side in sides]
    tallest = max(max(shares) for shares in (of_a, *others)) or 1.0
    step = WIDTH / grid.count
    bars = []
    for index, rows in enumerate(of_a):
        height = round(HEIGHT * rows / tallest, 2)
        bars.append(
            Bar(round(index * step, 2), round(step - _GAP, 2), round(HEIGHT - height, 2), height)
        )
    outline = "".join(_outline(others[0], step, tallest)) if others else ""
    peak = grid.low + of_a.index(max(of_a)) * grid.width
    end = min(grid.high, max(map(_greatest, sides)))  # a bar alone is wider than its value
    last = grid.high - 1 if _is_whole(a) else end
    before = "≤ " if any(_least(side) < grid.low for side in sides) else ""
    beyond = "≥ " if any(_greatest(side) > grid.high for side in sides) else ""
    return Distribution(
        f"Most values lie from {_label(peak, a)} to {_label(min(peak + grid.width, max(peak, end)), a)}",
        tuple(bars),
        outline,
        f"{before}{_label(grid.low, a)}",
        f"{beyond}{_label(last, a)}",
    )


def _outline(shares: list[float], step: float, tallest: float) -> Iterator[str]:
    yield f"M0 {HEIGHT}"
    for index, rows in enumerate(shares):
        top = HEIGHT - HEIGHT * rows / tallest
        yield f"V{top:.2f}H{(index + 1) * step - _GAP:.2f}"
    yield f"V{HEIGHT}"


def _grid(sides: list[ColumnProfile]) -> _Grid:
    """The bins over all values but the outermost hundredth at either end; of integers, each as wide as some of them."""
    ranges = [_central(side) for side in sides]
    low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
    least, greatest = min(map(_least, sides)), max(map(_greatest, sides))
    if not high - low > PRECISION * max(abs(least), abs(greatest)):
        low, high = least, greatest
    if all(map(_is_whole, sides)):
        low, high = math.floor(low), math.floor(high) + 1
        each = math.ceil((high - low) / BINS)
        return _Grid(low, each, math.ceil((high - low) / each))
    width = (high - low) / BINS
    if not (math.isfinite(width) and low + width > low):  # one value, or no float lies between
        return _Grid(low, abs(low) or 1.0, 1)
    return _Grid(low, width, BINS)


def _central(side: ColumnProfile) -> Edges:
    """The edges of the buckets between which all values lie but the outermost hundredth at either end."""
    buckets = sorted(side.histogram)
    passed = list(accumulate(side.histogram[bucket] for bucket in buckets))
    rows = passed[-1]
    first = next(b for b, n in zip(buckets, passed, strict=True) if n > _TAIL * rows)
    last = next(b for b, n in zip(buckets, passed, strict=True) if n >= (1 - _TAIL) * rows)
    return _edges(first, side)[0], _edges(last, side)[1]


def _shares(side: ColumnProfile, grid: _Grid) -> list[float]:
    """The share of rows in each bin: a bucket's rows are spread over the bins that it lies in."""
    shares = [0.0] * grid.count
    for bucket, rows in side.histogram.items():
        for index, part in grid.parts(*_edges(bucket, side)):
            shares[index] += part * rows / side.values
    return shares


def _is_whole(side: ColumnProfile) -> bool:
    return "Int" in side.dtype


def _edges(bucket: int, side: ColumnProfile) -> Edges:
    """The ends of a bucket, as far as there are values."""
    if side.kind == "time":
        edges = float(bucket * WEEK_US), float((bucket + 1) * WEEK_US)
    else:
        edges = lower_edge(bucket), upper_edge(bucket)
    return max(edges[0], _least(side)), min(edges[1], _greatest(side))


def _least(side: ColumnProfile) -> float:
    return float(side.least)  # type: ignore[arg-type]  # of numbers and times with values


def _greatest(side: ColumnProfile) -> float:
    return float(side.greatest)  # type: ignore[arg-type]


def _label(value: float, side: ColumnProfile) -> str:
    if side.kind == "time":
        return str(from_us(min(int(value), LAST_INSTANT)).date())  # floats are rounded beyond it
    return number(round(value) if _is_whole(side) else value)


def _ranked(a: ColumnProfile, b: ColumnProfile | None) -> Distribution:
    top = a.top(_MOST_FREQUENT)
    in_b: Mapping[int, int] = {each.hash: each.rows for each in b.sample} if b else {}
    most = max(
        [each.rows / a.values for each in top]
        + [in_b.get(each.hash, 0) / b.values for each in top if b is not None]
    )
    ranked = []
    for each in top:
        of_a = each.rows / a.values
        of_b = in_b.get(each.hash, 0) / b.values if b is not None else None
        ranked.append(
            Ranked(
                _text(shown(each.value, a)),
                share(of_a),
                round(100 * of_a / most, 2),
                None if of_b is None else share(of_b),
                round(100 * (of_b or 0.0) / most, 2),
            )
        )
    words = (
        f"The most frequent value is {ranked[0].text}, in {ranked[0].share} of rows with a value"
    )
    return Distribution(words, ranked=tuple(ranked))


def _text(value: Any) -> str:
    return number(value) if isinstance(value, bool) else str(value)
