"""A feature that is made from the feature under test, for the state machine: both as data and for the oracle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

import mlforge
from mlforge.metrics import Rolling
from tests.support import oracle
from tests.support.agreement import plain
from tests.support.histories import UNITS, Plan, everything

READER = "g"
_WINDOWS = (2, 10)
_PLAIN = (pl.Int64, pl.Float64, pl.Float32, pl.String, pl.Date, pl.Decimal)


@dataclass(frozen=True)
class Reader:
    """Counts and greatest values of a column of the feature under test; its rows as they are, if it is untimed."""

    plan: Plan
    column: str | None

    @classmethod
    def of(cls, plan: Plan, table: pl.DataFrame) -> Reader:
        """A reader of the first plain column of the table."""
        outputs = [name for name in plan.oracle().outputs if name in table.columns]
        simple = [name for name in outputs if table.schema[name].base_type() in _PLAIN]
        return cls(plan, simple[0] if simple and plan.world.timed else None)

    @property
    def aggregations(self) -> list[str]:
        """What is computed of the column."""
        return [] if self.column is None else ["count", "max"]

    def library(self, upstream: str) -> Any:
        """The feature as the library's users would write it."""
        windows = [f"{n}{self.plan.world.unit}" for n in _WINDOWS]
        metrics = (
            [] if self.column is None else [Rolling(windows, {self.column: self.aggregations})]
        )
        return mlforge.feature(
            name=READER,
            keys=[name for name, _ in self.plan.world.keys],
            source=f"feature:{upstream}",
            timestamp="at" if self.plan.world.timed else None,
            metrics=metrics,
        )(everything)

    def oracle(self, table: pl.DataFrame) -> oracle.Feature:
        """The same feature for the oracle, over the columns of the table that it reads."""
        unit, us = self.plan.world.unit, UNITS[self.plan.world.unit]
        return oracle.Feature(
            keys=tuple(name for name, _ in self.plan.world.keys),
            columns=tuple(table.columns),
            timestamp="at" if self.plan.world.timed else None,
            metrics=tuple(
                oracle.Metric(
                    f"{self.column}__{name}__{n}{unit}",
                    str(self.column),
                    name,
                    n * us,
                    closed="both",
                )
                for name in self.aggregations
                for n in _WINDOWS
            ),
        )

    def events(self, table: pl.DataFrame) -> oracle.Events:
        """The rows of the table that it reads, in plain Python."""
        rows = [
            {name: plain(value) for name, value in row.items()}
            for row in table.iter_rows(named=True)
        ]
        return oracle.clean(self.oracle(table), rows)
