"""What engines compile: the metrics of a feature, grouped by window."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlforge.core.metrics import MetricColumn
from mlforge.core.time_model import Window

# Names within the kernel. Source columns may not begin with two underscores, so these are free.
ENTITY = "__entity"
TIME = "__time"
ROW = "__row"


@dataclass(frozen=True, slots=True)
class ComputeContext:
    """One feature's metrics and the dtypes of the event columns that they aggregate."""

    metrics: tuple[MetricColumn, ...]
    dtypes: Mapping[str, str]

    def by_window(self) -> Mapping[Window, tuple[MetricColumn, ...]]:
        """The metrics of each distinct window, in order."""
        grouped: dict[Window, list[MetricColumn]] = {}
        for metric in self.metrics:
            grouped.setdefault(metric.window, []).append(metric)
        return {window: tuple(metrics) for window, metrics in grouped.items()}

    def value_columns(self) -> Iterable[str]:
        """The event columns that some metric aggregates, each once."""
        return dict.fromkeys(metric.column for metric in self.metrics)


def value_alias(column: str) -> str:
    """An event column's name within the kernel: it may also be a key or the timestamp."""
    return f"__value_{column}"
