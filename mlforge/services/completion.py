"""Completion: what a service makes of its features' columns, in a frame of training and in an online answer alike."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Any

import polars as pl

from mlforge.compilers.expression_compiler import Program
from mlforge.core.arguments import shown
from mlforge.core.expression.columns import RowDerivation, TypedColumn, typed
from mlforge.core.expression.kinds import INSTANT_KIND, kind_of
from mlforge.core.expression.parser import T
from mlforge.core.schema import Schema, decimal_scale, dtypes
from mlforge.errors import RetrievalError, did_you_mean
from mlforge.frames import polars_schema
from mlforge.services.brought import brought_as
from mlforge.services.description import default_of
from mlforge.services.spec import ServiceSpec


@dataclass(frozen=True, slots=True)
class Output:
    """A feature's column in an answer: its name there, and its name and dtype in the feature.

    default: the feature's default of it, as JSON of its description; empty where it has none.
    """

    label: str
    column: str
    dtype: str
    default: str = ""

    @classmethod
    def of(cls, label: str, column: str, dtype: str, defaults: Mapping[str, Any]) -> Output:
        """The column, with its default of a feature's described ones."""
        default = json.dumps(defaults[column]) if column in defaults else ""
        return cls(label, column, dtype, default)


@dataclass(frozen=True)
class Completion:
    """A service, given the columns that its features have.

    defaults: by name in the answer, in the column's dtype. derived: the service's own columns with their kinds.
    keys: the names of the keys that these read. dtypes: of all columns that they may read.
    """

    service: ServiceSpec
    defaults: Mapping[str, Any]
    derived: tuple[TypedColumn, ...]
    keys: tuple[str, ...]
    dtypes: Mapping[str, str]

    @property
    def request(self) -> Schema:
        """The columns that the caller brings."""
        return self.service.request

    @cached_property
    def reads(self) -> frozenset[str]:
        """The names of the columns and keys that derived columns read."""
        return frozenset(name for column in self.derived for name in column.inputs)

    @cached_property
    def _row_derivation(self) -> RowDerivation:
        return RowDerivation(self.derived, self.dtypes, [column.name for column in self.derived])

    def frame(
        self,
        values: Sequence[pl.Series],
        request: Sequence[pl.Series],
        keys: Sequence[pl.Series],
        instants: pl.Series | None,
    ) -> list[pl.Series]:
        """The features' columns with defaults for nulls, and the derived columns behind them.

        values, request, keys: named as in the answer, all of one length; `keys` of those that are read. instants: each
        row's `t`, as UTC instants; None where no derived column reads it.
        """
        filled = filled_columns(values, self.defaults)
        if not self.derived:
            return filled
        sources: dict[str, tuple[str, str]] = {}
        inputs: list[pl.Series] = []
        for column in (*keys, *filled, *request):
            sources[column.name] = (f"c{len(inputs)}", kind_of(self.dtypes[column.name]))
            inputs.append(column.alias(f"c{len(inputs)}"))
        if instants is not None:
            sources[T] = (f"c{len(inputs)}", INSTANT_KIND)
            inputs.append(instants.alias(f"c{len(inputs)}"))
        program = Program(sources)
        for derived in self.derived:
            program.add(derived.name, derived.node)
        computed = program.run(pl.DataFrame(inputs).lazy()).collect(engine="in-memory")
        return [*filled, *computed.get_columns()]

    def row(
        self,
        values: Mapping[str, Any],
        request: Mapping[str, Any],
        keys: Mapping[str, Any],
        t: int,
    ) -> dict[str, Any]:
        """The completed values of one entity, by column; t: UTC microseconds."""
        filled = {
            name: self.defaults.get(name) if value is None else value
            for name, value in values.items()
        }
        if not self.derived:
            return filled
        return filled | self.derived_values({**keys, **filled, **request}, t)

    def derived_values(self, known: Mapping[str, Any], t: int) -> dict[str, Any]:
        """The derived columns of one entity; known: at least the columns and keys that they read, with defaults. t: UTC microseconds."""
        return self._row_derivation(known, t)


def filled_columns(columns: Sequence[pl.Series], defaults: Mapping[str, Any]) -> list[pl.Series]:
    """The columns with their defaults, by name, in place of nulls."""
    return [_filled(column, defaults) for column in columns]


def _filled(column: pl.Series, defaults: Mapping[str, Any]) -> pl.Series:
    if column.name not in defaults or column.null_count() == 0:
        return column
    value = pl.lit(defaults[column.name], dtype=column.dtype)
    return column.to_frame().select(pl.first().fill_null(value)).to_series()


@lru_cache(maxsize=256)
def own_defaults(outputs: tuple[Output, ...]) -> Mapping[str, Any]:
    """The defaults that features have for their columns, by label, as the columns have them.

    A column that does not hold its default, as an older version's may not, has none.
    """
    described = {o.label: json.loads(o.default) for o in outputs if o.default}
    return held_defaults(described, {output.label: output.dtype for output in outputs})


def held_defaults(described: Mapping[str, Any], dtype_of: Mapping[str, str]) -> dict[str, Any]:
    """Described defaults as their columns have them; those that a column does not hold, and of no column, are left out."""
    held = {}
    for column, value in described.items():
        if column in dtype_of:
            with suppress(RetrievalError):
                held[column] = fitting_default(default_of(value), dtype_of[column], column)
    return held


def fitting_default(value: Any, dtype: str, what: str) -> Any:
    """A default as a column of the dtype has it; RetrievalError, which names it as `what`, where the column does not hold it."""
    brought = brought_as(value, dtype, what)
    is_decimal = decimal_scale(dtype) is not None
    if brought is None:
        raise RetrievalError(f"{what} is {shown(value)}, which is null; leave it out")
    exact = Decimal(str(brought)) if is_decimal else brought
    try:
        held = pl.Series([exact], dtype=polars_schema.to_polars(dtype)).item()
    except (ArithmeticError, TypeError, ValueError, RuntimeError, pl.exceptions.PolarsError):
        held = None  # some of what no decimal holds is a RuntimeError of polars
    too_large = isinstance(held, float) and not math.isfinite(held)
    if held is None or too_large or (is_decimal and held != exact):
        raise RetrievalError(f"{what} is {dtype}, which does not hold {shown(value)}")
    return held


@lru_cache(maxsize=256)
def completion(service: ServiceSpec, outputs: tuple[Output, ...], keys: Schema) -> Completion:
    """The service for the columns that its features have, and their keys as entities name them.

    Raises RetrievalError for a default that names no column or does not fit it, and for two columns of one name;
    ExpressionError for a derived column that does not fit.
    """
    labels = [output.label for output in outputs]
    for name in service.own_names:
        if name in labels:
            raise RetrievalError(
                f"{service.name}: {name!r} is a column of a feature in the answer; give the service's own another name"
            )
    own = {output.label: output.dtype for output in outputs} | dtypes(service.request)
    readable = dtypes(keys) | own
    derived = typed(service.derived, service.name, tuple(readable.items()), True)
    read = {name for column in derived for name in column.inputs}
    read_keys = tuple(key.name for key in keys if key.name in read and key.name not in own)
    return Completion(service, _defaults(service, outputs), derived, read_keys, readable)


def _defaults(service: ServiceSpec, outputs: Sequence[Output]) -> dict[str, Any]:
    defaults = dict(own_defaults(tuple(outputs)))
    labels = {output.label for output in outputs}
    for name, value in service.defaults.items():
        meant = [o for o in outputs if o.label == name or (name not in labels and o.column == name)]
        if not meant:
            raise RetrievalError(
                f"{service.name}: defaults: no column {name!r}; {did_you_mean(name, sorted(labels))}"
            )
        for output in meant:
            what = f"{service.name}: the default of {output.label!r}"
            defaults[output.label] = fitting_default(value, output.dtype, what)
    return defaults
