"""State of values that the text which stands for them in a code hash leaves out, and what nobody can see of it."""

from __future__ import annotations

import copyreg
import functools
import inspect
import re
import sys
from collections.abc import Mapping
from datetime import date, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from types import (
    BuiltinFunctionType,
    FunctionType,
    GetSetDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import polars as pl

from mlforge.features.references import Home, module_of
from mlforge.features.texts import is_tensor

_TOLD_BY_REPR = (
    *(range, slice, date, time, timedelta, timezone, ZoneInfo, Decimal, Fraction, UUID, PurePath),
    *(pl.DataType, MethodDescriptorType, GetSetDescriptorType),
)
"""Types of values whose repr tells all."""
_HOMES_OF_ARRAYS = {"array", "numpy"}
"""Modules of the types whose values are their elements; a type made from one of these may hold a mask or labels beside them."""
_LOGGERS = {"logging", "loguru", "structlog"}
"""Packages whose values write logs, wherever to: another state of theirs changes no event."""
_GENERATORS = re.compile(r"random|numpy\.random\..*")
"""Modules of the types that give random numbers: another one in each process, and after each use."""
_OF_WRAPPERS = {*functools.WRAPPER_ASSIGNMENTS, "__wrapped__"}
_OF_CLASSES = (MethodType, property, staticmethod, classmethod, functools.cached_property)
_OF_A_CLASS_STATEMENT = 1 << 9  # Py_TPFLAGS_HEAPTYPE


def hides(value: Any, home: Home) -> bool:
    """Whether the text of a value leaves out some of what it holds, beside what the parts of that text leave out."""
    match value:
        case FunctionType():
            if home.owns(module_of(value)):
                return False
            is_known = "<" not in value.__code__.co_qualname or is_of_python(module_of(value))
            return not is_known or bool(vars(value).keys() - _OF_WRAPPERS)
        case type():
            return not home.owns_type(value) and "<" in value.__qualname__
        case pl.Expr() | pl.LazyFrame():
            return has_python(value)
    if hasattr(type(value), "__arrow_c_stream__"):
        return not isinstance(value, (pl.DataFrame, pl.Series))  # pandas has flags beside
    return isinstance(value, Mapping) and not _is_in_order(value)


def has_python(value: object) -> bool:
    """Whether an expression or a plan calls a function of Python, of which its text tells nothing."""
    if isinstance(value, pl.Expr):
        return "python_udf" in str(value)
    return isinstance(value, pl.LazyFrame) and _may_hold_a_function(value)


def is_told(value: object) -> bool:
    """Whether the elements of an array, or the repr of any other value that is not from here, tell all of it."""
    kind = type(value)
    is_array = kind.__module__ in _HOMES_OF_ARRAYS and hasattr(value, "tolist")
    is_array = is_array or is_tensor(value) or kind in (bytearray, memoryview)
    if kind.__module__ == "_abc":  # an abstract class's notes on what is an instance of it
        return True
    return is_array or isinstance(value, _TOLD_BY_REPR)


def is_logger(value: object) -> bool:
    """Whether a value writes logs."""
    return type(value).__module__.partition(".")[0] in _LOGGERS


def is_of_python(module: str) -> bool:
    """Whether a module is of the standard library."""
    return module.partition(".")[0] in sys.stdlib_module_names


def is_wrapper(value: object) -> bool:
    """Whether a value is one of Python's wrappers of functions, which its parts tell."""
    return isinstance(value, (functools._lru_cache_wrapper, functools.partial, *_OF_CLASSES))


def is_generator(value: object) -> bool:
    """Whether a value gives random numbers."""
    return _GENERATORS.fullmatch(type(value).__module__) is not None


def owner_of(function: BuiltinFunctionType) -> object:
    """The value that a builtin function is bound to; None where its name tells that."""
    owner: Any = function.__self__
    is_named = isinstance(owner, type) and function.__qualname__.startswith(owner.__qualname__)
    return None if is_named or isinstance(owner, ModuleType) else owner


def beside(value: object, told: Mapping[str, object]) -> dict[str, object]:
    """The attributes of a value that are not told: neither copies of a wrapper, nor what it computes of the others."""
    kind = type(value)
    return {
        name: attribute
        for name, attribute in state_of(value).items()
        if name not in told and name not in _OF_WRAPPERS
        if not isinstance(inspect.getattr_static(kind, name, None), functools.cached_property)
    }


def is_plain(kind: type, home: Home) -> bool:
    """Whether attributes are all that a value of an own type holds: no base is of compiled code."""
    return all(home.owns_type(base) or _is_of_a_file(base) for base in kind.__mro__[:-1])


def copied(value: Any) -> tuple[object, ...] | None:
    """The pieces that a copy of a value would be made of, as pickle has it.

    None of a value that has no copies, as a lock or a connection.
    """
    kind = type(value)
    reduce = copyreg.dispatch_table.get(kind)
    try:
        if reduce is None and _is_of_keras(kind):  # a pickle of its own has the time of day
            return kind, value.get_config(), value.get_weights()
        made = value.__reduce_ex__(4) if reduce is None else reduce(value)
        if isinstance(made, str):
            return (made,)
        function, arguments, state, items, pairs = (*made, None, None, None)[:5]
        state = _without_counts(value, state)
        attributes = tuple(map(_by_name, state if isinstance(state, tuple) else [state]))
        return function, arguments, attributes, [*(items or ())], [*(pairs or ())]
    except Exception:  # noqa: BLE001 - a foreign value may raise anything
        return None


def _without_counts(value: Any, state: object) -> object:
    """A state without the numbers of look-ups that a tree of neighbours of scikit-learn counts in itself: each look-up adds to them."""
    if not isinstance(state, tuple) or not hasattr(value, "get_tree_stats"):
        return state
    counts = (*value.get_tree_stats(), value.get_n_calls())
    for begin in reversed(range(len(state) - len(counts) + 1)):
        end = begin + len(counts)
        if all(type(part) is int for part in state[begin:end]) and state[begin:end] == counts:
            return *state[:begin], *state[end:]
    return state


def _is_of_keras(kind: type) -> bool:
    """Whether values of a type are models or layers of Keras."""
    homes = {base.__module__.partition(".")[0] for base in kind.__mro__}
    return not homes.isdisjoint({"keras", "tf_keras"}) and hasattr(kind, "get_weights")


def _by_name(state: object) -> object:
    """A state with its attributes in the order of their names; the address of one is no part of it, being another in each process."""
    if not isinstance(state, dict) or any(type(name) is not str for name in state):
        return state
    addresses = set(map(id, state.values()))
    is_one = {name: type(v) is int and v in addresses for name, v in state.items()}
    return {name: "an address" if is_one[name] else state[name] for name in sorted(state)}


def _may_hold_a_function(plan: pl.LazyFrame) -> bool:
    try:
        return "python" in plan.explain(optimized=False).lower()
    except pl.exceptions.PolarsError:  # the plan asks for what is not there
        return True


def _is_of_a_file(kind: type) -> bool:
    """Whether a class was written in Python."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
    return bool(kind.__flags__ & _OF_A_CLASS_STATEMENT) and file.endswith(".py")


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
