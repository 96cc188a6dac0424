"""Values whose text in a code hash leaves out what they do: functions that use them are not the same for having one hash."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import sys
from collections import deque
from collections.abc import Mapping, Set
from datetime import date, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, ModuleType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import polars as pl

from mlforge.features.references import Home, module_of

_TOLD_BY_REPR = (
    *(range, slice, date, time, timedelta, timezone, ZoneInfo, Decimal, Fraction, UUID, PurePath),
    *(pl.DataType, MethodDescriptorType),
)
"""Types of values whose repr tells all."""
_HOMES_OF_ARRAYS = {"array", "numpy"}
"""Modules of the types whose values are their elements; a type made from one of these may hold a mask or labels beside them."""
_OWN_ATTRIBUTES = {"__wrapped__"}
_CONTAINERS = (Mapping, Set, tuple, list, deque)


def hides(value: Any, home: Home) -> bool:
    """Whether the text of a value leaves out some of what it holds, beside what the parts of that text leave out."""
    match value:
        case FunctionType():
            module, name = module_of(value), value.__code__.co_qualname
            is_known = home.owns(module) or "<" not in name or _is_of_python(module)
            return not is_known or bool(vars(value).keys() - _OWN_ATTRIBUTES)
        case type():
            return not home.owns_type(value) and "<" in value.__qualname__
        case BuiltinFunctionType():
            return not (value.__self__ is None or isinstance(value.__self__, ModuleType))
        case enum.Enum():
            return False
        case pl.Expr():
            return "python_udf" in str(value)
        case pl.LazyFrame():
            return _may_hold_a_function(value)
    if hasattr(type(value), "__arrow_c_stream__"):
        return not isinstance(value, (pl.DataFrame, pl.Series))  # pandas has an index beside
    if dataclasses.is_dataclass(value):
        return bool(state_of(value).keys() - {field.name for field in dataclasses.fields(value)})
    if callable(inspect.getattr_static(value, "__wrapped__", None)):
        return not isinstance(value, functools._lru_cache_wrapper)
    if isinstance(value, _CONTAINERS):
        return bool(state_of(value)) or (isinstance(value, Mapping) and not _is_in_order(value))
    bases = type(value).__mro__[:-1]
    return home.owns_type(type(value)) and not all(map(home.owns_type, bases))


def is_told(value: object) -> bool:
    """Whether the elements of an array, or the repr of any other value that is not from here, tell all of it."""
    kind = type(value)
    is_array = kind.__module__ in _HOMES_OF_ARRAYS and hasattr(value, "tolist")
    return is_array or kind in (bytearray, memoryview) or isinstance(value, _TOLD_BY_REPR)


def _may_hold_a_function(plan: pl.LazyFrame) -> bool:
    try:
        return "python" in plan.explain(optimized=False).lower()
    except pl.exceptions.PolarsError:  # the plan asks for what is not there
        return True


def _is_of_python(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


def _is_in_order(items: Mapping[Any, Any]) -> bool:
    """Whether a mapping's items are in the order of its keys, as their text has them."""
    keys = [*items]
    return len(keys) < 2 or (set(map(type, keys)) in ({str}, {int}) and keys == sorted(keys))


def state_of(value: object) -> dict[str, object]:
    """The attributes of an object, in its dict and in slots."""
    state = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                state[name] = getattr(value, name)
    return state
