"""Between polars frames and the schema's text."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

import polars as pl

from mlforge.core.feature_spec import SOURCE, FeatureSpec
from mlforge.core.nested import Nested, nested
from mlforge.core.schema import INSTANT, Column, Schema, list_of
from mlforge.core.syntax import expression_tree
from mlforge.core.values import TimeRange
from mlforge.core.widening import EXACT_IN_FLOAT, casts
from mlforge.errors import DataError

_DECIMAL = re.compile(r"Decimal\((\d+), (\d+)\)")
_DATETIME = re.compile(r"Datetime\((ms|us|ns)(?:, (.+))?\)")
_FEW = 3_000_000
# Above this number of entities a join takes less time than `is_in`, which keeps the rows in their order.
_LISTED = 250_000
UTC_INSTANT = pl.Datetime("us", "UTC")
Rows = TypeVar("Rows", pl.DataFrame, pl.LazyFrame)


def dtype_text(dtype: pl.DataType) -> str:
    """`Int64`, `Datetime(us, UTC)`, `Decimal(38, 2)`, nested ones as `Nested` has them; others as polars prints them."""
    if isinstance(dtype, pl.Datetime):
        zone = f", {dtype.time_zone}" if dtype.time_zone else ""
        return f"Datetime({dtype.time_unit}{zone})"
    if isinstance(dtype, pl.Decimal):
        return f"Decimal({dtype.precision}, {dtype.scale})"
    if isinstance(dtype, pl.List):
        return list_of(dtype_text(dtype.inner))  # type: ignore[arg-type]
    if isinstance(dtype, pl.Array):
        inner = dtype_text(dtype.inner)  # type: ignore[arg-type]
        return Nested("Array", (("", inner),), dtype.size).text
    if isinstance(dtype, pl.Struct):
        fields = ((field.name, dtype_text(field.dtype)) for field in dtype.fields)  # type: ignore[arg-type]
        return Nested("Struct", tuple(fields)).text
    return str(dtype)


def to_polars(text: str) -> pl.DataType:
    """The polars dtype of a schema's text."""
    if text == INSTANT:
        return UTC_INSTANT
    decimal = _DECIMAL.fullmatch(text)
    if decimal is not None:
        return pl.Decimal(int(decimal[1]), int(decimal[2]))
    if (outer := nested(text)) is not None:
        return _nested(outer, to_polars)
    dtype = getattr(pl, text, None)
    if isinstance(dtype, type) and issubclass(dtype, pl.DataType):
        return dtype()
    raise DataError(f"dtype {text!r} is not one that mlforge stores")


def parse_dtype(text: str) -> pl.DataType:
    """The polars dtype of a text from `dtype_text`, nested dtypes included; DataError for any other text."""
    zoned = _DATETIME.fullmatch(text)
    if zoned is not None:
        return pl.Datetime(zoned[1], zoned[2])  # type: ignore[arg-type]
    if (outer := nested(text)) is not None:
        return _nested(outer, parse_dtype)
    try:
        dtype = _evaluated(expression_tree(text))
    except (SyntaxError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{text!r} is no dtype of polars") from error
    dtype = dtype() if isinstance(dtype, type) else dtype
    if not isinstance(dtype, pl.DataType):
        raise DataError(f"{text!r} is no dtype of polars")
    return dtype


def _nested(outer: Nested, parse: Callable[[str], pl.DataType]) -> pl.DataType:
    within = {name: parse(text) for name, text in outer.parts}
    if outer.kind == "Struct":
        return pl.Struct(within)
    return pl.List(within[""]) if outer.kind == "List" else pl.Array(within[""], outer.width)


def _evaluated(node: ast.expr) -> Any:
    """The value of a dtype's text: names and calls of dtypes, and literals."""
    match node:
        case ast.Name(id=name) if isinstance(dtype := getattr(pl, name), type):
            if issubclass(dtype, pl.DataType):
                return dtype
            raise ValueError(name)
        case ast.Call(func=function, args=arguments, keywords=keywords):
            named = {str(keyword.arg): _evaluated(keyword.value) for keyword in keywords}
            return _evaluated(function)(*map(_evaluated, arguments), **named)
        case ast.Dict(keys=keys, values=values):
            names = [ast.literal_eval(key) for key in keys if key is not None]
            return dict(zip(names, map(_evaluated, values), strict=True))
        case _:
            return ast.literal_eval(node)


def schema_of(frame: pl.DataFrame | pl.LazyFrame) -> Schema:
    """The frame's columns in the schema's words."""
    return tuple(Column(name, dtype_text(dtype)) for name, dtype in frame.collect_schema().items())


def schema_of_values(frame: pl.DataFrame) -> Schema:
    """The schema of a frame; a column of 64-bit integers that all fit Float64 exactly is marked narrow."""
    return tuple(
        replace(column, narrow=True)
        if column.dtype in ("Int64", "UInt64") and _is_narrow(frame[column.name])
        else column
        for column in schema_of(frame)
    )


def _is_narrow(integers: pl.Series) -> bool:
    if integers.null_count() == len(integers):
        return True
    least, greatest = int(integers.min()), int(integers.max())  # type: ignore[arg-type]
    return least >= -EXACT_IN_FLOAT and greatest <= EXACT_IN_FLOAT


def polars_schema(columns: Iterable[Column]) -> dict[str, pl.DataType]:
    """The columns as polars wants a schema."""
    return {column.name: to_polars(column.dtype) for column in columns}


def empty(columns: Iterable[Column]) -> pl.DataFrame:
    """An empty frame with these columns."""
    return pl.DataFrame(schema=polars_schema(columns))


def engine_for(rows: int) -> Literal["in-memory", "auto"]:
    """The polars engine for a number of rows: streaming saves memory, but its start costs more than few rows do."""
    return "in-memory" if rows <= _FEW else "auto"


def in_memory(plan: pl.LazyFrame) -> pl.DataFrame:
    """The result of a plan over frames that are in memory, where streaming would save nothing and takes longer to start."""
    return plan.collect(engine="in-memory")


def row_by_row(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame, at least a column of it, with a value of its own in each row.

    A column that polars holds as one value for all rows, as it does of frames of one row that were put together, it divides by through
    the reciprocal, which gives other last bits.
    """
    return pl.DataFrame(frame.get_columns())


def instant(us: int | None) -> pl.Expr:
    """A literal instant, or a null one."""
    return pl.lit(us).cast(UTC_INSTANT)  # with a dtype of its own it would be a column first


def microseconds(column: str) -> pl.Expr:
    """A Datetime(us, UTC) column as Int64 microseconds."""
    return pl.col(column).to_physical()


def of_entities(
    frame: pl.LazyFrame, entities: pl.DataFrame | None, keys: Sequence[str]
) -> pl.LazyFrame:
    """The rows of some entities; all rows for None."""
    if entities is None:
        return frame
    if entities.height <= _LISTED:
        # A look at one key costs a third of a join, and can be part of reading.
        listed = pl.lit(pl.Series([entities[keys[0]]]))  # `implode` would run a plan
        frame = frame.filter(pl.col(keys[0]).is_in(listed))
        if len(keys) == 1:
            return frame
    return frame.join(entities.lazy(), on=list(keys), how="semi")


def with_entities(rows: Rows, spec: FeatureSpec) -> Rows:
    """The rows with all columns that tell a feature's entities apart: those of a feature without keys are of one entity."""
    return rows if spec.keys else rows.with_columns(pl.lit(True).alias(SOURCE))


def finite(expr: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """The expression with NaN and infinities as null; other dtypes as they are."""
    return pl.when(expr.is_finite()).then(expr) if dtype.is_float() else expr


def select_typed(
    frame: pl.LazyFrame,
    present: Mapping[str, str],
    schema: Schema,
    known: Mapping[str, pl.DataType] | None = None,
) -> pl.LazyFrame:
    """The columns of a schema, in its order and dtypes. known: polars dtypes by text, to save parsing.

    A column that is present in a lesser dtype is widened; one that is absent, null throughout or of a dtype
    that cannot be cast without loss becomes typed nulls.
    """
    columns = [_typed(column, present.get(column.name), known or {}) for column in schema]
    if not any(column.meta.root_names() for column in columns):  # literals alone would make one row
        columns = [
            pl.repeat(column, pl.len()).alias(column.meta.output_name()) for column in columns
        ]
    return frame.select(columns)


def _typed(column: Column, present: str | None, known: Mapping[str, pl.DataType]) -> pl.Expr:
    if present == column.dtype != "Null":
        return pl.col(column.name)
    dtype = known.get(column.dtype) or to_polars(column.dtype)
    if present is not None and present != "Null" and casts(present, column.dtype):
        return pl.col(column.name).cast(dtype)
    return pl.lit(None, dtype=dtype).alias(column.name)


def times_of(events: pl.DataFrame, spec: FeatureSpec) -> TimeRange | None:
    """The range of their event times; None where they have none."""
    if spec.timestamp is None or events.is_empty():
        return None
    micros = events[spec.timestamp].cast(pl.Int64)
    return TimeRange(int(micros.min()), int(micros.max()))  # type: ignore[arg-type]
