"""Details of an online answer: what stands behind each of its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

from mlforge.core.values import from_us
from mlforge.online import OnlineBooks
from mlforge.retrieval.max_age import MaxAge, since
from mlforge.services.completion import Completion

Status: TypeAlias = Literal["present", "empty", "missing", "stale"]

_NO_EVENTS = "the entity has no events in the windows"
_NO_ROW = "the entity has no row"
_EMPTY_WINDOW = "the window is empty, or holds too few values"
_NULL = "it is null"
_DEFAULT = "the default takes its place"


@dataclass(frozen=True, slots=True)
class ValueDetails:
    """Details of a value of an online answer.

    status: "present"; "empty", of an empty window or a null; "missing", where an entity has no row of a feature
        without windows; "stale", where values are older than `max_age` allows, whatever they are.
    version: the feature's served version; None for a derived column of a service, which is as old as the oldest
        column that it reads.
    as_of: the instant that the value is of; None for an untimed feature. age: the time since then, or since the
        last push of an untimed feature; None for a derived column that reads none of a feature. why: a sentence's
        end, empty for "present".
    """

    status: Status
    version: str | None
    as_of: datetime | None
    age: timedelta | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class FeatureDetails:
    """The details that a feature's values have in common, and those of each kind of value."""

    present: ValueDetails
    no_row: ValueDetails
    empty: ValueDetails
    null: ValueDetails
    aggregated: frozenset[str]
    empty_values: Mapping[str, Any]

    @classmethod
    def of(cls, books: OnlineBooks, now: int, limit: MaxAge | None) -> FeatureDetails:
        """Of a feature with these books, read at `now`; limit: how old values may be."""
        assert books.target is not None
        as_of, age = books.target.as_of, timedelta(microseconds=now - since(books))
        instant = None if as_of is None else from_us(as_of)
        present = ValueDetails("present", books.target.version, instant, age)
        aggregated = frozenset(column.name for column in books.columns if column.aggregation)
        if limit is not None and (fault := limit.fault(books)):
            stale = replace(present, status="stale", why=f"the feature {fault}")
            return cls(stale, stale, stale, stale, aggregated, books.empty)
        no_row: tuple[Status, str] = ("empty", _NO_EVENTS) if aggregated else ("missing", _NO_ROW)
        return cls(
            present,
            replace(present, status=no_row[0], why=no_row[1]),
            replace(present, status="empty", why=_EMPTY_WINDOW),
            replace(present, status="empty", why=_NULL),
            aggregated,
            books.empty,
        )

    def of_value(self, has_row: bool, column: str, value: Any) -> ValueDetails:
        """The details of an entity's value of a column; has_row: whether the entity has a row."""
        if not has_row:
            return self.no_row
        if column in self.aggregated:
            return self.empty if value == self.empty_values.get(column) else self.present
        return self.null if value is None else self.present


def complete_details(
    complete: Completion,
    known: Mapping[str, ValueDetails],
    values: Mapping[str, Any],
    completed: Mapping[str, Any],
) -> dict[str, ValueDetails]:
    """The details of a service's answer: of features' columns, of which defaults are told, and of derived ones.

    known: the details of features' columns, by name. values: their values without defaults. completed: the values of
    the answer.
    """
    details = default_details(complete.defaults, known, values)
    for column in complete.derived:
        read = [details[name] for name in column.inputs if name in details]
        details[column.name] = _derived(read, completed[column.name])
    return details


def default_details(
    defaults: Mapping[str, Any], known: Mapping[str, ValueDetails], values: Mapping[str, Any]
) -> dict[str, ValueDetails]:
    """The details of features' columns, which say where a default takes the place of null.

    defaults, known: by name in the answer. values: without defaults.
    """
    return {
        name: _defaulted(of_value) if values[name] is None and name in defaults else of_value
        for name, of_value in known.items()
    }


def _defaulted(details: ValueDetails) -> ValueDetails:
    return replace(details, why=f"{details.why}; {_DEFAULT}")


def _derived(read: Sequence[ValueDetails], value: Any) -> ValueDetails:
    """The details of a derived column: it is as old as the oldest column that it reads, and stale if one of these is."""
    aged = [(details.age, details.as_of) for details in read if details.age is not None]
    age, as_of = max(aged, key=lambda one: one[0], default=(None, None))
    for details in read:
        if details.status == "stale":
            return ValueDetails("stale", None, as_of, age, details.why)
    if value is None:
        return ValueDetails("empty", None, as_of, age, _NULL)
    return ValueDetails("present", None, as_of, age)
