"""Events in stored partials whose values at points the oracle judges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from mlforge.core.aggregations import AGGREGATIONS
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.metrics import MetricColumn
from mlforge.core.values import Duration
from mlforge.engines import POINT, Engine, Events
from mlforge.metrics import Rolling
from mlforge.testing.engine_cases import stored_events
from tests.support import oracle
from tests.support.agreement import plain

INSTANT = pl.Datetime("us", "UTC")


def window_of(column: MetricColumn) -> int | str:
    """A metric's window in the oracle's words."""
    width = column.window.width
    return width if width is not None and column.window.is_fixed else column.window.name


def metrics_of(spec: FeatureSpec) -> tuple[oracle.Metric, ...]:
    """A feature's metrics in the oracle's words."""
    return tuple(
        oracle.Metric(
            column.name,
            column.column,
            column.aggregation,
            window_of(column),
            column.window.offset.us if column.window.offset else 0,
            column.window.closed,
            column.where,
        )
        for column in spec.columns
    )


class History:
    """Events in stored partials, and the oracle's view of the same events."""

    def __init__(
        self,
        folder: Path,
        *metrics: Rolling,
        keys: Sequence[str] = ("user",),
        interval: str | None = None,
    ) -> None:
        self.folder = folder
        self.spec = FeatureSpec.of(
            "f", keys=keys, timestamp="at", interval=interval, metrics=metrics, online_clock="data"
        )
        self.frames: list[pl.DataFrame] = []
        self.judge = oracle.Feature(
            keys=tuple(keys),
            columns=(),
            timestamp="at",
            interval=Duration.parse(interval).us if interval else None,
            metrics=metrics_of(self.spec),
        )

    def add(self, *rows: tuple[Any, ...], **schema: Any) -> History:
        """One partial of rows (keys, time in microseconds, values)."""
        types = schema or {"user": pl.Int64, "at": pl.Int64, "x": pl.Float64}
        frame = pl.DataFrame(rows, schema=types, orient="row")
        self.frames.append(frame.with_columns(pl.col("at").cast(INSTANT)))
        return self

    @property
    def events(self) -> Events:
        return stored_events(self.spec, self.frames, self.folder)

    def points(self, *points: tuple[Any, ...]) -> pl.DataFrame:
        """Points as (keys, time in microseconds)."""
        types = {key: self.frames[0].schema[key] for key in self.spec.keys}
        frame = pl.DataFrame(points, schema={**types, POINT: pl.Int64}, orient="row")
        return frame.with_columns(pl.col(POINT).cast(INSTANT))

    def check(self, engine: Engine, *points: tuple[Any, ...]) -> pl.DataFrame:
        """The engine's answers, which must be the oracle's."""
        found = engine.values(self.events, self.points(*points))
        raw = [
            row
            for frame in self.frames
            for row in frame.with_columns(pl.col("at").to_physical()).to_dicts()
        ]
        kept = oracle.clean(self.judge, raw)
        expected = oracle.training(self.judge, kept, [(p[:-1], p[-1]) for p in points])
        assert found.height == len(points)
        assert found.columns == [metric.name for metric in self.judge.metrics]
        for point, row, cells in zip(points, found.to_dicts(), expected, strict=True):
            for name, cell in cells.items():
                assert oracle.close(plain(row[name]), cell.value, cell.magnitude), (
                    point,
                    name,
                    row,
                    cell,
                )
        return found


def every(window: str = "1h", *names: str, **options: Any) -> Rolling:
    """All aggregations, or some, of the column `x` over one window."""
    return Rolling(window, {"x": list(names) or list(AGGREGATIONS)}, **options)
