"""Metrics made of tiles: what a kernel is to compute of them, and what its answers come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import polars as pl

from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.metrics import MetricColumn
from mlforge.core.schema import DIGITS, decimal_scale
from mlforge.engines.fixed_point import Extent, Scale
from mlforge.engines.tiles.build import (
    MADE_OF,
    WIDE,
    Tiles,
    part_alias,
    part_dtype,
    part_name,
    parts,
    wide,
)

# How a kernel merges what is in tiles. `near` and `squares`: means of tiles as whole numbers, and
# their squares, as often as the tile has values.
_MERGES = {
    **dict.fromkeys(("count", "sum", "spread", "near", "squares"), "sum"),
    "min": "min",
    "max": "max",
}
_KERNEL_OF = {**MADE_OF, "std": ("count", "spread", "near", "squares")}
_MOST = "__most"
_SQUARABLE = 400
"""Numbers of exponents up to here have squares that are floats."""


@dataclass(frozen=True)
class Merge:
    """Tiles ready for a kernel.

    rows: keys, TIME and value columns, as of events. merges, dtypes: the metrics of tiles' parts that a
    kernel is to compute. made: metrics of the feature, of the kernel's results. rest: the metrics
    that need the events themselves.
    """

    rows: pl.DataFrame
    merges: tuple[MetricColumn, ...]
    dtypes: Mapping[str, str]
    made: tuple[pl.Expr, ...]
    rest: tuple[MetricColumn, ...]

    def finished(self, merged: pl.DataFrame) -> pl.DataFrame:
        """The metrics that are made of tiles, once a kernel has merged those."""
        return merged.select(self.made)


def merge(
    tiles: Tiles, spec: FeatureSpec, metrics: Sequence[MetricColumn], dtypes: Mapping[str, str]
) -> Merge:
    """How metrics come from these tiles; `dtypes` are those of the event columns."""
    rows, columns = tiles.rows.collect(), {}
    for name, kinds in parts(metrics).items():
        dtype = dtypes[name]
        exact = tiles.summary.scale(name, dtype) if "sum" in kinds else None
        near = None
        if "spread" in kinds and exact is not None:
            rows, near = _with_means(rows, name, dtype, exact, spec)
        columns[name] = _Column(name, dtype, exact, near)
    chosen = [m for m in metrics if columns[m.column].holds(m.aggregation)]
    merges = dict.fromkeys(_merged(m, kind) for m in chosen for kind in _KERNEL_OF[m.aggregation])
    return Merge(
        rows,
        tuple(merges),
        {
            part_name(m.column, kind): _dtype(kind, dtypes[m.column])
            for m in chosen
            for kind in _KERNEL_OF[m.aggregation]
        },
        tuple(columns[metric.column].finished(metric) for metric in chosen),
        tuple(m for m in metrics if m not in chosen),
    )


def gives(aggregation: str, exact: Scale | None, near: Scale | None) -> bool:
    """Whether tiles give an aggregation of a column with these scales, of its sums and of its tiles' means."""
    needed = {"sum": exact, "mean": exact, "std": near}
    return aggregation in MADE_OF and needed.get(aggregation, True) is not None


@dataclass(frozen=True)
class _Column:
    """An event column: the scale of its tiles' sums, and that of their means; None where there is none."""

    name: str
    dtype: str
    exact: Scale | None
    near: Scale | None

    def holds(self, aggregation: str) -> bool:
        """Whether tiles give it."""
        return gives(aggregation, self.exact, self.near)

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


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the values in tiles are, by the root of their mean square, and how many an entity has at most."""

    extent: Extent
    most: int

    @classmethod
    def of(cls, rows: pl.DataFrame, column: str, keys: Sequence[str], mean: pl.Expr) -> Self:
        """Those of a column that has spreads; `mean`: of each tile."""
        count = pl.col(part_alias(column, "count"))
        size = (pl.col(part_alias(column, "spread")) / count + mean.pow(2)).sqrt().fill_nan(None)
        most = rows.group_by(keys).agg(count.sum().alias(_MOST)).select(pl.col(_MOST).max()).item()
        return cls(Extent.of(rows.select(size.alias(_MOST)).to_series()), most or 0)

    def union(self, other: Sizes) -> Sizes:
        """Those of both, of as many values of an entity as both may have."""
        return Sizes(self.extent.union(other.extent), self.most + other.most)

    def scale(self) -> Scale | None:
        """One for the means of tiles, fine enough for each tile's own size; None if there is none."""
        ends = self.extent.exponents
        found = Scale.for_squares(self.extent, self.most)
        return None if ends and max(map(abs, ends)) > _SQUARABLE else found


def mean_of(column: str, dtype: str, exact: Scale) -> pl.Expr:
    """The mean of each tile; NaN where it has no value."""
    count = pl.col(part_alias(column, "count"))
    return _number(pl.col(part_alias(column, "sum")), dtype, exact) / count


def _with_means(
    rows: pl.DataFrame, column: str, dtype: str, exact: Scale, spec: FeatureSpec
) -> tuple[pl.DataFrame, Scale | None]:
    """Tiles with their means as whole numbers, for deviations between them, and the scale of those."""
    mean = mean_of(column, dtype, exact)
    near = Sizes.of(rows, column, spec.keys, mean).scale()
    if near is None:
        return rows, None
    whole = near.whole(mean.fill_nan(None))
    weighted = whole * pl.col(part_alias(column, "count")).cast(pl.Int128)
    return rows.with_columns(
        wide(weighted).alias(part_alias(column, "near")),
        wide(weighted * whole).alias(part_alias(column, "squares")),
    ), near


def _number(sums: pl.Expr, dtype: str, scale: Scale | None) -> pl.Expr:
    """Sums of tiles as floats."""
    assert scale is not None
    return scale.number(sums.to_physical()).cast(pl.Float64) / 10.0 ** (decimal_scale(dtype) or 0)


def _total(sums: pl.Expr, dtype: str, scale: Scale | None) -> pl.Expr:
    """Sums of tiles: 128 bits for integers, Decimal(38, s), Float64."""
    assert scale is not None
    found, digits = scale.number(sums.to_physical()), decimal_scale(dtype)
    return found if digits is None else found.reinterpret(dtype=pl.Decimal(DIGITS, digits))


def _dtype(kind: str, dtype: str) -> str:
    return WIDE if kind in ("near", "squares") else part_dtype(kind, dtype)


def _merged(metric: MetricColumn, kind: str) -> MetricColumn:
    """What a kernel is to compute of a part for a metric."""
    return MetricColumn(part_name(metric.column, kind), _MERGES[kind], metric.window)
