"""Building tiles: partial aggregates of the events of an entity and an interval, for aligned windows over dense events.

Windows of an aligned feature begin and end where intervals do, so they are unions of tiles, and one set of tiles
serves all of them. A tile is a row like an event's, at the start of its interval, and as with events there
may be several of one entity and interval: the tiles of several files are concatenated. It holds only parts that
merge exactly; `merge` computes metrics from them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import polars as pl

from mlforge.compilers.base import TIME, value_alias
from mlforge.core.aggregation_kinds import KINDS
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.metrics import MetricColumn
from mlforge.core.schema import DIGITS, FLOATS, decimal_scale
from mlforge.engines.kernels.fixed_point import WHOLE, Extent, Scale, extent
from mlforge.engines.tiles.places import Places

DENSE = 4
"""The least number of events a tile, on average, that pays for building it."""
FEWEST = 20_000
"""The least number of events for which it pays to find out how dense they are."""
WIDE = f"Decimal({DIGITS}, 0)"
"""The dtype of sums: 128 bits that every engine and file takes."""
PARTS_OF = {kind.name: kind.parts for kind in KINDS.values() if kind.parts}
"""The parts of tiles from which a metric is computed.

Spread: the sum of squared deviations from a tile's own mean. First, last: values of the least and the greatest
(time, value) pair, whose times are parts too, for an interval may have several tiles.
"""
_PIECE = 65_536
_MARGIN = 2  # entities are counted but roughly
_NO_SUM = pl.lit(None, dtype=pl.Int128)
# Polars groups so in half of the time from tens of thousands of events on, and need not hold them.
_ENGINE: Literal["streaming"] = "streaming"


@dataclass(frozen=True)
class Summary:
    """The number of events, and the extents of the columns that are summed."""

    events: int
    extents: Mapping[str, Extent]

    def scale(self, column: str, dtype: str) -> Scale | None:
        """The scale of a column's sums; None if no scale surely holds them. Monotone in the events: more never help."""
        if dtype in FLOATS:
            return Scale.exactly(self.extents[column], self.events)
        digits = DIGITS - 1 - (decimal_scale(dtype) or 0)
        # Where a sum may not fit, the metric is computed from the events, which tells for sure.
        too_large = (self.extents[column].greatest or 0) * self.events >= 10.0**digits
        return None if too_large else WHOLE

    def union(self, other: Summary) -> Summary:
        """The summary of both sets of events."""
        extents = {name: extent.union(other.extents[name]) for name, extent in self.extents.items()}
        return Summary(self.events + other.events, extents)


@dataclass(frozen=True)
class Tiles:
    """Tiles of some events: keys, TIME, and the parts of each value column; sums without a scale are null."""

    rows: pl.LazyFrame
    summary: Summary


def dense(events: pl.LazyFrame, spec: FeatureSpec) -> bool:
    """Whether events, as in a timeline, are many and dense enough for tiles to pay."""
    if _are_surely_dense(events, spec):
        return True
    tile = pl.struct(*spec.entity, interval_start(spec)).hash()
    counts = events.select(pl.len(), tile.approx_n_unique().alias("tiles"))
    count, tiles = counts.collect(engine=_ENGINE).row(0)
    return are_dense(count, tiles)


def are_dense(events: int, tiles: int) -> bool:
    """Whether so many events are many and dense enough for so many tiles to pay."""
    return events >= max(FEWEST, DENSE * tiles)


def _are_surely_dense(events: pl.LazyFrame, spec: FeatureSpec) -> bool:
    """Whether so many events would be dense even if each entity had a tile in each interval: a look at each key, not at each tile.

    Of an integer key the ends suffice where all integers between them are few.
    """
    keys, time = spec.entity, pl.col(TIME)
    entities = pl.col(keys[0]) if len(keys) == 1 else pl.struct(*keys).hash()
    is_integer = len(keys) == 1 and events.collect_schema()[keys[0]].is_integer()
    ends = (time.min().alias("first"), time.max().alias("last"))
    bounds = (entities.min().alias("least"), entities.max().alias("greatest"))
    roughly = entities.approx_n_unique().alias("entities")
    looks = events.select(pl.len(), *ends, *(bounds if is_integer else [roughly]))
    count, first, last, *known = looks.collect(engine=_ENGINE).row(0)
    if count < max(FEWEST, 1):
        return False
    assert spec.interval is not None
    intervals = last // spec.interval.us - first // spec.interval.us + 1
    if is_integer:
        least, greatest = known
        if least is not None and count >= DENSE * (greatest - least + 2) * intervals:
            return True  # of a null key, too, there may be events
        known = [*events.select(roughly).collect(engine=_ENGINE).row(0)]
    return bool(count >= _MARGIN * DENSE * known[0] * intervals)


def build_tiles(
    events: pl.LazyFrame,
    spec: FeatureSpec,
    dtypes: Mapping[str, str],
    start: pl.Expr | None = None,
    *,
    in_order: bool = False,
) -> Tiles:
    """The tiles of events, as in a timeline.

    dtypes: of the event columns. start: the time of the tile that an event belongs to, by default the start of its
    interval. Events are read several times, and need not fit into memory, but where they are taken in_order: by time and
    value, so that sums of squares have the same last bits whatever order files and threads bring them in.
    """
    in_order = in_order and is_rounded(spec)
    events = events.collect().lazy() if in_order else events
    summary = survey(events, spec)
    by_interval = start is None
    start = interval_start(spec) if start is None else start
    columns = parts(spec.columns)

    # Made once, as there may be many pieces.
    aggregates = [
        _part(column, kind, dtypes[column], summary)
        for column, kinds in columns.items()
        for kind in kinds
    ]
    sums = [wide(pl.col(part_alias(column, "sum"))) for column in summary.extents]
    keys = [*map(pl.col, spec.entity), start.alias(TIME)]
    if not in_order:
        grouped = events.group_by(keys).agg(aggregates).with_columns(sums)
        return Tiles(grouped.collect(engine=_ENGINE).lazy(), summary)
    tiled, whole = [column for column, kinds in columns.items() if kinds], events.collect()
    places = Places.of(whole, spec) if by_interval else None
    by = keys if places is None else [places.numbers]
    plans = (each.lazy().group_by(by).agg(aggregates) for each in _pieces(whole, spec, tiled))
    rows = pl.concat([plan.collect(engine="in-memory") for plan in plans]).with_columns(sums)
    return Tiles((rows if places is None else places.apart(rows)).lazy(), summary)


def _pieces(
    events: pl.DataFrame, spec: FeatureSpec, values: Iterable[str]
) -> Iterator[pl.DataFrame]:
    """Events by time and value, some at a time, cut where intervals begin: of so few, polars adds up each group in its order."""
    order = [TIME, *map(value_alias, values)]
    if spec.interval is None:
        yield from _ordered(events, order).iter_slices(_PIECE) if events.height else [events]
        return
    events = events if events[TIME].is_sorted() else events.sort(TIME)
    times, begin = events[TIME], 0
    while begin + _PIECE < events.height:
        start = times[begin + _PIECE] // spec.interval.us * spec.interval.us
        end = bisect_left(times, start, begin)
        if end <= begin:  # all of the piece lies in one interval
            end = bisect_left(times, start + spec.interval.us, begin)
        yield _ordered(events.slice(begin, end - begin), order)
        begin = end
    if begin < events.height or not events.height:
        yield _ordered(events.slice(begin), order)


def _ordered(events: pl.DataFrame, order: list[str]) -> pl.DataFrame:
    """Events by time, and those of one instant by their values: as they are where no two have one instant."""
    times = events[TIME]
    return events.sort(order) if (times.slice(1) <= times.head(-1)).any() else events


def survey(events: pl.LazyFrame, spec: FeatureSpec) -> Summary:
    """The summary of events, as in a timeline, which are read once and need not fit into memory."""
    summed = [column for column, kinds in parts(spec.columns).items() if "sum" in kinds]
    extents = [
        pl.struct(*extent(pl.col(value_alias(column)))).alias(value_alias(column))
        for column in summed
    ]
    ends = events.select(pl.len(), *extents).collect(engine=_ENGINE).row(0, named=True)
    known = {column: Extent(**ends[value_alias(column)]) for column in summed}
    return Summary(ends["len"], known)


def concat_tiles(several: Sequence[Tiles], dtypes: Mapping[str, str]) -> Tiles:
    """Tiles of several sets of events in one, their sums rescaled to a common scale."""
    summary = reduce(Summary.union, (tiles.summary for tiles in several))
    rows = [
        tiles.rows.with_columns(
            _rescaled(column, dtypes[column], tiles.summary, summary) for column in summary.extents
        )
        for tiles in several
    ]
    return Tiles(pl.concat(rows), summary)


def parts(metrics: Iterable[MetricColumn]) -> Mapping[str, tuple[str, ...]]:
    """For each value column the parts from which its metrics are computed; none for metrics that need events.

    Columns and parts are in an order of their own, whatever that of the metrics: cached tiles are shared by
    all definitions that need the same parts.
    """
    kinds: dict[str, dict[str, None]] = {}
    for metric in metrics:
        kinds.setdefault(metric.value, {}).update(
            dict.fromkeys(PARTS_OF.get(metric.aggregation, ()))
        )
    return {column: tuple(sorted(kinds[column])) for column in sorted(kinds)}


def is_rounded(spec: FeatureSpec) -> bool:
    """Whether some metric's last bits depend on how its events are grouped: sums of squares are rounded, all other parts are exact."""
    return any("spread" in kinds for kinds in parts(spec.columns).values())


def part_name(column: str, kind: str) -> str:
    """The name of a part as an event column; no column of a source begins so."""
    return f"__{kind}_{column}"


def part_alias(column: str, kind: str) -> str:
    """The name of a part's column in tiles."""
    return value_alias(part_name(column, kind))


def part_dtype(kind: str, dtype: str) -> str:
    """The dtype of a part, given that of the event column."""
    whole = dict.fromkeys(("count", "first_time", "last_time"), "Int64")
    return {**whole, "sum": WIDE, "spread": "Float64"}.get(kind, dtype)


def wide(whole: pl.Expr) -> pl.Expr:
    """Integers of 128 bits as the decimals that engines and files take."""
    return whole.reinterpret(dtype=pl.Decimal(DIGITS, 0))


def interval_start(spec: FeatureSpec) -> pl.Expr:
    """The start of an event's interval."""
    assert spec.interval is not None
    return pl.col(TIME) - pl.col(TIME).mod(spec.interval.us)


def _part(column: str, kind: str, dtype: str, of: Summary) -> pl.Expr:
    """The part of one tile, from its events."""
    values = pl.col(value_alias(column))
    match kind:
        case "count":
            part = values.count().cast(pl.Int64)
        case "spread":
            numbers = values.cast(pl.Float64)
            part = (numbers.var(ddof=0) * numbers.count()).fill_null(0.0)
        case "sum":
            scale = of.scale(column, dtype)
            physical = values if decimal_scale(dtype) is None else values.to_physical()
            part = _NO_SUM.first() if scale is None else scale.whole(physical).sum()
        case "first_time" | "last_time":
            times = pl.col(TIME).filter(values.is_not_null())
            part = times.min() if kind == "first_time" else times.max()
        case "first" | "last":
            ordered = values.sort_by(TIME, values).drop_nulls()
            part = ordered.first() if kind == "first" else ordered.last()
        case _:
            part = values.min() if kind == "min" else values.max()
    return part.alias(part_alias(column, kind))


def _rescaled(column: str, dtype: str, summary: Summary, both: Summary) -> pl.Expr:
    """A column's sums in the scale of both summaries; null where there is none."""
    before, after = summary.scale(column, dtype), both.scale(column, dtype)
    sums = pl.col(part_alias(column, "sum"))
    if before is None or after is None:
        return wide(_NO_SUM.alias(part_alias(column, "sum")))
    # Zeros are zeros in any scale.
    if before == after or summary.extents[column].exponents is None:
        return sums
    return wide(sums.to_physical() * pl.lit(1 << (after.bits - before.bits), dtype=pl.Int128))
