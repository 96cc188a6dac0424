"""Aggregates of a timeline whose rows stand for several events, which all engines compute alike."""

from __future__ import annotations

import math

import polars as pl

from mlforge.compilers.base import ROW, Aggregate, ComputeContext, result_name
from mlforge.engines import ranks
from mlforge.engines.folds import FOLDS, Folds
from mlforge.engines.pairwise import Segments
from mlforge.engines.point_windows import TimelineIndex


def aggregate_weighted(
    line: pl.DataFrame, context: ComputeContext, weights: pl.Series
) -> pl.DataFrame:
    """ROW and the result of each aggregate at the numbered rows, as `Engine.aggregate` gives them.

    weights: for how many events each row of the line stands (Int64); null for points.
    """
    points = line.filter(pl.col(ROW).is_not_null())
    windows = TimelineIndex(line).windows(points, list(context.by_window()))
    folds = Folds(line, context, weights)

    def result(aggregate: Aggregate) -> pl.Series:
        segments = windows[aggregate.window].segments
        if aggregate.aggregation.kind.name in FOLDS:
            return folds.folded(aggregate, segments)
        return _percentile(folds, aggregate, segments)

    named = (result(a).alias(result_name(i)) for i, a in enumerate(context.aggregates))
    return pl.DataFrame([points[ROW], *named])


def _percentile(folds: Folds, aggregate: Aggregate, segments: Segments) -> pl.Series:
    slices, parameter = folds.slices(aggregate, segments), aggregate.aggregation.parameter
    share = 0.5 if parameter is None else float(parameter)
    values, weights = slices.values.values.cast(pl.Float64), slices.values.weights
    span = values.to_frame().select(pl.all().max() - pl.all().min()).item()
    wide = span == math.inf
    return ranks.between_ranks(values, slices.segments, share, wide=wide, weights=weights)
