"""Values as of an instant that several features of a job ask for: those of each metric are evaluated once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import polars as pl

from mlforge.core.metrics import MetricColumn
from mlforge.engines import Events
from mlforge.engines.asked_together import asked_beside, with_others
from mlforge.engines.known_metrics import KnownMetrics
from mlforge.engines.views import HeldEvents
from mlforge.frames.shared_results import are_shared, once


def with_known_values(
    of: Hashable,
    events: HeldEvents,
    points: pl.DataFrame,
    evaluate: Callable[[Events], pl.DataFrame],
) -> pl.DataFrame:
    """The columns of metrics at points; `evaluate` gives those that no feature with these windows has asked for.

    of: all that the values follow from beside the events and the points. Metrics of fewer windows are not evaluated apart, so
    that those of a feature see the events that they see in its own evaluation; nor are those that tiles may stand for.
    """
    spec = events.spec
    windows = frozenset(spec.windows)
    if spec.interval is not None or not windows or events.totals is not None:
        return evaluate(events)
    key = of, spec.keys, spec.timestamp, windows, events.schema
    known = once("values by metric", lambda: key, KnownMetrics, events.frame, points)
    new = known.lacking(spec.columns)
    if new:
        if {metric.window for metric in new} != windows:
            new = [*spec.columns]
        is_shared = are_shared(events.frame, points)
        others = known.lacking(asked_beside(spec)) if is_shared else []

        def evaluated(metrics: Sequence[MetricColumn]) -> pl.DataFrame:
            return evaluate(events.of_metrics(metrics))

        values, given = with_others(evaluated, new, others)
        known.by_metric |= {metric: values[metric.name] for metric in given}
    return pl.DataFrame([known.by_metric[metric].alias(metric.name) for metric in spec.columns])
