"""The part that a feature and a manifest share: enough to evaluate `value(entity, t)`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from keyword import iskeyword

from mlforge.core.absent_columns import absent
from mlforge.core.aggregations import aggregation, output_dtype, result_dtypes
from mlforge.core.arguments import instances, named, text
from mlforge.core.expression.columns import (
    Derived,
    TypedColumn,
    check_kinds,
    check_names,
    columns_of_t,
    read,
    typed,
)
from mlforge.core.expression.kinds import FLOAT, INSTANT_KIND, INT, NUMBERS, kind_of
from mlforge.core.expression.parser import T
from mlforge.core.metrics import Metric, MetricColumn, expand
from mlforge.core.schema import (
    INSTANT,
    KEY_DTYPES,
    Column,
    Schema,
    check_condition,
    dtypes,
)
from mlforge.core.time_model import ONLINE_CLOCKS, OnlineClock, Window, last_event
from mlforge.core.values import FIRST_INSTANT, LAST_INSTANT, Duration, TimeRange, check_name
from mlforge.errors import ColumnNotFound, DataError, DefinitionError

SOURCE = "__source"
"""The column that names the only entity of a feature without keys: the whole source. Scans add it; nothing stores it."""

# So many boundaries show what windows of an aligned feature hold: calendar periods repeat within a leap year.
_BOUNDARIES = 400


@dataclass(frozen=True)
class FeatureSpec:
    """A feature's meaning: its keys, its time and its output columns.

    `columns` is empty for a feature without metrics, whose rows are served as they are. Without keys the
    whole source is one entity.
    """

    name: str
    keys: tuple[str, ...]
    timestamp: str | None = None
    interval: Duration | None = None
    columns: tuple[MetricColumn, ...] = ()
    online_clock: OnlineClock = "data"
    derived: tuple[Derived, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(set(self.keys)) != len(self.keys):
            raise DefinitionError(
                f"{self.name}: keys must name different columns, not {list(self.keys)}"
            )
        if self.timestamp in self.keys:
            raise DefinitionError(
                f"{self.name}: {self.timestamp!r} cannot be both a key and the timestamp"
            )
        for column in self.columns:
            if column.name in self.identity:
                raise DefinitionError(
                    f"{self.name}: a metric gives the column {column.name!r}, which is a key or the "
                    "timestamp; rename that column in the feature's function"
                )
        if self.columns and self.timestamp is None:
            raise DefinitionError(
                f"{self.name}: metrics need timestamp=, the column with each event's time"
            )
        if self.interval is not None and not self.columns:
            raise DefinitionError(
                f"{self.name}: interval={str(self.interval)!r} needs metrics; drop it, or add Rolling(...)"
            )
        if self.interval is not None and self.interval.us > LAST_INSTANT:
            raise DefinitionError(
                f"{self.name}: interval={str(self.interval)!r} is too long: none that begins after 1970 "
                "ends before the year 10000; give a shorter one, or leave it out"
            )
        if self.online_clock not in ONLINE_CLOCKS:
            raise DefinitionError(
                f"{self.name}: online_clock={self.online_clock!r} is unknown; use 'data' or 'wall'"
            )
        if self.online_clock == "wall" and self.timestamp is None:
            raise DefinitionError(f"{self.name}: online_clock='wall' needs timestamp=")
        if self.derived:
            self._check_derived()

    def _check_derived(self) -> None:
        """Refuse derived columns whose names clash, and texts that no events could make right."""
        names = (*self.identity, *self.output_names)
        for column in self.derived:
            if names.count(column.name) > 1 or column.name == T:
                raise self._clash(column.name)
        columns_of_t(self.derived, self.name)
        if self.columns:
            known = (*self.keys, *(column.name for column in self.columns))
            check_names(self.derived, self.name, known, self.timestamp)
        check_kinds(self.derived, self.name, self.known_kinds)

    @property
    def known_kinds(self) -> dict[str, str]:
        """The kinds of what derived columns may read, as far as they are the same whatever the events are."""
        kinds = {} if self.timestamp is None else {T: INSTANT_KIND}
        for column in self.columns:
            of_results = set(map(kind_of, result_dtypes(column.aggregation)))
            if of_results <= set(NUMBERS):
                kinds[column.name] = INT if of_results == {INT} else FLOAT
            elif len(of_results) == 1:
                [kinds[column.name]] = of_results
        return kinds

    def _clash(self, name: str) -> DefinitionError:
        owner = "the instant of evaluation" if name == T else "another column"
        return DefinitionError(
            f"{self.name}: derive {name!r} has the name of {owner}; give it another one"
        )

    @cached_property
    def evaluated(self) -> tuple[object, ...]:
        """All that values follow from beside events: equal for features that differ in their names alone."""
        return self.keys, self.timestamp, self.interval, self.columns, self.derived

    @cached_property
    def plain(self) -> FeatureSpec:
        """The spec without derived columns: what engines evaluate."""
        return replace(self, derived=()) if self.derived else self

    @property
    def always_empty(self) -> tuple[str, ...]:
        """The columns whose windows hold no instant at any boundary, as the day so far at midnights."""
        if self.interval is None:
            return ()
        boundaries = range(0, _BOUNDARIES * self.interval.us, self.interval.us)
        return tuple(
            metric.name
            for metric in self.columns
            if all(metric.window.first(at) > metric.window.last(at) for at in boundaries)
        )

    def restricted(self, names: Collection[str]) -> FeatureSpec:
        """The spec with only the metrics and derived columns that some value columns are or depend on.

        A feature with metrics keeps at least one of them: without any it would be a feature of another kind.
        """
        needed, derived = set(names), []
        for column in reversed(self.derived):
            if column.name in needed:
                derived.append(column)
                needed.update(read(column, self.name).names)
        columns = tuple(column for column in self.columns if column.name in needed)
        return replace(self, columns=columns or self.columns[:1], derived=tuple(reversed(derived)))

    @cached_property
    def of_t(self) -> tuple[str, ...]:
        """The derived columns that depend on the instant of evaluation: time alone changes them."""
        return columns_of_t(self.derived, self.name)

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """The distinct windows, in the order of the columns."""
        return tuple(dict.fromkeys(column.window for column in self.columns))

    @cached_property
    def has_endless(self) -> bool:
        """Whether some window is over all time."""
        return any(window.is_endless for window in self.windows)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The columns of metrics and the derived ones, as far as they do not follow from data."""
        metrics = (column.name for column in self.columns)
        return (*metrics, *(column.name for column in self.derived))

    @cached_property
    def identity(self) -> tuple[str, ...]:
        """The columns that identify a stored row: the keys, and the timestamp of a timed feature."""
        return self.keys if self.timestamp is None else (*self.keys, self.timestamp)

    @cached_property
    def entity(self) -> tuple[str, ...]:
        """The columns of scans and points that tell entities apart: the keys, or `SOURCE` of a feature without keys."""
        return self.keys or (SOURCE,)

    @cached_property
    def times(self) -> tuple[str, ...]:
        """The timestamp of a timed feature; empty for an untimed one."""
        return () if self.timestamp is None else (self.timestamp,)

    @cached_property
    def event_instants(self) -> frozenset[str]:
        """The output columns that hold an event's instant, such as `amount__last_time__7d`: they move on as time does."""
        return frozenset(c.name for c in self.columns if aggregation(c.aggregation).kind.instant)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """How stored rows are sorted: by timestamp, then keys."""
        return self.keys if self.timestamp is None else (self.timestamp, *self.keys)

    @cached_property
    def event_times(self) -> TimeRange:
        """The range of event times whose stored rows lie within the years 1 to 9999."""
        return TimeRange(FIRST_INSTANT, last_event(self.interval))

    def holds(self, times: TimeRange | None) -> bool:
        """Whether the feature can hold events within a range of time."""
        return times is None or times.union(self.event_times) == self.event_times

    def needed(self) -> tuple[str, ...]:
        """The event columns that evaluation reads."""
        aggregated = (column.column for column in self.columns)
        return tuple(dict.fromkeys((*self.identity, *aggregated, *self.conditions)))

    @cached_property
    def conditions(self) -> tuple[str, ...]:
        """The boolean event columns that say which events count."""
        return tuple(dict.fromkeys(column.where for column in self.columns if column.where))

    def lacks(self, name: str, present: Sequence[str], owner: str) -> ColumnNotFound:
        """The error that a needed column is not among those present. owner: what needs it, for the error."""
        return absent(name, owner, present, condition=name in self.conditions)

    def value_dtypes(self, events: Schema) -> dict[str, str]:
        """The dtypes of all that metrics aggregate, and of all event columns, by name."""
        dtype_of = dtypes(events)
        return dtype_of | {column.value: dtype_of[column.column] for column in self.columns}

    def output(self, events: Schema) -> Schema:
        """The columns of stored rows for events of a schema; refuses what cannot be computed."""
        dtype_of = dtypes(events)
        for name in self.needed():
            if name not in dtype_of:
                raise self.lacks(name, list(dtype_of), self.name)
        for key in self.keys:
            if dtype_of[key] not in KEY_DTYPES:
                raise DataError(
                    f"{self.name}: key {key!r} is {dtype_of[key]}; keys are integers, strings, booleans or dates"
                )
        for name in self.conditions:
            check_condition(name, dtype_of[name], self.name)
        if not self.columns:
            rows = [Column(name, _settled(dtype, "String")) for name, dtype in dtype_of.items()]
            return (*rows, *self._derived_values(events))
        head = [Column(key, dtype_of[key]) for key in self.keys]
        assert self.timestamp is not None
        return (*head, Column(self.timestamp, INSTANT), *self.values(events))

    def entities(self, events: Schema) -> Schema:
        """The columns that tell entities apart, for events of a schema."""
        if not self.keys:
            return (Column(SOURCE, "Boolean"),)
        return tuple(column for column in events if column.name in self.keys)

    def values(self, events: Schema) -> Schema:
        """The columns of a value, in training and online answers alike."""
        dtype_of = dtypes(events)
        if not self.columns:
            return tuple(
                column for column in self.output(events) if column.name not in self.identity
            )
        metrics = [
            Column(
                metric.name,
                output_dtype(
                    metric.aggregation,
                    _settled(dtype_of[metric.column], "Float64"),
                    f"{self.name}: column {metric.column!r}",
                ),
                metric.aggregation,
                metric.window.name,
            )
            for metric in self.columns
        ]
        return (*metrics, *self._derived_values(events))

    def readable(self, events: Schema) -> dict[str, str]:
        """The names that derived columns may read, and their dtypes: keys and values.

        A column that is named as the instant of evaluation cannot be read.
        """
        dtype_of = dtypes(events)
        if self.columns:
            keys = {key: dtype_of[key] for key in self.keys if key in dtype_of}
            dtype_of = keys | dtypes(self.plain.values(events))
        return {name: dtype_of[name] for name in dtype_of if name not in (self.timestamp, T)}

    def derivation(self, events: Schema) -> tuple[TypedColumn, ...]:
        """The derived columns for events of a schema; ExpressionError for names and types that do not fit."""
        if not self.derived:
            return ()
        readable = self.readable(events)
        for column in self.derived:
            if column.name in readable:
                raise self._clash(column.name)
        return typed(self.derived, self.name, tuple(readable.items()), self.timestamp is not None)

    def inputs(self, events: Schema) -> Schema:
        """The keys and values that derived columns read, for events of a schema."""
        used = {name for column in self.derivation(events) for name in column.inputs}
        readable = self.readable(events)
        return tuple(Column(name, dtype) for name, dtype in readable.items() if name in used)

    def _derived_values(self, events: Schema) -> Schema:
        return tuple(Column(column.name, column.dtype) for column in self.derivation(events))

    @classmethod
    def of(
        cls,
        name: str,
        *,
        keys: Iterable[str],
        timestamp: str | None,
        interval: object,
        metrics: object,
        online_clock: OnlineClock,
        derive: object = None,
    ) -> FeatureSpec:
        """Build a spec from the decorator's arguments."""
        check_name(name)
        parsed = None if interval is None else Duration.parse(interval, f"{name}: interval")
        works = 'write metrics=[Rolling("7d", {"amount": "sum"})]'
        windowed = instances(metrics, Metric, f"{name}: metrics", works)
        return cls(
            name,
            tuple(keys),
            timestamp,
            parsed,
            expand(windowed, parsed, name),
            online_clock,
            parse_derived(derive, name),
        )


def parse_derived(derive: object, owner: str) -> tuple[Derived, ...]:
    """The derived columns of a dict from name to expression, in its order; DefinitionError for any other argument."""
    what, works = f"{owner}: derive", 'write derive={"ratio": "a / b"}'
    by_name = {} if derive is None else named(derive, what, works)
    for name in by_name:
        if not name.isidentifier() or iskeyword(name):
            raise DefinitionError(
                f"{what} {name!r} is not a name that a later expression could use; "
                "use letters, digits and '_', no digit first"
            )
    return tuple(
        Derived(name, text(expression, f"{what} {name!r}", works))
        for name, expression in by_name.items()
    )


def _settled(dtype: str, otherwise: str) -> str:
    """A column that is null in every file has no dtype of its own."""
    return otherwise if dtype == "Null" else dtype
