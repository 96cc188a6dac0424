"""Labels of training data: the aggregations of features over the events that lie ahead of a row's instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import polars as pl

from mlforge.core.aggregations import aggregation as known_aggregation
from mlforge.core.arguments import named, shown, text
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.manifest import Manifest
from mlforge.core.metrics import MetricColumn
from mlforge.core.schema import Column
from mlforge.core.signatures import named_arguments
from mlforge.core.time_model import Window
from mlforge.core.values import FIRST_INSTANT, Duration, check_name
from mlforge.engines import POINT, Engine, evaluation
from mlforge.engines.events import events_of
from mlforge.errors import DefinitionError, RetrievalError
from mlforge.features.feature import Feature
from mlforge.features.selection import Selection
from mlforge.frames.interop import Table
from mlforge.retrieval.references import Reference, parse_references
from mlforge.retrieval.spine import spine_points
from mlforge.store import Store

_ROW = "__row"  # no label's name
_WORKS = 'write labels={"spend_ahead": ahead(user_spend, "amount", "sum", "30d")}'


@dataclass(frozen=True, slots=True)
class Ahead:
    """An aggregation of a feature's events in `(t, t + horizon]`; `ahead` makes one.

    reference: the feature, its version if one is meant, and the names of its keys in spines. metric: the aggregation over a
    window as long as the horizon, without its start.
    """

    reference: Reference
    metric: MetricColumn

    @property
    def horizon(self) -> Duration:
        """How far ahead the events may lie."""
        length = self.metric.window.length
        assert isinstance(length, Duration)
        return length


@named_arguments("ahead", 'write ahead(user_spend, "amount", "sum", "30d")')
def ahead(
    feature: Feature | Selection | str,
    column: str,
    aggregation: str,
    horizon: str,
    where: str | None = None,
) -> Ahead:
    """A label: an aggregation of a feature's events in `(t, t + horizon]`, for training alone.

    feature: one with a timestamp, or its name; `user_spend.as_("buyer", user_id="buyer_id")` reads other keys. column, where:
    columns of its events. aggregation: one that `Rolling` knows. horizon: a fixed duration, `"30d"` or a timedelta.

    Null where the horizon is not over by the feature's watermark; otherwise what a window of that length gives, so that a
    count of no events is 0 and all else of none is null. Raises DefinitionError for an unknown aggregation or horizon.
    """
    try:
        [reference] = parse_references([feature])
    except RetrievalError as error:
        raise DefinitionError(f"ahead: {error}") from None
    if reference.columns:
        raise DefinitionError(
            f"ahead: {reference.name}[...] names columns of windows; name the feature, and a column of its events"
        )
    works = 'write ahead(user_spend, "amount", "sum", "30d")'
    text(column, "ahead: column", works)
    text(aggregation, "ahead: aggregation", works)
    known_aggregation(aggregation)
    if where is not None:
        text(where, "ahead: where", 'name a boolean event column, as in where="is_refund"')
    window = Window(Duration.parse(horizon, "ahead: horizon"), None, "right")
    return Ahead(reference, MetricColumn(column, aggregation, window, where))


def parse_labels(labels: object) -> Mapping[str, Ahead]:
    """The labels of a caller, by name; RetrievalError for a mapping of another kind."""
    if labels is None:
        return {}
    try:
        by_name = named(labels, "labels", _WORKS)
        for name, label in by_name.items():
            check_name(name, "labels: name")
            if not isinstance(label, Ahead):
                raise RetrievalError(f"labels: {name!r} is {shown(label)}; {_WORKS}")
    except DefinitionError as error:
        raise RetrievalError(str(error)) from None
    return by_name


@dataclass(frozen=True)
class LabelUse:
    """A label in an answer: its name, what it aggregates, and the version that is read."""

    name: str
    label: Ahead
    source: Manifest

    @classmethod
    def checked(cls, name: str, label: Ahead, source: Manifest) -> LabelUse:
        """The use of a label; RetrievalError for a feature without a timestamp, ColumnNotFound for an unknown column."""
        if source.spec.timestamp is None:
            raise RetrievalError(
                f"the label {name!r}: {source.name} has no timestamp, so that none of its events lies ahead; "
                "name a feature with one"
            )
        use = cls(name, label, source)
        use.spec.output(source.events)
        return use

    @cached_property
    def spec(self) -> FeatureSpec:
        """How the label is evaluated, at the end of its horizon."""
        spec = self.source.spec
        return FeatureSpec(spec.name, spec.keys, spec.timestamp, columns=(self.label.metric,))

    @cached_property
    def manifest(self) -> Manifest:
        """The version's events with the label for their only column."""
        return replace(self.source, spec=self.spec)

    @property
    def column(self) -> Column:
        """The label's name and dtype."""
        [value] = self.spec.values(self.source.events)
        return replace(value, name=self.name)

    @property
    def last_over(self) -> int:
        """The last instant whose horizon is over by the watermark."""
        watermark = self.source.watermark
        return FIRST_INSTANT - 1 if watermark is None else watermark - self.label.horizon.us

    def is_open(self, points: pl.DataFrame) -> pl.Series:
        """Whether the horizon of each point is not over by the watermark; false for a point without an instant."""
        return (points[POINT].to_physical() > self.last_over).fill_null(value=False)

    def points(self, table: Table, timestamp: str | None) -> pl.DataFrame:
        """The keys and the instant of each row of a spine."""
        return spine_points(table, self.manifest, timestamp, self.label.reference)

    def values(self, engine: Engine, store: Store, points: pl.DataFrame) -> pl.Series:
        """The label of each point."""
        is_over = ~self.is_open(points) & points[POINT].is_not_null()
        ends = pl.col(POINT) + pl.duration(microseconds=self.label.horizon.us)
        moved = points.filter(is_over).with_columns(ends)
        values = evaluation.values_at(engine, events_of(store, self.manifest), moved)
        label = values[self.label.metric.name].alias(self.name)
        rows = pl.DataFrame([is_over.arg_true().alias(_ROW), label])
        numbers = pl.DataFrame({_ROW: pl.int_range(points.height, dtype=pl.UInt32, eager=True)})
        return numbers.join(rows, on=_ROW, how="left", maintain_order="left")[self.name]
