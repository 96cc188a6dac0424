"""Values of several features at once: those of the same events at the same points are evaluated in one pass.

Features of one source that share a function have equal events, each in files of its own. Gathering and sorting them is most of
what training costs, and is done once for all windows of these features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import polars as pl

from mlforge.core.metrics import MetricColumn
from mlforge.engines import Engine, Events, evaluation
from mlforge.errors import DataError


@dataclass(frozen=True)
class Request:
    """A feature's events, and the points at which its values are asked for, as `evaluation.values_at` takes them."""

    events: Events
    points: pl.DataFrame

    @property
    def metrics(self) -> dict[str, MetricColumn]:
        """The metrics by the names of their columns."""
        return {metric.name: metric for metric in self.events.spec.columns}

    @cached_property
    def is_plain(self) -> bool:
        """Whether its values come of events alone: stored tiles and totals are a feature's own."""
        spec = self.events.spec
        has_tiles = spec.interval is not None or spec.has_endless
        return bool(spec.columns) and not has_tiles

    @cached_property
    def contents(self) -> list[tuple[str, int]]:
        """The hash and the digest of each partial; they say which events these are, whoseever the files."""
        return sorted((partial.hash, partial.digest) for partial in self.events.partials)

    def goes_with(self, other: Request) -> bool:
        """Whether both are of the same events at the same points, with metrics that can be told apart."""
        one, two = self.events, other.events
        of_one_kind = self.is_plain and other.is_plain and one.store is two.store
        if not of_one_kind or one.schema != two.schema or one.spec.identity != two.spec.identity:
            return False
        mine = self.metrics
        # Metrics of one name may differ, as in which ends of a window belong to it.
        if any(mine.get(name, metric) != metric for name, metric in other.metrics.items()):
            return False
        return self.contents == other.contents and self.points.equals(other.points)

    def with_metrics_of(self, other: Request) -> Self:
        """The same request, which asks for the other's metrics, too."""
        columns = tuple({**self.metrics, **other.metrics}.values())
        spec = replace(self.events.spec, columns=columns, derived=())
        # No feature has all these metrics, and none of them takes tiles of one.
        return replace(self, events=replace(self.events, spec=spec, whole=None))


def values_of_each(engine: Engine, requests: Sequence[Request]) -> list[pl.DataFrame]:
    """The value columns of each request, as `evaluation.values_at` gives them and with its errors."""
    passes: list[tuple[Request, list[int]]] = []
    for number, request in enumerate(requests):
        place = next((i for i, (whole, _) in enumerate(passes) if whole.goes_with(request)), None)
        if place is None:
            passes.append((request, [number]))
        else:
            whole, numbers = passes[place]
            passes[place] = whole.with_metrics_of(request), [*numbers, number]
    values: dict[int, pl.DataFrame] = {}
    for whole, numbers in passes:
        own = [requests[number] for number in numbers]
        values.update(zip(numbers, _values_of_pass(engine, whole, own), strict=True))
    return [values[number] for number in range(len(requests))]


def _values_of_pass(
    engine: Engine, whole: Request, requests: Sequence[Request]
) -> list[pl.DataFrame]:
    """The value columns of each of some requests that go together, from those of the whole."""
    alone = (evaluation.values_at(engine, each.events, each.points) for each in requests)
    if len(requests) == 1:
        return list(alone)
    try:
        plain = evaluation.plain_values(engine, whole.events, whole.points)
    except DataError:  # that one of the features raises, which is to be named
        return list(alone)
    return [
        evaluation.with_derived(each.events, each.points, plain.select(list(each.metrics)))
        for each in requests
    ]
