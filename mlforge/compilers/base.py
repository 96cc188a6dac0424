"""The input of a kernel: aggregates over windows, by position instead of by name.

Users' names never reach an engine, which might fold their case or rename them: value columns and
results are numbered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from mlforge.core.aggregations import Aggregation, aggregation
from mlforge.core.metrics import MetricColumn
from mlforge.core.time_model import Window

# Names within the kernel. Source columns may not begin with two underscores, so these are free.
ENTITY = "__entity"
TIME = "__time"
ROW = "__row"


@dataclass(frozen=True, slots=True)
class Aggregate:
    """An aggregation over a window; `value` is the position of its value column."""

    aggregation: Aggregation
    value: int
    window: Window


@dataclass(frozen=True, slots=True)
class ComputeContext:
    """The aggregates of one evaluation, and the dtypes of the value columns.

    Value column `i` is named `value_name(i)`, the result of aggregate `j` `result_name(j)`.
    """

    aggregates: tuple[Aggregate, ...]
    dtypes: tuple[str, ...]

    @classmethod
    def of(cls, metrics: Iterable[MetricColumn], dtypes: Mapping[str, str]) -> Self:
        """The context of some metrics: values in the order of `value_columns`, results in that of the metrics."""
        metrics = tuple(metrics)
        position = {column: index for index, column in enumerate(value_columns(metrics))}
        aggregates = (
            Aggregate(aggregation(m.aggregation), position[m.value], m.window) for m in metrics
        )
        return cls(tuple(aggregates), tuple(dtypes[column] for column in position))

    def by_window(self) -> Mapping[Window, Mapping[int, Aggregate]]:
        """The aggregates of each distinct window by their position, in order."""
        grouped: dict[Window, dict[int, Aggregate]] = {}
        for index, aggregate in enumerate(self.aggregates):
            grouped.setdefault(aggregate.window, {})[index] = aggregate
        return grouped


def value_columns(metrics: Iterable[MetricColumn]) -> tuple[str, ...]:
    """The names of the values that some metric aggregates, each once."""
    return tuple(dict.fromkeys(metric.value for metric in metrics))


def value_name(position: int) -> str:
    """The name of a value column within the kernel."""
    return f"__value_{position}"


def result_name(position: int) -> str:
    """The name of an aggregate's result within the kernel."""
    return f"__result_{position}"


def value_alias(column: str) -> str:
    """The name of an event column in a timeline and in tiles: it may also be a key or the timestamp."""
    return f"__value_{column}"
