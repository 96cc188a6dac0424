"""The features that a caller names, and the names that their columns have in an answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, TypeAlias

from mlforge.core.arguments import shown
from mlforge.core.values import FIRST_INSTANT, LAST_INSTANT, Version, is_name, to_us
from mlforge.errors import ColumnMissing, RetrievalError, StoreError, did_you_mean
from mlforge.features.feature import Feature
from mlforge.features.selection import Selection

FeatureRef: TypeAlias = (
    str | Feature | Selection | tuple[str, str] | tuple[Feature, str] | tuple[Selection, str]
)


@dataclass(frozen=True, slots=True)
class Reference:
    """A feature by name, the version that is meant, and how an answer has it.

    version: None means the served one. columns: the value columns, in order; empty for all. prefix: of their
    names; empty for the feature's name. renamed: pairs of a key and its name in spines and entities.
    """

    name: str
    version: Version | None = None
    columns: tuple[str, ...] = ()
    prefix: str = ""
    renamed: tuple[tuple[str, str], ...] = ()

    def key_names(self, keys: Iterable[str]) -> dict[str, str]:
        """The name that each of the feature's keys has in spines and entities."""
        if not self.renamed:
            return {key: key for key in keys}
        renamed = dict(self.renamed)
        return {key: renamed.get(key, key) for key in keys}

    def chosen(self, columns: Sequence[str]) -> Sequence[str]:
        """The columns of an answer, of all that the feature has; ColumnMissing for one that it does not have."""
        if not self.columns:
            return columns
        for name in self.columns:
            if name not in columns:
                raise ColumnMissing(
                    f"{self.name}: no column {name!r}; {did_you_mean(name, columns)}"
                )
        return self.columns


def parse_references(features: Any) -> list[Reference]:
    """The references of a caller's list, in its order; RetrievalError for a list of another kind."""
    several = isinstance(features, Iterable) and not isinstance(features, (str, bytes, Mapping))
    match features:
        case (feature, str(version)) if version[
            :1
        ].isdigit():  # no feature's name begins with a digit
            raise RetrievalError(
                f"features is one pair; write features=[{shown((feature, version))}]"
            )
    references = [_parsed(feature) for feature in features] if several else []
    if not references:
        raise RetrievalError(
            "features must be a list of names, features or (name, version) pairs, at least one, or a Service, "
            f"not {shown(features)}{_instead_of(features)}"
        )
    return references


def _instead_of(features: object) -> str:
    """The end of the sentence for one feature, or a service's name, that is given as it is."""
    if isinstance(features, str):
        return f"; write [{features!r}] for the feature of that name; a service is given itself, from the definitions"
    is_one = isinstance(features, Feature | Selection)
    return "; write it in brackets" if is_one else ""


def check_store(store: object, kind: type, works: str) -> None:
    """Raise RetrievalError unless the store is of the kind that is read."""
    if not isinstance(store, kind):
        raise RetrievalError(f"store must be of {kind.__name__}, as {works} is, not {shown(store)}")


def _parsed(feature: object) -> Reference:
    match feature:
        case str() | Feature() | Selection():
            return _used(feature)
        case (str() | Feature() | Selection() as used, None):
            return _used(used)
        case (str() | Feature() | Selection() as used, str(version)):
            reference = _used(used)
            try:
                return replace(reference, version=Version.parse(version))
            except StoreError as error:
                raise RetrievalError(f"{reference.name}: {error}") from None
    raise RetrievalError(
        f"{shown(feature)} is neither a feature nor its name, nor either of them with a version"
    )


def _used(feature: str | Feature | Selection) -> Reference:
    match feature:
        case str(name):
            return _named(name)
        case Feature():
            return Reference(feature.name)
        case Selection():
            return Reference(
                feature.feature,
                columns=feature.columns,
                prefix=feature.prefix,
                renamed=feature.renamed,
            )


def _named(name: str) -> Reference:
    """The reference of a feature's name; RetrievalError for a text that is none, such as one with a column or a version in it."""
    if is_name(name):
        return Reference(name)
    feature, mark, rest = name.partition("@" if "@" in name else ":")
    works = "give a feature, or its name"
    if is_name(feature) and rest:
        works = (
            f"for a version of it, give the pair {(feature, rest)}"
            if mark == "@"
            else f"for some columns of a feature, index it: {feature}[{rest!r}]; its name alone stands for all columns"
        )
    raise RetrievalError(f"{shown(name)} is no feature's name; {works}")


def parse_instant(at: datetime | date | str | int, name: str = "at") -> int:
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
            f"{name}={shown(at)} is no instant; write ISO 8601, as in '2026-01-31' or '2026-01-31T10:00:00Z'"
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
                f"{self._holder} {name!r}, which {feature} gives too; rename it, or give the feature another name=, "
                f'or another prefix: {feature}.as_("...")'
            )
        if name in self._columns:
            other, others_column = self._columns[name]
            raise RetrievalError(
                f"the column {others_column!r} of {other} and the column {column!r} of {feature} would both be "
                f"{name!r}; ask for the two one at a time, or give one of the features another name=, or another "
                f'prefix: {feature}.as_("...")'
            )
        self._columns[name] = (feature, column)
        return name

    def add_label(self, name: str) -> None:
        """Reserve the name for a label; RetrievalError if it is in use already."""
        owner = self._holder if name in self._callers_names else None
        if name in self._columns:
            other, others_column = self._columns[name]
            owner = f"the column {others_column!r} of {other} is"
        if owner is not None:
            raise RetrievalError(
                f"{owner} {name!r}, which is a label's name, too; rename the label"
            )
        self._columns[name] = (f"the label {name!r}", name)
