"""The features that a caller names, and the names that their columns have in an answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, TypeAlias

from mlforge.core.arguments import shown
from mlforge.core.values import FIRST_INSTANT, LAST_INSTANT, Version, to_us
from mlforge.errors import RetrievalError, StoreError

FeatureRef: TypeAlias = str | tuple[str, str]


@dataclass(frozen=True, slots=True)
class Reference:
    """A feature by name, and the version that is meant; None means the served one."""

    name: str
    version: Version | None = None


def parse_references(features: Any) -> list[Reference]:
    """The references of a caller's list, in its order; RetrievalError for a list of another kind."""
    several = isinstance(features, Iterable) and not isinstance(features, (str, bytes, Mapping))
    references = [_parsed(feature) for feature in features] if several else []
    if not references:
        raise RetrievalError(
            f"features must be a list of names or (name, version) pairs, at least one, not {shown(features)}"
        )
    return references


def check_store(store: object, kind: type, works: str) -> None:
    """Raise RetrievalError unless the store is of the kind that is read."""
    if not isinstance(store, kind):
        raise RetrievalError(f"store must be of {kind.__name__}, as {works} is, not {shown(store)}")


def _parsed(feature: object) -> Reference:
    match feature:
        case str(name):
            return Reference(name)
        case (str(name), None):
            return Reference(name)
        case (str(name), str(version)):
            try:
                return Reference(name, Version.parse(version))
            except StoreError as error:
                raise RetrievalError(f"{name}: {error}") from None
    raise RetrievalError(f"{shown(feature)} is neither a feature's name nor (name, version)")


def parse_instant(at: datetime | date | str | int) -> int:
    """The instant in UTC microseconds; RetrievalError for all that is none."""
    try:
        parsed = datetime.fromisoformat(at) if isinstance(at, str) else at
    except ValueError:
        parsed = None
    if isinstance(parsed, date) and not isinstance(parsed, datetime):
        parsed = datetime(parsed.year, parsed.month, parsed.day, tzinfo=UTC)
    instant = to_us(parsed) if isinstance(parsed, datetime) else parsed
    if type(instant) is not int or not FIRST_INSTANT <= instant <= LAST_INSTANT:
        raise RetrievalError(
            f"at={shown(at)} is no instant; write ISO 8601, as in '2026-01-31' or '2026-01-31T10:00:00Z'"
        )
    return instant


class AnswerNames:
    """The names in an answer: the caller's own, then those of features' columns. Each name stands for one thing only."""

    def __init__(self, callers_names: Iterable[str], holder: str) -> None:
        """Start with the caller's own names; `holder` is their owner in messages, as in "the spine has a column"."""
        self._callers_names, self._holder = frozenset(callers_names), holder
        self._columns: dict[str, tuple[str, str]] = {}

    def add(self, name: str, feature: str, column: str) -> str:
        """Reserve the name for a feature's column, and return it; RetrievalError if it is in use already."""
        if name in self._callers_names:
            raise RetrievalError(
                f"{self._holder} {name!r}, which {feature} gives too; rename it, or give the feature another name="
            )
        other = self._columns.setdefault(name, (feature, column))
        if other != (feature, column):
            raise RetrievalError(
                f"the column {other[1]!r} of {other[0]} and the column {column!r} of {feature} would both be "
                f"{name!r}; ask for the two one at a time, or give one of the features another name="
            )
        return name
