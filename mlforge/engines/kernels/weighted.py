"""Aggregates of a timeline whose rows stand for several events, which all engines compute alike."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import NamedTuple

import polars as pl

from mlforge.compilers.base import ROW, Aggregate, ComputeContext, result_name
from mlforge.core.time_model import Window
from mlforge.engines.kernels import ranks
from mlforge.engines.kernels.folds import FOLDS, Folds, Slices
from mlforge.engines.kernels.point_windows import PointWindows, TimelineIndex


class Weights(NamedTuple):
    """The weights of a line's rows: for how many events each stands (Int64), null for points; and whether for as many distinct values."""

    of_rows: pl.Series
    of_distinct: bool


def aggregate_weighted(
    line: pl.DataFrame, context: ComputeContext, weights: Weights
) -> pl.DataFrame:
    """ROW and the result of each aggregate at the numbered rows, as `Engine.aggregate` gives them."""
    points = line.filter(pl.col(ROW).is_not_null())
    windows = TimelineIndex.of(line, points).windows(points, list(context.by_window()))
    folds = Folds(line, context, *weights)
    by_rank = _percentiles(folds, windows)
    results = [
        folds.folded(aggregate, windows[aggregate.window].segments)
        if aggregate.aggregation.kind.name in FOLDS
        else by_rank[index]
        for index, aggregate in enumerate(context.aggregates)
    ]
    named = (result.alias(result_name(index)) for index, result in enumerate(results))
    return pl.DataFrame([points[ROW], *named])


def _percentiles(folds: Folds, windows: dict[Window, PointWindows]) -> dict[int, pl.Series]:
    """The percentiles among the aggregates, by position; the windows of a column are put in order once for all of theirs."""
    together: dict[tuple[int, Window], list[int]] = defaultdict(list)
    aggregates = folds.context.aggregates
    for index, aggregate in enumerate(aggregates):
        if aggregate.aggregation.kind.name not in FOLDS:
            together[aggregate.value, aggregate.window].append(index)
    found: dict[int, pl.Series] = {}
    for (_, window), indexes in together.items():
        slices = folds.slices(aggregates[indexes[0]], windows[window].segments)
        shares = [_share(aggregates[index]) for index in indexes]
        found |= zip(indexes, _ranked(slices, shares), strict=True)
    return found


def _share(aggregate: Aggregate) -> float:
    parameter = aggregate.aggregation.parameter
    return 0.5 if parameter is None else float(parameter)


def _ranked(slices: Slices, shares: list[float]) -> list[pl.Series]:
    values, weights = slices.values.values.cast(pl.Float64), slices.values.weights
    span = values.to_frame().select(pl.all().max() - pl.all().min()).item()
    wide = span == math.inf
    return ranks.percentiles(values, slices.segments, shares, wide=wide, weights=weights)
