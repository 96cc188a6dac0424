"""Metrics that the features of one job ask for: those of features that are alike are evaluated in one pass.

Most of what an evaluation costs does not depend on how many metrics it gives. So when the first of several features asks, the metrics of
the others are evaluated with its own, and known by the time when these ask for them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import polars as pl

from mlforge.compilers.base import value_columns
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.metrics import MetricColumn
from mlforge.engines.tiles.build import is_rounded
from mlforge.errors import DataError
from mlforge.features.feature import Feature

_of_job: ContextVar[Mapping[str, Sequence[MetricColumn]]] = ContextVar("asked_together")


@contextmanager
def asked_together(features: Iterable[Feature]) -> Iterator[None]:
    """Have `asked_beside` know these features within the block, in this thread."""
    of_job: dict[str, Sequence[MetricColumn]] = {}
    for group in alike(features):
        metrics: dict[str, MetricColumn] = {}
        for metric in (metric for feature in group for metric in feature.spec.columns):
            metrics.setdefault(metric.name, metric)
        of_job |= {feature.name: [*metrics.values()] for feature in group}
    token = _of_job.set(of_job)
    try:
        yield
    finally:
        _of_job.reset(token)


def alike(features: Iterable[Feature]) -> list[list[Feature]]:
    """The features in groups whose metrics one pass gives, in the order of the first of each."""
    groups: dict[Hashable, list[Feature]] = defaultdict(list)
    for feature in features:
        groups[_alike(feature)].append(feature)
    return [*groups.values()]


def _alike(feature: Feature) -> Hashable:
    """A key that features have in common whose metrics one pass can give: of one function, with the same values and windows.

    Those with rounded values are apart, as their rows and what is put online are evaluated one after the other.
    """
    spec = feature.spec
    of_metrics = frozenset(value_columns(spec.columns)), frozenset(spec.windows), is_rounded(spec)
    return feature.code_hash, feature.engine, spec.keys, spec.timestamp, spec.interval, *of_metrics


def asked_beside(spec: FeatureSpec) -> list[MetricColumn]:
    """The metrics of other features of the job that are like this one, without any whose name is one of its own."""
    own = {metric.name for metric in spec.columns}
    return [metric for metric in _of_job.get({}).get(spec.name, ()) if metric.name not in own]


def with_others(
    evaluate: Callable[[Sequence[MetricColumn]], pl.DataFrame],
    metrics: Sequence[MetricColumn],
    others: Sequence[MetricColumn],
) -> tuple[pl.DataFrame, Sequence[MetricColumn]]:
    """The columns of some metrics and of others, and which these are: without the others where one of them has an error.

    Raises DataError as `evaluate` does for the metrics alone.
    """
    if others:
        try:
            return evaluate([*metrics, *others]), [*metrics, *others]
        except DataError:  # of a feature that is to be told of it in its own turn
            pass
    return evaluate(metrics), metrics
