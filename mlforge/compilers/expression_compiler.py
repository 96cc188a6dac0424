"""Expressions over a frame: the same values as `mlforge.core.expression.row` gives row by row.

A tree becomes steps, each a polars expression over columns that earlier steps made, so that an operation may
name its arguments several times. Equal parts are computed once. The program names all columns; users' names do not occur.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from mlforge.core.expression import kinds
from mlforge.core.expression.kinds import element
from mlforge.core.expression.row import WHOLE_FROM
from mlforge.core.expression.tree import LITERAL, NAME, Node
from mlforge.core.values import DAY_US, FIRST_INSTANT, LAST_INSTANT

_STORED: dict[str, pl.DataType] = {
    kinds.INT: pl.Int64(),
    kinds.FLOAT: pl.Float64(),
    kinds.BOOL: pl.Boolean(),
    kinds.TEXT: pl.String(),
    kinds.INSTANT_KIND: pl.Datetime("us", "UTC"),
    kinds.DATE: pl.Date(),
}
_HELD: dict[str, pl.DataType] = {
    **_STORED,
    kinds.INSTANT_KIND: pl.Int64(),
    kinds.DURATION: pl.Int64(),
    kinds.DATE: pl.Int64(),
}
"""The dtype of a kind's values within a program."""
_ZERO = "zero"  # a column of zeros


@dataclass(frozen=True, slots=True)
class _Value:
    """An expression over the program's columns, the number of steps that make them, and the key that equal values share."""

    expr: pl.Expr
    level: int
    key: Any


@dataclass
class Program:
    """The steps of one or more expressions over a frame.

    sources: each name's column in the frame, and its kind.
    """

    sources: Mapping[str, tuple[str, str]]
    steps: list[dict[str, pl.Expr]] = field(default_factory=list)
    inputs: dict[str, pl.Expr] = field(default_factory=dict)
    _made: dict[Any, _Value] = field(default_factory=dict)
    _named: dict[str, _Value] = field(default_factory=dict)
    _outputs: list[pl.Expr] = field(default_factory=list)

    def add(self, name: str, node: Node) -> None:
        """Give the node's value the name, under which later nodes can use it."""
        self._named[name] = self._value(node)
        self._outputs.append(_written(self._named[name].expr, node.kind).alias(name))

    def run(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """The named values alone, for each row of the frame."""
        zeros = pl.int_range(pl.len()).cast(pl.Float64) * 0.0
        frame = frame.select(zeros.alias(_ZERO), **self.inputs)
        for step in self.steps:
            frame = frame.with_columns(**step)
        # A literal alone would make one row.
        return frame.with_columns(*self._outputs).select(
            e.meta.output_name() for e in self._outputs
        )

    def _value(self, node: Node) -> _Value:
        if node.op == LITERAL:
            literal = pl.lit(node.value, dtype=_HELD[node.kind])
            return _Value(literal, 0, (node.kind, node.value))
        if node.op == NAME:
            return self._name(node.value)
        args = [self._value(arg) for arg in node.args]
        key = (node.op, node.kind, node.value, *(arg.key for arg in args))
        if key not in self._made:
            level = max(arg.level for arg in args)
            if level == len(self.steps):
                self.steps.append({})
            name = f"v{len(self._made)}"
            self.steps[level][name] = _operation(node, [arg.expr for arg in args])
            self._made[key] = _Value(pl.col(name), level + 1, name)
        return self._made[key]

    def _name(self, name: str) -> _Value:
        if name not in self._named:
            column, kind = self.sources[name]
            alias = f"i{len(self.inputs)}"
            self.inputs[alias] = _read(pl.col(column), kind)
            self._named[name] = _Value(pl.col(alias), 0, alias)
        return self._named[name]


def _read(column: pl.Expr, kind: str) -> pl.Expr:
    """A stored column as values of its kind."""
    inner = element(kind)
    if inner is not None:
        held = column.cast(pl.List(_STORED[inner]))
        if inner == kinds.DATE:
            return held.cast(pl.List(pl.Int32)).cast(pl.List(pl.Int64))
        return held.cast(pl.List(_HELD[inner]))
    if kind == kinds.FLOAT:
        return _finite(column.cast(pl.Float64))
    if kind == kinds.INT:
        return column.cast(pl.Int64, strict=False)
    if kind in (kinds.INSTANT_KIND, kinds.DATE):
        return column.to_physical().cast(pl.Int64)
    return column


def _written(value: pl.Expr, kind: str) -> pl.Expr:
    """Values of a kind as a column to store."""
    if kind == kinds.DATE:
        return value.cast(pl.Int32).cast(pl.Date)
    return value.cast(_STORED[kind]) if _STORED[kind] != _HELD[kind] else value


def _operation(node: Node, args: list[pl.Expr]) -> pl.Expr:
    if node.op == "round":
        return _rounded(args[0], node.value)
    if node.op == "one_of":
        return args[0].is_in(pl.Series(node.value, dtype=_HELD[node.args[0].kind]).implode())
    if node.op in _MIRRORED and node.args[0].op == LITERAL:
        # polars makes one row of a literal compared with a column that is null throughout.
        return _OPERATIONS[_MIRRORED[node.op]](*reversed(args))
    return _OPERATIONS[node.op](*args)


def _finite(value: pl.Expr) -> pl.Expr:
    return pl.when(value.is_finite()).then(value)


def _ratio(a: pl.Expr, b: pl.Expr) -> pl.Expr:
    """The quotient: polars multiplies by the reciprocal of a lone divisor, which gives other last bits."""
    return _finite(a / (b + pl.col(_ZERO)))


def _floor_of_ratio(a: pl.Expr, b: pl.Expr) -> pl.Expr:
    return _ratio(a, b).floor()


def _whole(function: Callable[..., pl.Expr]) -> Callable[..., pl.Expr]:
    """The function on 64 bits, null where its result needs more."""
    return lambda *args: function(*(arg.cast(pl.Int128) for arg in args)).cast(
        pl.Int64, strict=False
    )


def _instant(function: Callable[..., pl.Expr]) -> Callable[..., pl.Expr]:
    """The function on instants, null where its result is outside the years 1 to 9999."""

    def within(*args: pl.Expr) -> pl.Expr:
        moved = function(*(arg.cast(pl.Int128) for arg in args))
        inside = moved.is_between(FIRST_INSTANT, LAST_INSTANT)
        return pl.when(inside).then(moved).cast(pl.Int64)

    return within


def _rounded(a: pl.Expr, digits: int) -> pl.Expr:
    scale = 10.0**digits
    rounded = (a * scale).round(0, mode="half_to_even") / (scale + pl.col(_ZERO))
    return pl.when(a.abs() >= WHOLE_FROM).then(a).otherwise(rounded)


def _list_contains(values: pl.Expr, value: pl.Expr) -> pl.Expr:
    return pl.when(value.is_not_null()).then(values.list.contains(value))


def _if(condition: pl.Expr, then: pl.Expr, otherwise: pl.Expr) -> pl.Expr:
    return pl.when(condition).then(then).when(~condition).then(otherwise)


_MIRRORED = {"eq": "eq", "ne": "ne", "lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}
"""The comparison that holds of two values in the other order."""
_OPERATIONS: dict[str, Callable[..., pl.Expr]] = {
    "add": lambda a, b: _finite(a + b),
    "sub": lambda a, b: _finite(a - b),
    "mul": lambda a, b: _finite(a * b),
    "div": _ratio,
    "floordiv": _floor_of_ratio,
    "mod": lambda a, b: _finite(a - _floor_of_ratio(a, b) * b),
    "neg": lambda a: -a,
    "abs": lambda a: a.abs(),
    "int_add": _whole(lambda a, b: a + b),
    "int_sub": _whole(lambda a, b: a - b),
    "int_mul": _whole(lambda a, b: a * b),
    "int_floordiv": _whole(lambda a, b: a // b),
    "int_mod": _whole(lambda a, b: a % b),
    "int_neg": _whole(lambda a: 0 - a),
    "int_abs": _whole(lambda a: a.abs()),
    "instant_add": _instant(lambda a, b: a + b),
    "instant_sub": _instant(lambda a, b: a - b),
    "to_float": lambda a: a.cast(pl.Float64),
    "to_instant": lambda a: a * DAY_US,
    "log": lambda a: _finite(a.log()),
    "log1p": lambda a: _finite(a.log1p()),
    "exp": lambda a: _finite(a.exp()),
    "sqrt": lambda a: _finite(a.sqrt()),
    "floor": lambda a: a.floor(),
    "ceil": lambda a: a.ceil(),
    "min": lambda a, b: pl.when(a <= b).then(a).when(a > b).then(b),
    "max": lambda a, b: pl.when(a >= b).then(a).when(a < b).then(b),
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "not": lambda a: ~a,
    "if": _if,
    "coalesce": pl.coalesce,
    "is_null": lambda a: a.is_null(),
    "text_contains": lambda a, b: a.str.contains(b, literal=True),
    "text_length": lambda a: a.str.len_chars().cast(pl.Int64),
    "list_length": lambda a: a.list.len().cast(pl.Int64),
    "list_contains": _list_contains,
}
