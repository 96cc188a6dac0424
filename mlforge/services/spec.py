"""A service as it was said: the columns that a model takes, from features, from the request, and derived of both."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

import polars as pl

from mlforge.core.arguments import listed, named, number, shown, text
from mlforge.core.expression.columns import Derived, check_kinds, check_names, columns_of_t
from mlforge.core.expression.kinds import INSTANT_KIND, kind_of
from mlforge.core.expression.parser import T
from mlforge.core.feature_spec import parse_derived
from mlforge.core.lock import Lock
from mlforge.core.repeated import first_repeated
from mlforge.core.schema import FLOATS, INSTANT, INTEGERS, Column, Schema
from mlforge.core.signatures import named_arguments
from mlforge.core.text import plural
from mlforge.core.values import Duration, check_name
from mlforge.errors import DefinitionError, did_you_mean
from mlforge.features.defaults import default_value
from mlforge.features.feature import Feature
from mlforge.features.selection import Selection
from mlforge.frames import polars_schema

REQUEST_DTYPES = (*INTEGERS, *FLOATS, "Boolean", "String", "Date", INSTANT)
SERVED = "served"
"""The folder below the definitions' root with a folder for each service whose answers are logged."""
SERVED_AT = "served_at"
"""The column of a log of answers that holds their instants."""
_FEATURES = 'write features=[user_spend["amount__sum__7d"], merchant_daily]'


@dataclass(frozen=True, init=False, eq=False, repr=False)
class ServiceSpec:
    """All that a service says; `Service` tells its parts.

    version: the kept version that it is, in a service that was read from a store; else empty. kept: the lock of that version,
    which each answer is held against.

    Raises DefinitionError for arguments of the wrong kind, and ExpressionError for a text that does not parse.
    """

    name: str
    features: tuple[Any, ...]
    request: Schema
    derived: tuple[Derived, ...]
    defaults: Mapping[str, Any]
    max_age: Duration | None
    owner: str
    description: str
    log: float | None
    version: str
    kept: Lock | None

    @named_arguments(
        "Service", 'write Service("checkout", features=[user_spend["amount__sum__7d"]])'
    )
    def __init__(
        self,
        name: str,
        features: Sequence[Any],
        request: Mapping[str, Any] | None = None,
        derive: Mapping[str, str] | None = None,
        defaults: Mapping[str, Any] | None = None,
        max_age: str | timedelta | None = None,
        owner: str = "",
        description: str = "",
        log: float | None = None,
    ) -> None:
        check_name(name, "service")
        what = f"{name}: max_age"
        fields = {
            "name": name,
            "features": _features(features, name),
            "request": _request(request, name),
            "derived": parse_derived(derive, name),
            "defaults": _defaults(defaults, name),
            "max_age": None if max_age is None else Duration.parse(max_age, what),
            "owner": _optional(owner, f"{name}: owner"),
            "description": _optional(description, f"{name}: description"),
            "log": None if log is None else _share(log, f"{name}: log"),
            "version": "",
            "kept": None,
        }
        for attribute, value in fields.items():
            object.__setattr__(self, attribute, value)
        self.check({})

    def __repr__(self) -> str:
        """Its name, version and features, and how many columns of its own."""
        name = f"{self.name}@{self.version}" if self.version else self.name
        own = plural(len(self.own_names), "column") + " of its own"
        of = ", ".join(self.feature_names)
        return f"{type(self).__name__}({name!r}: of {of}{f', {own}' if self.own_names else ''})"

    @property
    def reads_t(self) -> bool:
        """Whether a derived column depends on the instant."""
        return bool(columns_of_t(self.derived, self.name))

    @property
    def own_names(self) -> list[str]:
        """The names of its request columns and of its derived ones, in order."""
        return [column.name for column in self.request] + [column.name for column in self.derived]

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of its features, each once."""
        uses = (entry[0] if isinstance(entry, tuple) else entry for entry in self.features)
        names = (
            use if isinstance(use, str) else use.feature if isinstance(use, Selection) else use.name
            for use in uses
        )
        return tuple(dict.fromkeys(names))

    def held_to(self, lock: Lock, version: str) -> Self:
        """The same service as a kept version, whose answers are held against its lock."""
        other = copy.copy(self)
        object.__setattr__(other, "version", version)
        object.__setattr__(other, "kept", lock)
        return other

    @property
    def title(self) -> str:
        """Its name, with the version where it is a kept one."""
        return f"{self.name}@{self.version}" if self.version else self.name

    def check(self, features: Mapping[str, Feature]) -> None:
        """Refuse names that clash, and expressions that name no column, as far as columns do not follow from data.

        features: by name, for those that the service names by their names alone. Raises DefinitionError.
        """
        columns = self._columns(features)
        outputs = [label for label, _ in columns or ()]
        own = self.own_names
        if T in own:
            raise DefinitionError(
                f"{self.name}: {T!r} is the instant of evaluation; give the column another name"
            )
        if self.log is not None and SERVED_AT in (*own, *self._keys(features)):
            raise DefinitionError(
                f"{self.name}: with log= a column {SERVED_AT!r} holds the instants of answers; give the other another name"
            )
        clash = next((name for name in own if name in self._keys(features)), None)
        if clash is not None:
            raise DefinitionError(
                f"{self.name}: the column {clash!r} of the service has the name of a key; give it another name"
            )
        twice = first_repeated([*outputs, *own])
        if twice is not None:
            raise DefinitionError(
                f"{self.name}: two columns would be {twice!r} in an answer; give one another name, or its feature "
                'another prefix: user_spend.as_("...")'
            )
        columns_of_t(self.derived, self.name)
        if columns is not None:
            known = [*outputs, *(column.name for column in self.request), *self._keys(features)]
            check_names(self.derived, self.name, known, T)
            self._check_defaults(columns)
        check_kinds(self.derived, self.name, self._known_kinds(features))

    def _check_defaults(self, columns: Sequence[tuple[str, str]]) -> None:
        named = {name for column in columns for name in column}
        unknown = next((name for name in self.defaults if name not in named), None)
        if unknown is not None:
            labels = sorted(label for label, _ in columns)
            raise DefinitionError(
                f"{self.name}: defaults: no column {unknown!r}; {did_you_mean(unknown, labels)}"
            )

    def _columns(self, features: Mapping[str, Feature]) -> list[tuple[str, str]] | None:
        """The feature columns by their names in an answer, in order, each with its feature's name for it.

        None where some follow from data or from a version.
        """
        pairs: list[tuple[str, str]] = []
        for selection in self._selections(features):
            if selection is None or not (selection.columns or selection.spec.columns):
                return None
            columns = selection.columns or selection.spec.output_names
            prefix = selection.prefix or selection.feature
            pairs += [(f"{prefix}__{column}", column) for column in columns]
        return pairs

    def _known_kinds(self, features: Mapping[str, Feature]) -> dict[str, str]:
        """The kinds of what its derived columns may read, as far as they do not follow from data."""
        kinds = {column.name: kind_of(column.dtype) for column in self.request}
        for selection in filter(None, self._selections(features)):
            for column, kind in selection.spec.known_kinds.items():
                kinds[f"{selection.prefix or selection.feature}__{column}"] = kind
        return {**kinds, T: INSTANT_KIND}

    def _keys(self, features: Mapping[str, Feature]) -> list[str]:
        """The features' keys by their names in entities."""
        selections = [selection for selection in self._selections(features) if selection]
        return [
            dict(selection.renamed).get(key, key)
            for selection in selections
            for key in selection.spec.keys
        ]

    def _selections(self, features: Mapping[str, Feature]) -> list[Selection | None]:
        """Its entries as selections; None for one with a version, and for a name that is not among the features."""
        uses = [features.get(entry) if isinstance(entry, str) else entry for entry in self.features]
        return [
            Selection(use.spec)
            if isinstance(use, Feature)
            else use
            if isinstance(use, Selection)
            else None
            for use in uses
        ]


def _features(features: object, owner: str) -> tuple[Any, ...]:
    entries = listed(features, f"{owner}: features", _FEATURES)
    if not entries:
        raise DefinitionError(f"{owner}: features is an empty list; {_FEATURES}")
    for entry in entries:
        pair = isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[1], str)
        if not isinstance(entry[0] if pair else entry, (str, Feature, Selection)):
            raise DefinitionError(f"{owner}: {shown(entry)} is not a feature; {_FEATURES}")
    return entries


def _request(request: object, owner: str) -> Schema:
    what, works = f"{owner}: request", 'write request={"amount": pl.Float64}'
    columns = []
    for name, dtype in ({} if request is None else named(request, what, works)).items():
        columns.append(Column(name, _request_dtype(dtype, f"{what}: {name!r}", works)))
    return tuple(columns)


def _request_dtype(dtype: object, what: str, works: str) -> str:
    try:
        instance: Any = dtype() if isinstance(dtype, type) else dtype
    except TypeError:  # pl.List lacks its values' dtype
        instance = None
    if isinstance(instance, pl.Datetime) and instance.time_zone in (None, "UTC"):
        return INSTANT
    told = polars_schema.dtype_text(instance) if isinstance(instance, pl.DataType) else ""
    if told not in REQUEST_DTYPES:
        raise DefinitionError(
            f"{what} is {told or shown(dtype)}; a request column is one of {', '.join(REQUEST_DTYPES)}; {works}"
        )
    return told


def _defaults(defaults: object, owner: str) -> dict[str, Any]:
    what, works = f"{owner}: defaults", 'write defaults={"amount__sum__7d": 0}'
    by_column = {} if defaults is None else named(defaults, what, works)
    return {name: default_value(value, f"{what}: {name!r}") for name, value in by_column.items()}


def _share(value: object, what: str) -> float:
    works = "write log=0.01 for one entity in a hundred"
    share = float(number(value, what, works))
    if not 0 < share <= 1:
        raise DefinitionError(f"{what} is {shown(value)}, no share above 0 and up to 1; {works}")
    return share


def _optional(value: object, what: str) -> str:
    return "" if value == "" else text(value, what, "or leave it out")
