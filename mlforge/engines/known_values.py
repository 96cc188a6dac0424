"""Values as of an instant that several features of a job ask for: those of each metric are evaluated once."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import polars as pl

from mlforge.engines import Events
from mlforge.engines.known_metrics import KnownMetrics
from mlforge.engines.views import HeldEvents
from mlforge.frames.shared_results import once


def with_known_values(
    of: Hashable,
    events: HeldEvents,
    points: pl.DataFrame,
    evaluate: Callable[[Events], pl.DataFrame],
) -> pl.DataFrame:
    """The value columns at points; `evaluate` gives them for the metrics that no feature with these windows has asked for.

    of: all that the values follow from beside the events and the points. Metrics of fewer windows are not evaluated apart, so
    that those of a feature see the events that they see in its own evaluation; nor are those that tiles may stand for.
    """
    spec = events.spec
    windows = frozenset(spec.windows)
    if spec.derived or spec.interval is not None or not windows:
        return evaluate(events)
    key = of, spec.keys, spec.timestamp, windows, events.schema
    known = once("values by metric", lambda: key, KnownMetrics, events.frame, points).by_metric
    new = [metric for metric in spec.columns if metric not in known]
    if new:
        if {metric.window for metric in new} != windows:
            new = [*spec.columns]
        values = evaluate(events.restricted([metric.name for metric in new]))
        known |= {metric: values[metric.name] for metric in new}
    return pl.DataFrame([known[metric].alias(metric.name) for metric in spec.columns])
