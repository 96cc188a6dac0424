"""Merging tiles: which of their parts a kernel is to aggregate, and how metrics follow from its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import polars as pl

from mlforge.compilers.base import TIME
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.metrics import MetricColumn
from mlforge.core.schema import DIGITS, decimal_scale
from mlforge.engines.kernels.fixed_point import Extent, Scale
from mlforge.engines.tiles.build import (
    PARTS_OF,
    WIDE,
    Tiles,
    part_alias,
    part_dtype,
    part_name,
    parts,
    wide,
)
from mlforge.frames import polars_schema

# How a kernel merges the parts of tiles. `scaled_mean` and `squares`: the mean of a tile as a whole number, and
# its square, each times the tile's number of values.
_MERGES = {
    **dict.fromkeys(("count", "sum", "spread", "scaled_mean", "squares"), "sum"),
    **{kind: kind for kind in ("min", "max", "first", "last")},
    "first_time": "min",
    "last_time": "max",
}
_OF_DEVIATIONS = ("std", "var")
_AT_ENDS = {"first": "first_time", "last": "last_time"}
_MERGED_ALONE = ("count", "min", "max", "first", "last", "first_time", "last_time")
_KERNEL_OF = {
    **PARTS_OF,
    **dict.fromkeys(_OF_DEVIATIONS, ("count", "spread", "scaled_mean", "squares")),
    **{kind: (kind,) for kind in _AT_ENDS},
}
_MOST = "__most"
_SQUARABLE = 400
"""The greatest exponent of numbers whose squares are floats."""


@dataclass(frozen=True)
class Merge:
    """Tiles ready for a kernel.

    rows: keys, TIME and value columns, shaped as events are. merges, dtypes: the aggregates of tile parts for the
    kernel to compute. finalized: the feature's metrics, from the kernel's results. over_events: the metrics
    that only the events can give.
    """

    rows: pl.DataFrame
    merges: tuple[MetricColumn, ...]
    dtypes: Mapping[str, str]
    finalized: tuple[pl.Expr, ...]
    over_events: tuple[MetricColumn, ...]


def merge(
    tiles: Tiles, spec: FeatureSpec, metrics: Sequence[MetricColumn], dtypes: Mapping[str, str]
) -> Merge:
    """The aggregates to run over these tiles, and the expressions that finish the metrics. dtypes: of the value columns."""
    rows, columns = tiles.rows.collect(), {}
    for name, kinds in parts(metrics).items():
        dtype = dtypes[name]
        sum_scale = tiles.summary.scale(name, dtype) if "sum" in kinds else None
        mean_scale = None
        if "spread" in kinds and sum_scale is not None:
            rows, mean_scale = _with_means(rows, name, dtype, sum_scale, spec)
        rows = rows.with_columns(_at_end(name, kind, spec) for kind in _AT_ENDS if kind in kinds)
        columns[name] = _Column(name, dtype, sum_scale, mean_scale)
    chosen = [m for m in metrics if columns[m.value].holds(m.aggregation)]
    merges = dict.fromkeys(_merged(m, kind) for m in chosen for kind in _KERNEL_OF[m.aggregation])
    return Merge(
        rows,
        tuple(merges),
        {
            part_name(m.value, kind): _dtype(kind, dtypes[m.value])
            for m in chosen
            for kind in _KERNEL_OF[m.aggregation]
        },
        tuple(columns[metric.value].finalize(metric) for metric in chosen),
        tuple(m for m in metrics if m not in chosen),
    )


def compact(tiles: Tiles, spec: FeatureSpec, dtypes: Mapping[str, str]) -> Tiles | None:
    """A tile for each entity, of all its tiles; None where the spreads of a column cannot be merged exactly."""
    rows, united = tiles.rows.collect(), [pl.col(TIME).max()]
    summed: list[pl.Expr] = []
    spreads: list[pl.Expr] = []
    columns = rows.columns
    for name, kinds in parts(spec.columns).items():
        if "spread" in kinds:
            sum_scale = tiles.summary.scale(name, dtypes[name])
            if sum_scale is None:
                return None
            rows, mean_scale = _with_means(rows, name, dtypes[name], sum_scale, spec)
            if mean_scale is None:
                return None
            spreads.append(_united_spread(name, mean_scale))
            united += [_united(name, kind) for kind in ("scaled_mean", "squares")]
            summed.append(pl.col(part_alias(name, "spread")).list.sum())
        united += [_united(name, kind) for kind in kinds]
    rows = rows.group_by(spec.entity).agg(united).with_columns(summed).with_columns(spreads)
    return Tiles(rows.select(columns).lazy(), tiles.summary)


def _united(column: str, kind: str) -> pl.Expr:
    """The part of several tiles of an entity; spreads in a list, in the order of the tiles, in which they are added up."""
    alias = part_alias(column, kind)
    part = pl.col(alias)
    if kind == "spread":
        return part
    if kind in _AT_ENDS:
        ordered = part.sort_by(part_alias(column, _AT_ENDS[kind]), alias).drop_nulls()
        return ordered.first() if kind == "first" else ordered.last()
    match _MERGES[kind]:
        case "min":
            return part.min()
        case "max":
            return part.max()
    return wide(part.to_physical().sum()) if _dtype(kind, "") == WIDE else part.sum()


def _united_spread(column: str, mean_scale: Scale) -> pl.Expr:
    """The spread of united tiles: within them, and between their means."""
    sums, squares = (
        pl.col(part_alias(column, k)).to_physical() for k in ("scaled_mean", "squares")
    )
    between = mean_scale.deviations(sums, squares, pl.col(part_alias(column, "count")))
    return pl.col(part_alias(column, "spread")) + between.fill_nan(0.0)


def gives(aggregation: str, sum_scale: Scale | None, mean_scale: Scale | None) -> bool:
    """Whether tiles give an aggregation of a column whose sums, and tiles' means, have these scales."""
    needed = {"sum": sum_scale, "mean": sum_scale, **dict.fromkeys(_OF_DEVIATIONS, mean_scale)}
    return aggregation in PARTS_OF and needed.get(aggregation, True) is not None


@dataclass(frozen=True)
class _Column:
    """An event column: the scale of its tiles' sums, and the scale of their means; None where there is none."""

    name: str
    dtype: str
    sum_scale: Scale | None
    mean_scale: Scale | None

    def holds(self, aggregation: str) -> bool:
        """Whether tiles give an aggregation of the column."""
        return gives(aggregation, self.sum_scale, self.mean_scale)

    def finalize(self, metric: MetricColumn) -> pl.Expr:
        """The metric, from merged parts; null where it has no value."""
        aggregation = metric.aggregation
        merged = {kind: pl.col(_merged(metric, kind).name) for kind in _KERNEL_OF[aggregation]}
        if aggregation in _MERGED_ALONE:
            return merged[aggregation].alias(metric.name)
        count, least = merged["count"], 1
        if aggregation in _OF_DEVIATIONS:
            assert self.mean_scale is not None
            sums, squares = (merged[kind].to_physical() for kind in ("scaled_mean", "squares"))
            between = self.mean_scale.deviations(sums, squares, count)
            value, least = (merged["spread"] + between) / (count - 1), 2
            value = value.sqrt() if aggregation == "std" else value
        elif aggregation == "mean":
            value = _number(merged["sum"], self.dtype, self.sum_scale) / count
        else:
            value = _total(merged["sum"], self.dtype, self.sum_scale)
        return pl.when(count >= least).then(value).alias(metric.name)


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of the values in tiles, by the root of their mean square, and the most that an entity has."""

    extent: Extent
    most: int

    @classmethod
    def of(cls, rows: pl.DataFrame, column: str, keys: Sequence[str], mean: pl.Expr) -> Self:
        """The sizes of a column that has spreads; `mean`: of each tile."""
        rows, count = polars_schema.row_by_row(rows), pl.col(part_alias(column, "count"))
        size = (pl.col(part_alias(column, "spread")) / count + mean.pow(2)).sqrt().fill_nan(None)
        most = rows.group_by(keys).agg(count.sum().alias(_MOST)).select(pl.col(_MOST).max()).item()
        return cls(Extent.of(rows.select(size.alias(_MOST)).to_series()), most or 0)

    def union(self, other: Sizes) -> Sizes:
        """The sizes of both, for as many values of an entity as both may have."""
        return Sizes(self.extent.union(other.extent), self.most + other.most)

    def scale(self) -> Scale | None:
        """A scale for the means of tiles, fine enough for each tile's own size; None if there is none."""
        ends = self.extent.exponents
        scale = Scale.for_squares(self.extent, self.most)
        return None if ends and max(map(abs, ends)) > _SQUARABLE else scale


def mean_of(column: str, dtype: str, sum_scale: Scale) -> pl.Expr:
    """The mean of each tile; NaN where it has no value."""
    count = pl.col(part_alias(column, "count"))
    return _number(pl.col(part_alias(column, "sum")), dtype, sum_scale) / count


def _with_means(
    rows: pl.DataFrame, column: str, dtype: str, sum_scale: Scale, spec: FeatureSpec
) -> tuple[pl.DataFrame, Scale | None]:
    """Tiles with their means as whole numbers, for deviations between them, and the scale of the means."""
    rows, mean = polars_schema.row_by_row(rows), mean_of(column, dtype, sum_scale)
    scale = Sizes.of(rows, column, spec.entity, mean).scale()
    if scale is None:
        return rows, None
    whole = scale.whole(mean.fill_nan(None))
    weighted = whole * pl.col(part_alias(column, "count")).cast(pl.Int128)
    # Not lazily, though both have most in common: last bits then differ between all entities at once and a bucket of them.
    return rows.with_columns(
        wide(weighted).alias(part_alias(column, "scaled_mean")),
        wide(weighted * whole).alias(part_alias(column, "squares")),
    ), scale


def _at_end(column: str, kind: str, spec: FeatureSpec) -> pl.Expr:
    """The first or last values of tiles, null where another tile of the entity's interval has an earlier or later one."""
    time, value = (pl.col(part_alias(column, part)) for part in (_AT_ENDS[kind], kind))
    end = time.min() if kind == "first" else time.max()
    return pl.when(time == end.over(*spec.entity, TIME)).then(value).alias(part_alias(column, kind))


def _number(sums: pl.Expr, dtype: str, scale: Scale | None) -> pl.Expr:
    """The sums of tiles, as floats."""
    assert scale is not None
    # By the reciprocal, as polars divides several rows: a lone one it would divide, with other last bits.
    unit = 1 / 10.0 ** (decimal_scale(dtype) or 0)
    return scale.number(sums.to_physical()).cast(pl.Float64) * unit


def _total(sums: pl.Expr, dtype: str, scale: Scale | None) -> pl.Expr:
    """Sums of tiles: 128 bits for integers, Decimal(38, s), Float64."""
    assert scale is not None
    total, digits = scale.number(sums.to_physical()), decimal_scale(dtype)
    return total if digits is None else total.reinterpret(dtype=pl.Decimal(DIGITS, digits))


def _dtype(kind: str, dtype: str) -> str:
    return WIDE if kind in ("scaled_mean", "squares") else part_dtype(kind, dtype)


def _merged(metric: MetricColumn, kind: str) -> MetricColumn:
    """The aggregate of a part that a kernel is to compute for a metric."""
    return MetricColumn(part_name(metric.value, kind), _MERGES[kind], metric.window)
