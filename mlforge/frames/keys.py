"""Keys as callers write them, in the dtypes that features have: one rule for spines, entities and requests.

A value is a key of a dtype where its canonical text is that of a value of the dtype: 1, "1", 1.0 and numpy's 1 are one key of
an integer feature, and "01" is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time
from typing import Any, TypeAlias

import polars as pl

from mlforge.core.arguments import shown
from mlforge.core.schema import INTEGERS, Schema, integer_range
from mlforge.core.widening import EXACT_IN_FLOAT
from mlforge.errors import DefinitionError, RetrievalError
from mlforge.frames import polars_schema

Key: TypeAlias = int | str | bool | date
_EXACT = {"Float16": 2**11, "Float32": 2**24}
"""From this size on a float of the dtype may be several whole numbers, rounded; one of any other from `EXACT_IN_FLOAT` on."""


def entity_key(entity: Mapping[str, object], keys: Schema) -> dict[str, Key]:
    """The entity with its values as the keys' dtypes have them, in the keys' order.

    What pandas and JSON do to ids is undone (1.0, "1" and numpy's 1 are 1 for an integer key);
    missing or extra names, nulls and values that no row could hold raise RetrievalError, what is no dict DefinitionError.
    """
    # A wrong name in it is a wrong request, as any other name that is no key.
    if not isinstance(entity, Mapping):
        raise DefinitionError(
            f'an entity must be a dict, not {shown(entity)}; write {{"user_id": 1}}'
        )
    [key] = entity_keys([entity], keys)
    return key


def entity_keys(entities: Iterable[Mapping[str, object]], keys: Schema) -> list[dict[str, Key]]:
    """Each entity as `entity_key` gives it."""
    typed = [(key.name, key.dtype, _USUAL.get(key.dtype)) for key in keys]
    names = {key.name for key in keys}
    values = []
    for entity in entities:
        if entity.keys() != names:
            raise wrong_names(entity, [key.name for key in keys])
        own: dict[str, Any] = {}
        for name, dtype, usual in typed:  # almost all values are as they should be
            value = entity[name]
            own[name] = value if type(value) is usual else _coerced(name, value, dtype)
        values.append(own)
    return values


def wrong_names(entity: Mapping[str, object], names: Sequence[str]) -> RetrievalError:
    """The error of an entity that has other keys than these."""
    missing = [repr(name) for name in names if name not in entity]
    extra = [repr(name) for name in entity if name not in names]
    wrong = (
        [f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"] if missing else []
    )
    wrong += (
        [f"{', '.join(extra)} {'is no key' if len(extra) == 1 else 'are no keys'}"] if extra else []
    )
    return RetrievalError(f"entity {dict(entity)!r}: {', '.join(wrong)}; {_keys_there(names)}")


def _keys_there(keys: Sequence[str]) -> str:
    return f"the keys are {', '.join(keys)}" if keys else "there are no keys: write {}"


def key_column(column: pl.Series, dtype: str) -> pl.Series:
    """A column of keys in a feature's dtype, each value as `entity_key` takes it.

    Null where the key is null or not finite, and where it is a whole number that the dtype cannot hold: an entity never seen. Raises
    RetrievalError for the first value that is no key of the dtype.
    """
    held = polars_schema.to_polars(dtype)
    if column.dtype == held:
        return column
    if column.dtype == pl.Null or (column.dtype.is_integer() and held.is_integer()):
        return column.cast(held, strict=False)
    values = _comparable(column)
    if values.dtype.is_float() and held.is_integer():
        for value in perhaps_rounded(values).head(1):
            raise _rounded_key(column.name, value)
    whole = _whole(values, held)
    if whole is not None:
        return whole
    distinct = values.unique(maintain_order=True).drop_nulls()
    keys = [_coerced(column.name, value, dtype) for value in distinct.to_list()]
    if held.is_integer():
        least, greatest = integer_range(dtype)
        fit = [k if isinstance(k, int) and least <= k <= greatest else None for k in keys]
        typed = pl.Series(fit, dtype=held)
    else:
        typed = pl.Series(keys, dtype=held)
    return values.replace_strict(distinct, typed, default=None, return_dtype=held)


def perhaps_rounded(floats: pl.Series) -> pl.Series:
    """The finite values of a column of floats that may each be several whole numbers, as pandas makes of ids beside a null."""
    least = _EXACT.get(str(floats.dtype), EXACT_IN_FLOAT)
    return floats.filter(floats.is_finite() & (floats.abs() >= least))


def _whole(values: pl.Series, held: pl.DataType) -> pl.Series | None:
    """The column cast at once, where that gives each value's key: a spine has millions. None where a look at each value is needed."""
    if values.dtype == held:
        return values
    kind, wide = values.dtype, pl.Int128() if held.is_integer() else held
    is_of_day = isinstance(kind, pl.Datetime) and kind.time_zone is None and held == pl.Date
    is_number = held.is_integer() and (kind.is_float() or kind == pl.String)
    if not (is_of_day or is_number or (kind.is_integer() and held == pl.String)):
        return None
    keys = values.cast(wide, strict=False)
    is_one = keys.cast(kind, strict=False).eq_missing(values).all()
    return keys.cast(held, strict=False) if is_one else None


def _comparable(column: pl.Series) -> pl.Series:
    """The column in a dtype whose values are told apart; what is not finite is null, as everywhere."""
    if isinstance(column.dtype, (pl.Categorical, pl.Enum)):
        return column.cast(pl.String)
    if column.dtype.is_float():
        return column.set(~column.is_finite(), None)
    if column.dtype.is_nested() or column.dtype == pl.Object:
        for value in column.drop_nulls().head(1).to_list():
            raise _no_key(column.name, value)
        return pl.Series(column.name, [None] * len(column), dtype=pl.Boolean)
    return column


def canonical_text(name: str, value: object) -> str:
    """The canonical text of a key's value, which its column would have."""
    value = _key_value(name, value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, date) else str(value)


def _key_value(name: str, value: object) -> Key:
    """A key's value as an integer, string, boolean or date; RetrievalError for any other kind."""
    own = plain(value)
    if isinstance(own, bool):
        return own
    if isinstance(own, int | str):  # a member of an enum of such values is its value
        return int(own) if isinstance(own, int) else str.__str__(own)
    if isinstance(own, datetime):
        if own.time() == time() and own.tzinfo is None:
            return own.date()
    elif isinstance(own, date):
        return own
    elif isinstance(own, float) and own.is_integer():
        # A float32 of numpy has its dtype's name, but for the capital.
        if abs(own) >= _EXACT.get(type(value).__name__.capitalize(), EXACT_IN_FLOAT):
            raise _rounded_key(name, own)
        return int(own)
    if own is None or (isinstance(own, float) and math.isnan(own)):
        raise RetrievalError(f"key {name!r} is null; leave that entity out")
    raise _no_key(name, value)


def _no_key(name: str, value: object) -> RetrievalError:
    return RetrievalError(
        f"key {name!r}: {value!r} is no key; keys are whole numbers, strings, booleans or dates"
    )


def _rounded_key(name: str, value: object) -> RetrievalError:
    return RetrievalError(
        f"key {name!r}: {value!r} is a float, and several whole numbers of that size are this one float; keep keys as "
        "integers or texts, in pandas as Int64"
    )


def _coerced(name: str, value: object, dtype: str) -> Key:
    expected, convert = _KEYS[dtype]
    text = canonical_text(name, value)
    try:
        coerced = convert(text)
    except ValueError:
        coerced = None
    # A float's digits are no string that a column would have.
    unfit = dtype == "String" and isinstance(plain(value), float)
    if coerced is None or unfit or canonical_text(name, coerced) != text:
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


def plain(value: object) -> object:
    """A value of numpy or pandas as Python has it; NaT and NA as None; anything else as it is."""
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if kind is not None:
        foreign: Any = value
        # numpy gives nanoseconds as bare integers
        value = (foreign.astype(f"{kind}8[us]") if kind in "mM" else foreign).tolist()
    return None if type(value).__name__ in ("NaTType", "NAType") else value
