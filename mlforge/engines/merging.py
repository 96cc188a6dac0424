"""Metrics made of tiles: what a kernel is to compute of them, and what its answers come to."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from mlforge.compilers.base import ROW, ComputeContext
from mlforge.engines.fixed import Extent, Scale
from mlforge.engines.tiles import (
    DIGITS,
    MADE_OF,
    WIDE,
    Tiles,
    part_alias,
    part_dtype,
    part_name,
    parts,
)
from mlforge.metrics import MetricColumn
from mlforge.schema import decimal_scale
from mlforge.spec import FeatureSpec

# How a kernel merges what is in tiles. `near` and `squares`: means of tiles as whole numbers, and
# their squares, as often as the tile has values.
_MERGES = {
    **dict.fromkeys(("count", "sum", "spread", "near", "squares"), "sum"),
    "min": "min",
    "max": "max",
}
_KERNEL_OF = {**MADE_OF, "std": ("count", "spread", "near", "squares")}
_MEAN, _SIZE = "__mean", "__size"
_SQUARABLE = 400
"""Numbers of exponents up to here have squares that are floats."""


@dataclass(frozen=True)
class Merge:
    """Tiles ready for a kernel.

    rows: keys, TIME and value columns, as of events. context: what a kernel is to compute of them.
    made: metrics, of what it gives. rest: the metrics that need the events themselves.
    """

    rows: pl.DataFrame
    context: ComputeContext
    made: tuple[pl.Expr, ...]
    rest: ComputeContext

    def finished(self, merged: pl.DataFrame) -> pl.DataFrame:
        """ROW and the metrics that are made of tiles, once a kernel has merged them."""
        return merged.select(ROW, *self.made)


def merge(tiles: Tiles, spec: FeatureSpec, context: ComputeContext) -> Merge | None:
    """How metrics come from these tiles; None where none does."""
    rows, columns = tiles.rows.collect(), {}
    for name, kinds in parts(context.metrics).items():
        dtype = context.dtypes[name]
        exact = tiles.summary.scale(name, dtype) if "sum" in kinds else None
        near = None
        if "spread" in kinds and exact is not None:
            rows, near = _with_means(rows, name, dtype, exact, spec)
        columns[name] = _Column(name, dtype, exact, near)
    chosen = [m for m in context.metrics if columns[m.column].holds(m.aggregation)]
    if not chosen:
        return None
    merges = dict.fromkeys(_merged(m, kind) for m in chosen for kind in _KERNEL_OF[m.aggregation])
    dtypes = {
        part_name(m.column, kind): _dtype(kind, context.dtypes[m.column])
        for m in chosen
        for kind in _KERNEL_OF[m.aggregation]
    }
    return Merge(
        rows,
        ComputeContext(tuple(merges), dtypes),
        tuple(columns[metric.column].finished(metric) for metric in chosen),
        ComputeContext(tuple(m for m in context.metrics if m not in chosen), context.dtypes),
    )


@dataclass(frozen=True)
class _Column:
    """An event column: the scale of its tiles' sums, and that of their means; None where there is none."""

    name: str
    dtype: str
    exact: Scale | None
    near: Scale | None

    def holds(self, aggregation: str) -> bool:
        """Whether tiles give it."""
        needed = {"sum": self.exact, "mean": self.exact, "std": self.near}
        return aggregation in MADE_OF and needed.get(aggregation, True) is not None

    def finished(self, metric: MetricColumn) -> pl.Expr:
        """The metric, of what merged parts come to; null where there is no value for it."""
        aggregation = metric.aggregation
        found = {kind: pl.col(_merged(metric, kind).name) for kind in _KERNEL_OF[aggregation]}
        if aggregation in ("count", "min", "max"):
            return found[aggregation].alias(metric.name)
        count, least = found["count"], 1
        if aggregation == "std":
            assert self.near is not None
            sums, squares = (found[kind].to_physical() for kind in ("near", "squares"))
            between = self.near.deviations(sums, squares, count)
            value, least = ((found["spread"] + between) / (count - 1)).sqrt(), 2
        elif aggregation == "mean":
            value = _number(found["sum"], self.dtype, self.exact) / count
        else:
            value = _total(found["sum"], self.dtype, self.exact)
        return pl.when(count >= least).then(value).alias(metric.name)


def _with_means(
    rows: pl.DataFrame, column: str, dtype: str, exact: Scale, spec: FeatureSpec
) -> tuple[pl.DataFrame, Scale | None]:
    """Tiles with their means, for deviations between them: whole numbers fine enough for each tile's own size."""
    count = pl.col(part_alias(column, "count"))
    mean = _number(pl.col(part_alias(column, "sum")), dtype, exact) / count
    size = (pl.col(part_alias(column, "spread")) / count + mean.pow(2)).sqrt()
    held = rows.with_columns(mean.fill_nan(None).alias(_MEAN), size.fill_nan(None).alias(_SIZE))
    most = held.group_by(spec.keys).agg(count.sum()).select(count.max()).item() or 0
    extent = Extent.of(held[_SIZE])
    ends = extent.exponents
    near = Scale.for_squares(extent, most)
    if near is None or (ends is not None and max(map(abs, ends)) > _SQUARABLE):
        return rows, None
    whole = near.whole(pl.col(_MEAN))
    weighted = whole * count.cast(pl.Int128)
    return held.with_columns(
        _wide(weighted).alias(part_alias(column, "near")),
        _wide(weighted * whole).alias(part_alias(column, "squares")),
    ).drop(_MEAN, _SIZE), near


def _number(sums: pl.Expr, dtype: str, scale: Scale | None) -> pl.Expr:
    """Sums of tiles as floats."""
    assert scale is not None
    return scale.number(sums.to_physical()).cast(pl.Float64) / 10.0 ** (decimal_scale(dtype) or 0)


def _total(sums: pl.Expr, dtype: str, scale: Scale | None) -> pl.Expr:
    """Sums of tiles: 128 bits for integers, Decimal(38, s), Float64."""
    assert scale is not None
    found, digits = scale.number(sums.to_physical()), decimal_scale(dtype)
    return found if digits is None else found.reinterpret(dtype=pl.Decimal(DIGITS, digits))


def _wide(whole: pl.Expr) -> pl.Expr:
    return whole.reinterpret(dtype=pl.Decimal(DIGITS, 0))


def _dtype(kind: str, dtype: str) -> str:
    return WIDE if kind in ("near", "squares") else part_dtype(kind, dtype)


def _merged(metric: MetricColumn, kind: str) -> MetricColumn:
    """What a kernel is to compute of a part for a metric."""
    return MetricColumn(part_name(metric.column, kind), _MERGES[kind], metric.window)
