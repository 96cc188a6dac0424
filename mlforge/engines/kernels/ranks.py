"""Least, greatest and k-th least values of many overlapping slices of a column, without a look at every value of each.

Windows to date of a dense period overlap so much that gathering each of them is quadratic. Here the cost is that of a few
passes over the column and over the slices, for each power of two up to the longest slice or the number of distinct values.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from mlforge.engines.kernels.pairwise import Segments

_OVERLAP, _GATHERED = 64, 4_000_000
"""Of how many segments each value is part, on average, and how many rows they have at most, while they are gathered."""
_ONE, _OTHER = "one", "other"
_BEGIN, _END, _RANK, _CODE = "begin", "end", "rank", "code"


def extremes(values: pl.Series, segments: Segments, *, greatest: bool) -> pl.Series:
    """The least, or the greatest, value of each segment of a column, in its dtype; nulls do not count.

    A segment is covered by two blocks of the greatest power of two that it holds: they may overlap, as an extreme of
    both is the same however often a value is in them.
    """
    if not (values.dtype.is_integer() or values.dtype.is_float()):
        distinct = values.drop_nulls().unique().sort()
        codes = extremes(values.rank("dense"), segments, greatest=greatest)
        return distinct.gather(codes.cast(pl.Int64) - 1)
    joined = (pl.max_horizontal if greatest else pl.min_horizontal)(_ONE, _OTHER)

    def extreme(one: pl.Series, other: pl.Series) -> pl.Series:
        return pl.DataFrame([one.alias(_ONE), other.alias(_OTHER)]).select(joined).to_series()

    starts, lengths, block, size = segments.starts, segments.lengths, values, 1
    nothing = pl.Series([None], dtype=values.dtype)
    answers, longest = nothing.new_from_index(0, len(starts)), lengths.max()
    while isinstance(longest, int) and size <= longest:
        chosen = lengths.is_between(size, 2 * size, closed="left").arg_true()
        first = starts.gather(chosen)
        last = first + lengths.gather(chosen) - size
        answers = answers.scatter(chosen, extreme(block.gather(first), block.gather(last)))
        block, size = extreme(block, block.shift(-size)), 2 * size
    return answers


def between_ranks(
    values: pl.Series,
    segments: Segments,
    share: float,
    *,
    wide: bool = False,
) -> pl.Series:
    """A percentile as `percentiles` gives it, of values that count once."""
    return percentiles(values, segments, [share], wide=wide, weights=None)[0]


def percentiles(
    values: pl.Series,
    segments: Segments,
    shares: Sequence[float],
    *,
    wide: bool,
    weights: pl.Series | None,
) -> list[pl.Series]:
    """Percentiles of each segment of a column without nulls, null for an empty one (Float64).

    shares: of the values, 0.5 for the median; between the two closest ranks it interpolates, with the same operations as
    polars. wide: whether two values differ by more than a float holds. weights: how often each value counts (Int64); None
    for once.
    """
    numbers = values.cast(pl.Float64)
    at = (segments.lengths > 0).arg_true()
    filled = segments.gathered(at)
    many, kth, rows = filled.lengths, kth_least, filled.lengths.sum()
    if weights is not None:
        before = _running(weights)
        many = before.gather(filled.starts + filled.lengths) - before.gather(filled.starts)
        kth = kth_gathered if rows <= min(_OVERLAP * len(numbers), _GATHERED) else kth_least
    places = [(many - 1).cast(pl.Float64) * share for share in shares]
    ends = [end.cast(pl.Int64) for place in places for end in (place.floor(), place.ceil())]
    ranked, nothing = kth(numbers, filled, ends, weights), pl.Series([None], dtype=pl.Float64)
    answers = []
    for place, least, greatest in zip(places, ranked[::2], ranked[1::2], strict=True):
        rest = place - place.floor()
        between = _between(least, greatest, rest)
        if wide:  # halves lose the last bit of the least floats
            halves = _between(least / 2, greatest / 2, rest) * 2
            between = between.zip_with(between.is_finite(), halves)
        between = between.zip_with(rest > 0, least)
        none = nothing.new_from_index(0, len(segments.starts))
        answers.append(none.scatter(at, between))
    return answers


def _between(least: pl.Series, greatest: pl.Series, rest: pl.Series) -> pl.Series:
    return least + (greatest - least) * rest


def kth_gathered(
    values: pl.Series,
    segments: Segments,
    ranks: list[pl.Series],
    weights: pl.Series | None = None,
) -> list[pl.Series]:
    """As `kth_least`, by the rows of each segment in order: cheaper while segments hardly overlap."""
    end = pl.col(_BEGIN) + pl.col(_END)
    bounds = pl.DataFrame([segments.starts.alias(_BEGIN), segments.lengths.alias(_END)])
    rows = bounds.select(pl.int_range(pl.len()).alias(_RANK), pl.int_ranges(_BEGIN, end))
    rows = rows.explode(_BEGIN)
    ones = pl.Series([1], dtype=pl.Int64).new_from_index(0, len(values))
    counts = (ones if weights is None else weights).gather(rows[_BEGIN]).alias(_OTHER)
    rows = pl.DataFrame([rows[_RANK], values.gather(rows[_BEGIN]).alias(_ONE), counts])
    in_order = rows.sort(_RANK, _ONE)
    behind = in_order[_OTHER].cum_sum()
    first = _running(in_order[_OTHER]).gather(segments.lengths.cum_sum() - segments.lengths)
    places = (behind.search_sorted(first + rank, "right") for rank in ranks)
    return [in_order[_ONE].gather(place) for place in places]


def kth_least(
    values: pl.Series,
    segments: Segments,
    ranks: list[pl.Series],
    weights: pl.Series | None = None,
) -> list[pl.Series]:
    """For each list of ranks, counted from 0, the value of that rank in each segment of a column without nulls.

    weights: how often each value counts (Int64); None for once.

    A wavelet matrix (Claude, Navarro, "The wavelet matrix", 2012), whose levels are used as they are built: at each, the
    values are parted by a bit of their code, and a rank says into which part it leads.
    """
    if values.is_empty():
        return [values.gather(rank) for rank in ranks]
    numbers = values.set(values == 0.0, 0.0)  # of equal values one form: -0.0 becomes 0.0
    distinct = numbers.unique().sort()
    code = numbers.rank("dense").cast(pl.UInt32) - 1
    slices = pl.DataFrame(
        {
            _BEGIN: pl.concat([segments.starts] * len(ranks)),
            _END: pl.concat([segments.starts + segments.lengths] * len(ranks)),
            _RANK: pl.concat(ranks),
        },
        schema={_BEGIN: pl.UInt32, _END: pl.UInt32, _RANK: pl.Int64},
    ).with_columns(pl.lit(0, pl.UInt32).alias(_CODE))
    for bit in reversed(range((len(distinct) - 1).bit_length())):
        is_low = (code & (1 << bit)) == 0
        low = pl.Series([0], dtype=pl.UInt32).append(is_low.cast(pl.UInt32).cum_sum())
        weighed = None if weights is None else _running(weights * is_low.cast(pl.Int64))
        slices = _parted(slices, low, bit, weighed)
        code = code.filter(is_low).append(code.filter(~is_low))
        if weights is not None:
            weights = weights.filter(is_low).append(weights.filter(~is_low))
    values = distinct.gather(slices[_CODE])
    width = len(segments.starts)
    return [values.slice(number * width, width) for number in range(len(ranks))]


def _running(numbers: pl.Series) -> pl.Series:
    """Sums before each number and after the last (Int64)."""
    return pl.Series([0], dtype=pl.Int64).append(numbers.cum_sum())


def _parted(
    slices: pl.DataFrame, low: pl.Series, bit: int, weighed: pl.Series | None
) -> pl.DataFrame:
    """The slices within the part of a level into which each one's rank leads: the values whose bit is not set come first.

    low: before each value of the level, and after the last, the number of values whose bit is not set. weighed: the same
    with each value's weight; None where each counts once.
    """
    first, last = low.gather(slices[_BEGIN]), low.gather(slices[_END])
    set_ones = int(low[-1])
    many = (last - first).cast(pl.Int64)
    if weighed is not None:
        many = weighed.gather(slices[_END]) - weighed.gather(slices[_BEGIN])
    is_low = slices[_RANK] < many
    return pl.DataFrame(
        [
            first.zip_with(is_low, slices[_BEGIN] - first + set_ones).alias(_BEGIN),
            last.zip_with(is_low, slices[_END] - last + set_ones).alias(_END),
            slices[_RANK].zip_with(is_low, slices[_RANK] - many).alias(_RANK),
            slices[_CODE].zip_with(is_low, slices[_CODE] + (1 << bit)).alias(_CODE),
        ]
    )
