"""Tiles: what all events of an entity and an interval come to, for aligned windows over dense events.

Such windows begin and end where intervals do, so they are unions of tiles, and one set of tiles serves all of
them. A tile is a row like an event's, at the start of its interval: kernels roll over either alike. Only what merges
exactly is tiled: counts, least and greatest values, and sums in fixed point. Medians, and sums that no
fixed point holds, are made of the events themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import polars as pl

from mlforge.compilers.base import ROW, TIME, ComputeContext, value_alias
from mlforge.engines.fixed import WHOLE, Extent, Scale, extent
from mlforge.metrics import MetricColumn
from mlforge.schema import FLOATS, decimal_scale
from mlforge.spec import FeatureSpec

_DENSE = 4
"""How many events a tile stands for on average at least; fewer do not pay for making it."""
_FEWEST = 20_000
"""Fewer events than this are evaluated before one could tell how dense they are."""
_ENGINE: Literal["streaming"] = "streaming"
"""Polars groups so in half of the time from tens of thousands of events on, and needs not hold them."""
_DIGITS = 38
_WIDE = f"Decimal({_DIGITS}, 0)"
"""The dtype of sums within a kernel: 128 bits that every engine takes."""

# What a metric is made of, and how that merges over the tiles of a window.
_MADE_OF = {
    "count": ("count",),
    "sum": ("count", "sum"),
    "mean": ("count", "sum"),
    "std": ("count", "near", "squares"),
    "min": ("min",),
    "max": ("max",),
}
_MERGES = {
    **dict.fromkeys(("count", "sum", "near", "squares"), "sum"),
    "min": "min",
    "max": "max",
}


@dataclass(frozen=True)
class Tiles:
    """Tiles of some events.

    rows: keys, TIME and value columns, as of events. merges: what a kernel is to compute of them.
    made: the metrics, of what the kernel gives. rest: metrics that need the events themselves.
    """

    rows: pl.DataFrame
    merges: ComputeContext
    made: tuple[pl.Expr, ...]
    rest: ComputeContext

    def finished(self, merged: pl.DataFrame) -> pl.DataFrame:
        """ROW and the metrics that are made of tiles, once a kernel has merged them."""
        return merged.select(ROW, *self.made)


def tiled(
    events: pl.LazyFrame, spec: FeatureSpec, context: ComputeContext, rows: int
) -> Tiles | None:
    """The tiles of gathered events; None where there is no interval, or events are too few or not dense.

    rows: how many events there are at most. They are read several times, and need not fit into memory.
    """
    if spec.interval is None or rows < _FEWEST:
        return None
    start = pl.col(TIME) - pl.col(TIME).mod(spec.interval.us)
    if not _dense(events, pl.struct(*spec.keys, start)):
        return None
    columns = _surveyed(events, spec, context)
    chosen = [m for m in context.metrics if columns[m.column].holds(m.aggregation)]
    if not chosen:
        return None
    kinds = dict.fromkeys((m.column, kind) for m in chosen for kind in _MADE_OF[m.aggregation])
    merges = dict.fromkeys(_merge(m, kind) for m in chosen for kind in _MADE_OF[m.aggregation])
    parts = [columns[column].part(kind).alias(_alias(column, kind)) for column, kind in kinds]
    wide = [
        _alias(column, kind) for column, kind in kinds if columns[column].dtype_of(kind) == _WIDE
    ]
    made = events.group_by(*spec.keys, start).agg(parts).with_columns(_as_decimal(pl.col(wide), 0))
    return Tiles(
        made.collect(engine=_ENGINE),
        ComputeContext(
            tuple(merges),
            {_named(column, kind): columns[column].dtype_of(kind) for column, kind in kinds},
        ),
        tuple(columns[metric.column].finished(metric) for metric in chosen),
        ComputeContext(tuple(m for m in context.metrics if m not in chosen), context.dtypes),
    )


def _dense(events: pl.LazyFrame, tile: pl.Expr) -> bool:
    asked = events.select(pl.len(), tile.hash().approx_n_unique().alias("tiles"))
    count, tiles = asked.collect(engine=_ENGINE).row(0)
    return bool(count >= _DENSE * tiles)


@dataclass(frozen=True)
class _Column:
    """An event column: the scale that holds its sums exactly, and one for squares; None where there is none."""

    name: str
    dtype: str
    exact: Scale | None
    near: Scale | None

    def holds(self, aggregation: str) -> bool:
        """Whether tiles can make it."""
        needed = {"sum": self.exact, "mean": self.exact, "std": self.near}
        return aggregation in _MADE_OF and needed.get(aggregation, WHOLE) is not None

    def dtype_of(self, kind: str) -> str:
        """The dtype of a part."""
        return {"count": "Int64", "min": self.dtype, "max": self.dtype}.get(kind, _WIDE)

    def part(self, kind: str) -> pl.Expr:
        """What goes into a tile, of its events."""
        values = pl.col(value_alias(self.name))
        match kind:
            case "count":
                return values.count().cast(pl.Int64)
            case "min":
                return values.min()
            case "max":
                return values.max()
            case "sum":
                assert self.exact is not None
                return self.exact.whole(_physical(values, self.dtype)).sum()
        assert self.near is not None
        whole = self.near.whole(values)
        return whole.sum() if kind == "near" else (whole * whole).sum()

    def finished(self, metric: MetricColumn) -> pl.Expr:
        """The metric, of what merged parts come to; null where there is no value for it."""
        aggregation = metric.aggregation
        parts = {kind: pl.col(_merge(metric, kind).name) for kind in _MADE_OF[aggregation]}
        if aggregation in ("count", "min", "max"):
            return parts[aggregation].alias(metric.name)
        count, least = parts["count"], 1
        if aggregation == "std":
            assert self.near is not None
            sums, squares = (parts[kind].to_physical() for kind in ("near", "squares"))
            found = (self.near.deviations(sums, squares, count) / (count - 1)).sqrt()
            least = 2
        else:
            assert self.exact is not None
            found = self.exact.number(parts["sum"].to_physical())
            scale = decimal_scale(self.dtype)
            if aggregation == "mean":
                found = found.cast(pl.Float64) / 10.0 ** (scale or 0) / count
            elif scale is not None:
                found = _as_decimal(found, scale)
        return pl.when(count >= least).then(found).alias(metric.name)


def _surveyed(
    events: pl.LazyFrame, spec: FeatureSpec, context: ComputeContext
) -> Mapping[str, _Column]:
    """The columns that are aggregated, each with its scales."""
    summed = dict.fromkeys(
        m.column for m in context.metrics if m.aggregation in ("sum", "mean", "std")
    )
    extents = events.select(
        pl.struct(*extent(pl.col(value_alias(column)))).alias(column) for column in summed
    )
    longest = events.group_by(spec.keys).len().select(pl.col("len").max())
    found, most = pl.collect_all([extents, longest], engine=_ENGINE)
    known = {name: Extent(**found[name][0]) for name in summed}
    return {
        name: _column(name, context.dtypes[name], known.get(name), most.item() or 0)
        for name in context.value_columns()
    }


def _column(name: str, dtype: str, extent: Extent | None, longest: int) -> _Column:
    if extent is None:
        return _Column(name, dtype, None, None)
    scale = decimal_scale(dtype)
    exact: Scale | None = WHOLE
    if dtype in FLOATS:
        exact = Scale.exactly(extent, longest)
    elif scale is not None and (extent.greatest or 0) * longest >= 10.0 ** (_DIGITS - 1 - scale):
        exact = None  # sums may not fit, which the events' own kernel tells
    return _Column(name, dtype, exact, Scale.for_squares(extent, longest))


def _physical(values: pl.Expr, dtype: str) -> pl.Expr:
    return values if decimal_scale(dtype) is None else values.to_physical()


def _as_decimal(whole: pl.Expr, scale: int) -> pl.Expr:
    return whole.reinterpret(dtype=pl.Decimal(_DIGITS, scale))


def _named(column: str, kind: str) -> str:
    """A part's name among the columns that a kernel aggregates; no column of a source begins so."""
    return f"__{kind}_{column}"


def _alias(column: str, kind: str) -> str:
    return value_alias(_named(column, kind))


def _merge(metric: MetricColumn, kind: str) -> MetricColumn:
    """What a kernel is to compute of a part for a metric."""
    return MetricColumn(_named(metric.column, kind), _MERGES[kind], metric.window)
