"""Completion: what a service makes of its features' columns, in a frame of training and in an online answer alike."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Any

import polars as pl

from mlforge.compilers.expression_compiler import Program
from mlforge.core.arguments import shown
from mlforge.core.expression import kinds
from mlforge.core.expression.columns import RowDerivation, TypedColumn, typed
from mlforge.core.expression.kinds import INSTANT_KIND, kind_of
from mlforge.core.expression.parser import T
from mlforge.core.schema import INTEGERS, Schema, decimal_scale, dtypes
from mlforge.core.values import from_us, to_us
from mlforge.errors import RetrievalError, did_you_mean
from mlforge.frames import polars_schema
from mlforge.services.description import default_of
from mlforge.services.service import Service

_CLASSES: dict[str, tuple[type, ...]] = {
    kinds.INT: (int,),
    kinds.FLOAT: (float, int, Decimal),
    kinds.BOOL: (bool,),
    kinds.TEXT: (str,),
    kinds.INSTANT_KIND: (datetime,),
    kinds.DATE: (date,),
}
"""The Python values of a kind; those of other kinds cannot be brought by a caller."""


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

    service: Service
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
        """The same for the values of one entity; t: UTC microseconds."""
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
    brought = _brought(value, dtype, what)
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
def completion(service: Service, outputs: tuple[Output, ...], keys: Schema) -> Completion:
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


def request_rows(
    service: Service, rows: Sequence[Mapping[str, Any]] | None, entities: int
) -> list[dict[str, Any]]:
    """The request's values for each entity, as the columns' dtypes have them; RetrievalError for those that do not fit."""
    names = [column.name for column in service.request]
    works = f"give request=[{{{', '.join(f'{name!r}: ...' for name in names)}}}, ...], a dict for each entity"
    if rows is None and not names:
        return [{} for _ in range(entities)]
    if not names:
        raise RetrievalError(f"{service.name} has no request columns; leave request= out")
    several = isinstance(rows, Sequence) and not isinstance(rows, (str, bytes))
    if rows is None or not several or not all(isinstance(row, Mapping) for row in rows):
        raise RetrievalError(f"{service.name}: request is {shown(rows)}; {works}")
    if len(rows) != entities:
        raise RetrievalError(
            f"{service.name}: request has {len(rows)} rows for {entities} entities; {works}"
        )
    for row in rows:
        if row.keys() != set(names):
            raise RetrievalError(f"{service.name}: request row {shown(dict(row))}; {works}")
    dtype_of = [(column.name, column.dtype) for column in service.request]
    return [
        {
            name: _brought(row[name], dtype, f"{service.name}: request {name!r}")
            for name, dtype in dtype_of
        }
        for row in rows
    ]


def request_columns(service: Service, spine: Mapping[str, pl.Series]) -> list[pl.Series]:
    """The request's columns from a spine's, in their dtypes; RetrievalError for those that do not fit without loss."""
    columns = []
    for column in service.request:
        values, dtype = spine[column.name], polars_schema.to_polars(column.dtype)
        try:
            columns.append(_cast(values, dtype))
        except (TypeError, pl.exceptions.PolarsError):
            raise RetrievalError(
                f"{service.name}: the spine's column {column.name!r} is {polars_schema.dtype_text(values.dtype)}, the "
                f"request's is {column.dtype}; cast it first"
            ) from None
    return columns


def _cast(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    """The values in a dtype that holds them; TypeError or an error of polars where none of the kind is meant."""
    own = values.dtype
    if own in (dtype, pl.Null):
        return values.cast(dtype)
    numbers = own.is_integer() and (dtype.is_integer() or dtype.is_float())
    floats = own == pl.Float32 and dtype == pl.Float64
    texts = isinstance(own, (pl.Categorical, pl.Enum)) and dtype == pl.String
    days = own == pl.Date and isinstance(dtype, pl.Datetime)
    if isinstance(own, pl.Datetime) and isinstance(dtype, pl.Datetime):
        zoned = values.dt.replace_time_zone("UTC") if own.time_zone is None else values
        return zoned.dt.convert_time_zone("UTC").cast(dtype)
    if own.is_float() and dtype.is_integer():  # what pandas makes of whole numbers beside nulls
        known = values.fill_nan(None)
        if bool((known == known.floor()).all()):
            return known.cast(dtype)
    if own == pl.Float64 and dtype == pl.Float32:  # rounded, as a float of Python is online
        rounded = values.cast(dtype)
        if bool((rounded.is_infinite() & values.is_finite()).any()):
            raise TypeError(own)
        return rounded
    if numbers or floats or texts:
        return values.cast(dtype)
    if days:
        return values.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    raise TypeError(own)


def _brought(value: Any, dtype: str, what: str) -> Any:
    """A caller's value as a column of the dtype has it; null and what counts as null are None."""
    if value is None:
        return None
    value = value.item() if hasattr(value, "item") else value  # numpy's
    kind = kind_of(dtype)
    is_bool, is_instant = isinstance(value, bool), isinstance(value, datetime)
    fits = isinstance(value, _CLASSES.get(kind, ())) and is_bool == (kind == kinds.BOOL)
    if not fits or is_instant != (kind == kinds.INSTANT_KIND):
        raise RetrievalError(f"{what} is {dtype}, not {shown(value)}")
    try:
        if is_instant:
            return from_us(to_us(value if value.tzinfo is None else value.astimezone(UTC)))
        if dtype in INTEGERS:
            return pl.Series([value], dtype=polars_schema.to_polars(dtype)).item()
        if kind == kinds.FLOAT and not math.isfinite(value):
            return None
        if kind == kinds.FLOAT and decimal_scale(dtype) is None:
            return _as_float(float(value), dtype)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        raise RetrievalError(f"{what} is {dtype}, which does not hold {shown(value)}") from None
    return value


def _as_float(value: float, dtype: str) -> float:
    """The value as a column of floats has it; OverflowError where it has none."""
    held = value if dtype == "Float64" else float(pl.Series([value], dtype=pl.Float32).item())
    if not math.isfinite(held):
        raise OverflowError(value)
    return held


def _defaults(service: Service, outputs: Sequence[Output]) -> dict[str, Any]:
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
