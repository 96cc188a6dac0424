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

from mlforge.core.schema import INTEGERS, Schema
from mlforge.core.values import to_iso, to_us
from mlforge.errors import DataError, RetrievalError
from mlforge.frames.shared_results import once

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Key: TypeAlias = int | str | bool | date

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


def entity_key(entity: Mapping[str, object], keys: Schema) -> dict[str, Key]:
    """The entity with its values as the keys' dtypes have them, in the keys' order.

    What pandas and JSON do to ids is undone (1.0, "1" and numpy's 1 are 1 for an integer key);
    missing or extra names, nulls and values that no row could hold raise RetrievalError.
    """
    [key] = entity_keys([entity], keys)
    return key


def entity_keys(entities: Iterable[Mapping[str, object]], keys: Schema) -> list[dict[str, Key]]:
    """Each entity as `entity_key` gives it."""
    typed = [(key.name, key.dtype, _USUAL.get(key.dtype)) for key in keys]
    names = {key.name for key in keys}
    values = []
    for entity in entities:
        if entity.keys() != names:
            raise _wrong_names(entity, [key.name for key in keys])
        own: dict[str, Any] = {}
        for name, dtype, usual in typed:  # almost all values are as they should be
            value = entity[name]
            own[name] = value if type(value) is usual else _coerced(name, value, dtype)
        values.append(own)
    return values


def _wrong_names(entity: Mapping[str, object], names: Sequence[str]) -> RetrievalError:
    missing = [repr(name) for name in names if name not in entity]
    extra = [repr(name) for name in entity if name not in names]
    wrong = [f"no {', '.join(missing)}"] if missing else []
    wrong += [f"{', '.join(extra)} not a key"] if extra else []
    return RetrievalError(f"entity {dict(entity)!r}: {' and '.join(wrong)}; {_keys_there(names)}")


def _keys_there(keys: Sequence[str]) -> str:
    return f"the keys are {', '.join(keys)}" if keys else "there are no keys: write {}"


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
    value = _plain(value)
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
    text = str(value) if type(value) is int or type(value) is str else _text(name, value)
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


def _text(name: str, value: object) -> str:
    """The canonical text of a key's value, which its column would have."""
    value = _key_value(name, value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, date) else str(value)


def _key_value(name: str, value: object) -> Key:
    """A key's value as an integer, string, boolean or date; RetrievalError for any other kind."""
    plain = _plain(value)
    if isinstance(plain, bool | int | str):
        return plain
    if isinstance(plain, datetime):
        if plain.time() == time() and plain.tzinfo is None:
            return plain.date()
    elif isinstance(plain, date):
        return plain
    elif isinstance(plain, float) and plain.is_integer():
        return int(plain)
    if plain is None or (isinstance(plain, float) and math.isnan(plain)):
        raise RetrievalError(f"key {name!r} is null; leave that entity out")
    raise RetrievalError(
        f"key {name!r}: {value!r} is no key; keys are whole numbers, strings, booleans or dates"
    )


def _coerced(name: str, value: object, dtype: str) -> Key:
    expected, convert = _KEYS[dtype]
    text = _text(name, value)
    try:
        coerced = convert(text)
    except ValueError:
        coerced = None
    # A float's digits are no string that a column would have.
    unfit = dtype == "String" and isinstance(_plain(value), float)
    if coerced is None or unfit or _text(name, coerced) != text:
        raise RetrievalError(f"key {name!r}: {value!r} is not {expected} ({dtype})")
    return coerced


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


_KEYS: dict[str, tuple[str, Callable[[str], Key]]] = {
    **dict.fromkeys(INTEGERS, ("a whole number", int)),
    "String": ("a string", str),
    "Boolean": ("true or false", _boolean),
    "Date": ("a date as in 2024-12-31", date.fromisoformat),
}

_USUAL: dict[str, type] = {**dict.fromkeys(INTEGERS, int), "String": str}


def _plain(value: object) -> object:
    """A value of numpy or pandas as Python has it; NaT and NA as None; anything else as it is."""
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if kind is not None:
        foreign: Any = value
        # numpy gives nanoseconds as bare integers
        value = (foreign.astype(f"{kind}8[us]") if kind in "mM" else foreign).tolist()
    return None if type(value).__name__ in ("NaTType", "NAType") else value


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
