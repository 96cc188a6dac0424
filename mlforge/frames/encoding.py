"""How entities become key hashes and rows become JSON: column-wise for pushes, singly for requests.

An entity's hash is sha256 over netstrings of its keys, sorted by name, and their canonical text:
`{"user_id": 1}` and `{"user_id": "1"}` are one entity, `("x|", "y")` and `("x", "|y")` are two. JSON
keeps every finite float and integer exactly; non-finite floats are null, instants ISO 8601 in UTC,
Decimals strings.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from typing import Any, TypeAlias

import polars as pl

from mlforge.core.values import to_iso, to_us
from mlforge.errors import DataError, RetrievalError
from mlforge.frames.keys import canonical_text, plain
from mlforge.frames.shared_results import once

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_INSTANT = "%Y-%m-%dT%H:%M:%S%.6fZ"
_TIME = "%H:%M:%S%.6f"
_BLOCK = 65_536


def key_hashes(frame: pl.DataFrame, keys: Sequence[str]) -> pl.Series:
    """The hash of every row's entity, in row order; a null or unfit key raises DataError."""
    if not keys:  # the one entity of a feature without keys
        return pl.Series("key_hash", [key_hash({})] * frame.height, dtype=pl.String)
    of = pl.DataFrame({key: frame[key] for key in keys})
    return once("key hashes", tuple, lambda: _key_hashes(of, keys), of)


def _key_hashes(frame: pl.DataFrame, keys: Sequence[str]) -> pl.Series:
    hashes: list[str] = []
    for block in frame.iter_slices(_BLOCK):
        texts = _netstrings(block, keys).cast(pl.Binary).to_list()
        hashes += [sha256(text).hexdigest() for text in texts]
    return pl.Series("key_hash", hashes, dtype=pl.String)


def key_hash(entity: Mapping[str, object]) -> str:
    """The hash of one entity, in hex, equal to its hash in `key_hashes`; RetrievalError for an unfit key."""
    return sha256(b"".join([_netstring(name, entity[name]) for name in sorted(entity)])).hexdigest()


def hashes_of(entities: Iterable[Mapping[str, object]], keys: Iterable[str]) -> list[str]:
    """The hash of each entity by these of its keys, as `key_hash` gives it for these keys alone."""
    names = sorted(keys)
    if len(names) == 1:  # as of most features
        [name] = names
        return [sha256(_netstring(name, entity[name])).hexdigest() for entity in entities]
    return [
        sha256(b"".join([_netstring(name, entity[name]) for name in names])).hexdigest()
        for entity in entities
    ]


def json_rows(frame: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
    """A JSON object of the columns per row, in row order; DataError for a dtype without JSON."""
    if not columns:
        return pl.Series("json", ["{}"]).new_from_index(0, frame.height)
    fields = [_jsonable(pl.col(name), frame.schema[name], name).alias(name) for name in columns]
    try:
        return frame.select(pl.struct(fields).struct.json_encode().alias("json")).to_series()
    except pl.exceptions.PanicException as panic:
        raise DataError(f"{', '.join(columns)}: a value has no JSON ({panic})") from None


def json_texts(frame: pl.DataFrame, column: str) -> pl.Series:
    """The JSON of each value of one column, in row order; DataError for a dtype without JSON."""
    field = _jsonable(pl.col(column), frame.schema[column], column).alias("v")
    try:
        rows = frame.select(pl.struct(field).struct.json_encode().alias(column)).to_series()
    except pl.exceptions.PanicException as panic:
        raise DataError(f"{column}: a value has no JSON ({panic})") from None
    return rows.str.strip_prefix('{"v":').str.strip_suffix("}")


def json_row(values: Mapping[str, object]) -> str:
    """The JSON object of one row; parsed, it equals that of `json_rows`."""
    row = {name: json_value(value) for name, value in values.items()}
    return json.dumps(row, separators=(",", ":"), allow_nan=False)


def json_value(value: object) -> Json:
    """The value as JSON has it once parsed; DataError for a type without JSON."""
    value = plain(value)
    for kind, convert in _JSON_VALUES:
        if isinstance(value, kind):
            return convert(value)
    raise DataError(
        f"{value!r} is a {type(value).__name__}, which has no JSON; cast it, e.g. to str"
    )


def _netstrings(block: pl.DataFrame, keys: Sequence[str]) -> pl.Series:
    parts: list[pl.Expr] = []
    for name in sorted(keys):
        dtype = block.schema[name]
        if not (dtype.is_integer() or dtype in (pl.String, pl.Boolean, pl.Date)):
            raise DataError(
                f"key {name!r} is {dtype}; keys are integers, strings, booleans or dates: cast it"
            )
        if block[name].null_count():
            raise DataError(f"key {name!r} has nulls; leave those rows out")
        text = pl.col(name).cast(pl.String)
        size = text.str.len_bytes().cast(pl.String)
        parts += [pl.lit(f"{len(name.encode())}:{name},"), size, pl.lit(":"), text, pl.lit(",")]
    try:
        return block.select(pl.concat_str(parts)).to_series()
    except pl.exceptions.PanicException as panic:
        raise DataError(f"{', '.join(keys)}: a key has no text ({panic})") from None


def _netstring(name: str, value: object) -> bytes:
    # Almost all keys are one of two kinds, whose text needs no look at what else they could be.
    text = str(value) if type(value) is int or type(value) is str else canonical_text(name, value)
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise RetrievalError(
            f"key {name!r}: {text!r} is not valid Unicode; no row can hold it"
        ) from None
    return b"%b%d:%b," % (_named(name), len(encoded), encoded)


@lru_cache(maxsize=1_024)
def _named(name: str) -> bytes:
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        raise RetrievalError(f"the key name {name!r} is not valid Unicode") from None
    return b"%d:%b," % (len(encoded), encoded)


def _jsonable(value: pl.Expr, dtype: pl.DataType, where: str) -> pl.Expr:
    """The expression in a form whose JSON is what `json_value` promises."""
    if dtype.is_float():
        return value.cast(pl.Float64)  # the shortest text of a Float32 is another Float64
    if isinstance(dtype, pl.Datetime):
        utc = value.dt.convert_time_zone("UTC") if dtype.time_zone else value
        return utc.dt.to_string(_INSTANT)
    if isinstance(dtype, pl.List):
        return value.list.eval(_jsonable(pl.element(), dtype.inner, where))  # type: ignore[arg-type]
    if isinstance(dtype, pl.Array):
        return _jsonable(value.arr.to_list(), pl.List(dtype.inner), where)
    if isinstance(dtype, pl.Struct):
        fields = [
            _jsonable(value.struct.field(field.name), field.dtype, where).alias(field.name)  # type: ignore[arg-type]
            for field in dtype.fields
        ]
        return pl.when(value.is_not_null()).then(pl.struct(fields)) if fields else value
    if dtype in (pl.Binary, pl.Object, pl.Unknown):
        raise DataError(f"column {where!r} is {dtype}, which has no JSON; cast it to a string")
    return value.dt.to_string(_TEXTS[type(dtype)]) if type(dtype) in _TEXTS else value


_TEXTS: dict[type[pl.DataType], str] = {pl.Time: _TIME, pl.Duration: "iso"}


def _duration(value: timedelta) -> Json:
    text: str = pl.Series([value], dtype=pl.Duration("us")).dt.to_string("iso").item()
    return text


def _list(values: Iterable[object]) -> Json:
    return [json_value(value) for value in values]


# The first that fits: a bool is an int, a datetime is a date.
_JSON_VALUES: tuple[tuple[Any, Callable[[Any], Json]], ...] = (
    (type(None) | bool | int | str, lambda value: value),
    (float, lambda value: value if math.isfinite(value) else None),
    (datetime, lambda value: to_iso(to_us(value))),
    (date, date.isoformat),
    (time, lambda value: value.isoformat(timespec="microseconds")),
    (timedelta, _duration),
    (Decimal, lambda value: format(value, "f") if value.is_finite() else None),
    (Mapping, lambda value: {str(name): json_value(part) for name, part in value.items()}),
    (list | tuple | pl.Series, _list),
)
