"""The grammar: a text becomes a tree, by way of Python's `ast` and a list of what is allowed.

Nothing is evaluated or looked up: what Python has beyond the grammar is refused where it stands.
"""

from __future__ import annotations

import ast
import math
import warnings
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from mlforge.core.expression.advice import (
    FUNCTIONS,
    INSTEAD,
    THERE_IS,
    of_function,
    of_syntax,
    usage,
)
from mlforge.core.expression.kinds import GREATEST_INT, LEAST_INT
from mlforge.core.expression.tree import (
    DEEPEST,
    ITEMS,
    LITERAL,
    LONGEST_TEXT,
    MOST_NODES,
    NAME,
    Node,
    Text,
)
from mlforge.core.syntax import expression_tree
from mlforge.errors import ExpressionError

T = "t"
"""The name of the instant of evaluation."""

_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.FloorDiv: "floordiv",
    ast.Mod: "mod",
}
_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Eq: "eq",
    ast.NotEq: "ne",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
    ast.In: "in",
    ast.NotIn: "not_in",
}


@lru_cache(maxsize=1024)
def parse(text: str, owner: str) -> Node:
    """The tree of an expression; ExpressionError, which points at the place, for all that is no expression."""
    line = Text.of(owner, text)
    if not text.strip():
        raise ExpressionError(f"{owner}: the expression is empty; write one, as in 'a / b'")
    if len(text) > LONGEST_TEXT:
        raise ExpressionError(
            f"{owner}: the expression has {len(text)} characters, at most {LONGEST_TEXT} are read; "
            "compute parts of it in earlier derived columns"
        )
    body = _syntax(line)
    try:
        return _Reader(line).read(body, 1)
    except RecursionError:
        raise _too_deep(line) from None


def _syntax(text: Text) -> ast.expr:
    """Python's own tree of the text."""
    indent = len(text.line) - len(text.line.lstrip())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text.line.encode()
            return expression_tree(text.line[indent:])
    except UnicodeEncodeError as error:
        raise text.error(error.start, error.end, "half a character stands here") from None
    except SyntaxError as error:
        place = indent + error.offset - 1 if error.offset else len(text.line)
        start = min(place, len(text.line.rstrip()))
        end = indent + (error.end_offset or 0) - 1
        problem = f"this does not parse ({error.msg})"
        raise text.error(start, end, problem, of_syntax(text.line)) from None
    except ValueError as error:  # a null character, or a number of thousands of digits
        raise text.error(0, len(text.line), f"this does not parse ({error})") from None
    except (RecursionError, MemoryError):
        raise _too_deep(text) from None


def _too_deep(text: Text) -> ExpressionError:
    return text.error(
        0,
        len(text.line),
        f"this is nested more than {DEEPEST} deep",
        "compute parts of it in earlier derived columns",
    )


@dataclass
class _Reader:
    """Turns Python's tree into ours, and refuses what the grammar lacks."""

    text: Text
    indent: int = field(init=False)
    nodes: int = 0

    def __post_init__(self) -> None:
        self.indent = len(self.text.line) - len(self.text.line.lstrip())

    def read(self, expr: ast.expr, depth: int) -> Node:
        self.nodes += 1
        if depth > DEEPEST:
            raise _too_deep(self.text)
        if self.nodes > MOST_NODES:
            raise self.text.error(
                0,
                len(self.text.line),
                f"this has more than {MOST_NODES} parts",
                "compute parts of it in earlier derived columns",
            )
        match expr:
            case ast.Constant():
                return self._literal(expr, expr.value)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return self._literal(expr, value if isinstance(value, bool) else -value)
            case ast.Name():
                start, end = self._place(expr)
                # The text itself: Python folds letters that look alike.
                return Node(NAME, value=self.text.line[start:end], start=start, end=end)
            case ast.BinOp() | ast.UnaryOp():
                return self._arithmetic(expr, depth)
            case ast.BoolOp(op=op, values=values):
                read = [self.read(value, depth + 1) for value in values]
                return self._joined("and" if isinstance(op, ast.And) else "or", expr, read)
            case ast.Compare():
                return self._comparison(expr, depth)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                parts = [self.read(part, depth + 1) for part in (test, body, orelse)]
                return self._node("if", expr, *parts)
            case ast.Call():
                return self._call(expr, depth)
        raise self._refused(expr, type(expr))

    def _arithmetic(self, expr: ast.BinOp | ast.UnaryOp, depth: int) -> Node:
        if isinstance(expr, ast.BinOp):
            if type(expr.op) not in _BINARY:
                raise self._refused(expr, type(expr.op))
            operands = self.read(expr.left, depth + 1), self.read(expr.right, depth + 1)
            return self._node(_BINARY[type(expr.op)], expr, *operands)
        if isinstance(expr.op, ast.Invert):
            raise self._refused(expr, ast.Invert)
        operand = self.read(expr.operand, depth + 1)
        name = {ast.USub: "neg", ast.UAdd: "plus", ast.Not: "not"}[type(expr.op)]
        return self._node(name, expr, operand)

    def _comparison(self, expr: ast.Compare, depth: int) -> Node:
        """A chain of comparisons is that of each pair, joined by `and`."""
        pairs: list[Node] = []
        left = self.read(expr.left, depth + 1)
        for op, comparator in zip(expr.ops, expr.comparators, strict=True):
            if type(op) not in _COMPARE:
                raise self._refused(expr, type(op))
            name = _COMPARE[type(op)]
            right = self._right(name, comparator, depth + 1)
            pair = self._node("in" if name == "not_in" else name, expr, left, right)
            pairs.append(self._node("not", expr, pair) if name == "not_in" else pair)
            left = right
        if len(pairs) > 1 and any(node.op == ITEMS for pair in pairs for node in pair.args):
            raise self._error(expr, "`in` stands in a chain of comparisons", "join them by: and")
        return self._joined("and", expr, pairs)

    def _right(self, name: str, expr: ast.expr, depth: int) -> Node:
        """The right side of a comparison, which for `in` may be a list of literals."""
        if name not in ("in", "not_in") or not isinstance(expr, (ast.Tuple, ast.List)):
            return self.read(expr, depth)
        items = [self.read(item, depth) for item in expr.elts]
        for item in items:
            if item.op != LITERAL or item.value is None:
                raise self.text.error_at(
                    item, "the values behind `in` are numbers and texts", "join others by: or"
                )
        if not items:
            raise self._error(expr, "there is no value behind `in`", "as in x in (1, 2)")
        return self._node(ITEMS, expr, *items)

    def _call(self, expr: ast.Call, depth: int) -> Node:
        if not isinstance(expr.func, ast.Name):
            raise self._refused(expr.func, type(expr.func))
        name = expr.func.id
        if name not in FUNCTIONS:
            raise self._error(expr.func, f"there is no function {name!r}", of_function(name))
        if expr.keywords or any(isinstance(arg, ast.Starred) for arg in expr.args):
            raise self._error(expr, f"{name} takes plain arguments", usage(name))
        least, most = FUNCTIONS[name]
        if len(expr.args) < least or (most is not None and len(expr.args) > most):
            number = (
                f"{least}"
                if most == least
                else f"{least} to {most}"
                if most
                else f"{least} or more"
            )
            word = "argument" if number == "1" else "arguments"
            problem = f"{name} takes {number} {word}, not {len(expr.args)}"
            raise self._error(expr, problem, usage(name))
        read = [self.read(arg, depth + 1) for arg in expr.args]
        if name in ("min", "max", "coalesce"):
            return self._joined(name, expr, read)
        return self._node(name, expr, *read)

    def _joined(self, op: str, expr: ast.expr, nodes: list[Node]) -> Node:
        """An operation on two nodes, made one on several; halved, so that its depth stays small."""
        if len(nodes) == 1:
            return nodes[0]
        middle = len(nodes) // 2
        halves = (self._joined(op, expr, half) for half in (nodes[:middle], nodes[middle:]))
        return self._node(op, expr, *halves)

    def _literal(self, expr: ast.expr, value: Any) -> Node:
        if isinstance(value, int) and not LEAST_INT <= value <= GREATEST_INT:
            raise self._error(
                expr, "this whole number needs more than 64 bits", "write it with a point"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise self._error(expr, "this number is larger than any float", "write a smaller one")
        if value is not None and type(value) not in (bool, int, float, str):
            raise self._error(expr, "this is no number and no text", THERE_IS)
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                raise self._error(expr, "this text holds half a character") from None
        return self._node(LITERAL, expr, value=value)

    def _refused(self, expr: ast.expr, kind: type[ast.AST]) -> ExpressionError:
        problem, works = INSTEAD.get(kind, ("this is no part of an expression", THERE_IS))
        return self._error(expr, problem, works)

    def _error(self, expr: ast.expr, problem: str, works: str = "") -> ExpressionError:
        return self.text.error(*self._place(expr), problem, works)

    def _node(self, op: str, expr: ast.expr, *args: Node, value: Any = None) -> Node:
        return Node(op, args, value, *self._place(expr))

    def _place(self, expr: ast.expr) -> tuple[int, int]:
        """The node's first character and the one behind its last: Python counts bytes."""
        raw = self.text.line[self.indent :].encode()
        start = len(raw[: expr.col_offset].decode())
        end = len(raw[: expr.end_col_offset].decode())
        return self.indent + start, self.indent + end
