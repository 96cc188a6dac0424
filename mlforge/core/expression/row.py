"""An expression as a Python closure: the value of one row."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from mlforge.core.expression.kinds import finite, whole, within_calendar
from mlforge.core.expression.tree import LITERAL, NAME, Node
from mlforge.core.values import DAY_US

Values = Mapping[str, Any]
Evaluate = Callable[[Values], Any]
WHOLE_FROM = float(1 << 52)
"""From this magnitude on, every float is a whole number."""


def compile_row(node: Node) -> Evaluate:
    """The function from the names' values, in the form of their kinds, to the node's value; None is null."""
    if node.op == LITERAL:
        value = node.value
        return lambda values: value
    if node.op == NAME:
        name = node.value
        return lambda values: values[name]
    if node.op == "round":
        return _strict((compile_row(node.args[0]),), _rounding(node.value))
    if node.op == "one_of":
        return _strict((compile_row(node.args[0]),), frozenset(node.value).__contains__)
    args = tuple(compile_row(arg) for arg in node.args)
    own = _OWN_NULLS.get(node.op)
    return own(*args) if own is not None else _strict(args, _STRICT[node.op])


def _strict(args: tuple[Evaluate, ...], function: Callable[..., Any]) -> Evaluate:
    """The function of arguments none of which is null, else null."""
    if len(args) == 1:
        [only] = args

        def of_one(values: Values) -> Any:
            value = only(values)
            return None if value is None else function(value)

        return of_one
    left, right = args

    def of_two(values: Values) -> Any:
        a = left(values)
        if a is None:
            return None
        b = right(values)
        return None if b is None else function(a, b)

    return of_two


def _and(left: Evaluate, right: Evaluate) -> Evaluate:
    def both(values: Values) -> bool | None:
        a = left(values)
        if a is False:
            return False
        b = right(values)
        return False if b is False else None if a is None or b is None else True

    return both


def _or(left: Evaluate, right: Evaluate) -> Evaluate:
    def either(values: Values) -> bool | None:
        a = left(values)
        if a is True:
            return True
        b = right(values)
        return True if b is True else None if a is None or b is None else False

    return either


def _if(condition: Evaluate, then: Evaluate, otherwise: Evaluate) -> Evaluate:
    def chosen(values: Values) -> Any:
        holds = condition(values)
        return None if holds is None else then(values) if holds else otherwise(values)

    return chosen


def _coalesce(first: Evaluate, second: Evaluate) -> Evaluate:
    def known(values: Values) -> Any:
        value = first(values)
        return second(values) if value is None else value

    return known


def _is_null(arg: Evaluate) -> Evaluate:
    return lambda values: arg(values) is None


def _div(a: float, b: float) -> float | None:
    return finite(a / b) if b else None


def _floordiv(a: float, b: float) -> float | None:
    ratio = _div(a, b)
    return None if ratio is None else _floor(ratio)


def _mod(a: float, b: float) -> float | None:
    ratio = _div(a, b)
    return None if ratio is None else finite(a - _floor(ratio) * b)


def _floor(a: float) -> float:
    return float(math.floor(a))


def _rounding(digits: int) -> Callable[[float], float]:
    scale = 10.0**digits
    return lambda a: a if abs(a) >= WHOLE_FROM else float(round(a * scale)) / scale


def _exp(a: float) -> float | None:
    try:
        return finite(math.exp(a))
    except OverflowError:
        return None


_STRICT: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: finite(a + b),
    "sub": lambda a, b: finite(a - b),
    "mul": lambda a, b: finite(a * b),
    "div": _div,
    "floordiv": _floordiv,
    "mod": _mod,
    "neg": lambda a: -a,
    "abs": abs,
    "int_add": lambda a, b: whole(a + b),
    "int_sub": lambda a, b: whole(a - b),
    "int_mul": lambda a, b: whole(a * b),
    "int_floordiv": lambda a, b: whole(a // b) if b else None,
    "int_mod": lambda a, b: a % b if b else None,
    "int_neg": lambda a: whole(-a),
    "int_abs": lambda a: whole(abs(a)),
    "instant_add": lambda a, b: within_calendar(a + b),
    "instant_sub": lambda a, b: within_calendar(a - b),
    "to_float": float,
    "to_instant": lambda a: a * DAY_US,
    "log": lambda a: math.log(a) if a > 0 else None,
    "log1p": lambda a: math.log1p(a) if a > -1 else None,
    "exp": _exp,
    "sqrt": lambda a: math.sqrt(a) if a >= 0 else None,
    "floor": _floor,
    "ceil": lambda a: float(math.ceil(a)),
    "min": min,
    "max": max,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "not": lambda a: not a,
    "text_contains": lambda a, b: b in a,
    "text_length": len,
    "list_length": len,
    "list_contains": lambda a, b: b in a,
}
"""Operations that are null where an argument is."""
_OWN_NULLS: dict[str, Callable[..., Evaluate]] = {
    "and": _and,
    "or": _or,
    "if": _if,
    "coalesce": _coalesce,
    "is_null": _is_null,
}
"""Operations with a rule of their own about null."""
