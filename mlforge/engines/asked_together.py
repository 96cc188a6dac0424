"""Metrics that the features of one job ask for: those of features that are alike, or of one function, are evaluated in one pass.

Most of what an evaluation costs does not depend on how many metrics it gives. So when the first of several features asks, the metrics of
the others are evaluated with its own, and known by the time when these ask for them.

Features are alike that evaluate the same values over the same windows. Others of one function see further events, and the values of more
entities change: only metrics go with theirs that are the same to the bit, whatever is evaluated beside them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

import polars as pl

from mlforge.compilers.base import value_columns
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.metrics import MetricColumn
from mlforge.engines.tiles.build import PARTS_OF, is_rounded
from mlforge.errors import DataError
from mlforge.features.feature import Feature

_Metrics: TypeAlias = Mapping[str, Sequence[MetricColumn]]
_of_those_alike: ContextVar[_Metrics] = ContextVar("asked_together")
_of_one_function: ContextVar[_Metrics] = ContextVar("asked_of_one_function")


@contextmanager
def asked_together(features: Iterable[Feature]) -> Iterator[None]:
    """Have `asked_beside` and `asked_of_function` know these features within the block, in this thread."""
    features = [*features]
    of_alike = _of_those_alike.set(_asked(_groups(features, _alike)))
    exact = [feature for feature in features if _are_exact(feature.spec)]
    of_function = _of_one_function.set(_asked(_groups(exact, _function)))
    try:
        yield
    finally:
        _of_one_function.reset(of_function)
        _of_those_alike.reset(of_alike)


def _asked(groups: Iterable[Sequence[Feature]]) -> _Metrics:
    """By the name of each feature, the metrics of its group; of several with one name the first."""
    asked: dict[str, Sequence[MetricColumn]] = {}
    for group in groups:
        metrics: dict[str, MetricColumn] = {}
        for metric in (metric for feature in group for metric in feature.spec.columns):
            metrics.setdefault(metric.name, metric)
        asked |= {feature.name: (*metrics.values(),) for feature in group}
    return asked


def alike(features: Iterable[Feature]) -> list[list[Feature]]:
    """The features in groups whose metrics one pass gives, in the order of the first of each; those of one function together."""
    of_functions = _groups(features, _function)
    return [group for of_one in of_functions for group in _groups(of_one, _alike)]


def _groups(features: Iterable[Feature], key: Callable[[Feature], Hashable]) -> list[list[Feature]]:
    """Features of one key together, in the order of the first of each."""
    groups: dict[Hashable, list[Feature]] = defaultdict(list)
    for feature in features:
        groups[key(feature)].append(feature)
    return [*groups.values()]


def _alike(feature: Feature) -> Hashable:
    """A key that features have in common whose metrics one pass can give: of one function, with the same values and windows.

    Those with rounded values are apart, as their rows and what is put online are evaluated one after the other.
    """
    spec = feature.spec
    of_metrics = frozenset(value_columns(spec.columns)), frozenset(spec.windows), is_rounded(spec)
    return _function(feature), *of_metrics


def _function(feature: Feature) -> Hashable:
    """A key that features have in common whose events are the same, as of the same instants."""
    spec = feature.spec
    instants = spec.timestamp, spec.interval, all(window.sees_present for window in spec.windows)
    return feature.code_hash, feature.engine, spec.keys, *instants


def _are_exact(spec: FeatureSpec) -> bool:
    """Whether values do not depend on what is evaluated beside them: no sum of squares is rounded by it, no percentile found in another way.

    Nor on what is stored in the place of events.
    """
    is_plain = bool(spec.columns) and spec.interval is None and not spec.has_endless
    is_known = all(metric.aggregation in PARTS_OF for metric in spec.columns)
    return is_plain and is_known and not is_rounded(spec)


def asked_beside(spec: FeatureSpec) -> list[MetricColumn]:
    """The metrics of other features of the job that are like this one, without any whose name is one of its own."""
    own = {metric.name for metric in spec.columns}
    asked = _of_those_alike.get({}).get(spec.name, ())
    return [metric for metric in asked if metric.name not in own]


def asked_of_function(spec: FeatureSpec) -> Sequence[MetricColumn]:
    """The metrics of all features of the job with this one's function, by name; none where there are no others, or values are not exact."""
    asked = _of_one_function.get({}).get(spec.name, ())
    return asked if len(asked) > len(spec.columns) else ()


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
