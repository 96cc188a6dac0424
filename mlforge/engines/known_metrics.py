"""Timelines and their metrics that several features of a job ask for: each is made once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

import polars as pl

from mlforge.compilers.base import ROW, value_columns
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.metrics import MetricColumn
from mlforge.core.values import TimeRange
from mlforge.engines.asked_together import asked_beside, with_others
from mlforge.engines.events import Events
from mlforge.frames.entity_times import EntityTimes
from mlforge.frames.shared_results import are_shared, once

Timeline = tuple[pl.DataFrame, pl.DataFrame]


def shared_timeline(
    events: Events, within: TimeRange | EntityTimes | None, make: Callable[[], Timeline]
) -> Timeline:
    """A timeline of events and what goes with it, the very same for features of the same events, values and windows.

    within: the entities and times that it is of; another timeline than one of some entities is made anew.
    """
    if not isinstance(within, EntityTimes):
        return make()
    metrics, windows = events.spec.columns, events.spec.windows
    return once(
        "timeline",
        lambda: (events.content, frozenset(value_columns(metrics)), frozenset(windows)),
        make,
        within.frame,
    )


def with_known_metrics(
    of: Hashable,
    line: pl.DataFrame,
    spec: FeatureSpec,
    aggregate: Callable[[Sequence[MetricColumn]], pl.DataFrame],
) -> pl.DataFrame:
    """ROW and each metric of a timeline by its name; `aggregate` gives them for the metrics that no feature has asked for.

    of: all that the results follow from beside the timeline. A metric's values do not depend on those beside it, but for the last bits
    of deviations, which depend on the longest window: so metrics of fewer windows are not aggregated apart.
    """
    known = once("metrics of a timeline", lambda: of, KnownMetrics, line)
    new = known.lacking(spec.columns)
    if new and {metric.window for metric in new} != {*spec.windows}:
        new = [*spec.columns]
    if new or known.numbers is None:
        others = known.lacking(asked_beside(spec)) if are_shared(line) else []
        results, given = with_others(aggregate, new, others)
        known.numbers = results[ROW]
        known.by_metric |= {metric: results[metric.name] for metric in given}
    assert known.numbers is not None
    columns = (known.by_metric[metric].alias(metric.name) for metric in spec.columns)
    return pl.DataFrame([known.numbers, *columns])


class KnownMetrics:
    """Metrics of one timeline that were aggregated, and the numbers of their rows."""

    def __init__(self) -> None:
        self.numbers: pl.Series | None = None
        self.by_metric: dict[MetricColumn, pl.Series] = {}

    def lacking(self, metrics: Iterable[MetricColumn]) -> list[MetricColumn]:
        """The metrics that are not known, of some."""
        return [metric for metric in metrics if metric not in self.by_metric]

    def estimated_size(self) -> int:
        """The bytes that they take."""
        return sum(int(values.estimated_size()) for values in [*self.by_metric.values()])
