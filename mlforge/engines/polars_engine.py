"""The kernel on polars: one rolling pass a window."""

from __future__ import annotations

from typing import ClassVar

import polars as pl

from mlforge.compilers import polars_compiler
from mlforge.compilers.base import ENTITY, ROW, TIME, ComputeContext
from mlforge.engines.base import Engine


class PolarsEngine(Engine):
    """In memory, on all cores; the default."""

    name: ClassVar[str] = "polars"

    def aggregate(
        self, events: pl.LazyFrame, points: pl.DataFrame, context: ComputeContext
    ) -> pl.DataFrame:
        """Roll over events and points together; a point's window is that of its time."""
        both = pl.concat([events.collect(), points], how="diagonal").sort(ENTITY, TIME)
        at = points.lazy()
        for window, metrics in context.by_window().items():
            ends_at = window.offset.us if window.offset else 0
            rolled = both.lazy().rolling(
                TIME,
                period=f"{window.width.us}i",
                offset=f"-{window.width.us + ends_at}i",
                closed=window.closed,
                group_by=ENTITY,
            )
            found = rolled.agg(polars_compiler.expression(metric, context) for metric in metrics)
            # All rows of one entity and instant see the same window, so any one of them answers.
            at = at.join(found.unique([ENTITY, TIME], keep="any"), on=[ENTITY, TIME], how="left")
        return at.drop(ENTITY, TIME).collect()
