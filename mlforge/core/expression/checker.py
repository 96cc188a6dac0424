"""The types: a tree as it was read becomes one whose every node has a kind.

Conversions become nodes of their own, so that both compilers know each operation for one kind alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mlforge.core.expression.advice import of_kinds, of_name
from mlforge.core.expression.kinds import (
    BOOL,
    DATE,
    DURATION,
    FLOAT,
    INSTANT_KIND,
    INT,
    NULL,
    NUMBERS,
    ORDERED,
    TEXT,
    day_of,
    described,
    element,
    instant_of,
)
from mlforge.core.expression.parser import T
from mlforge.core.expression.tree import ITEMS, LITERAL, NAME, Node, Text

US = {"seconds": 1e6, "hours": 3.6e9, "days": 8.64e10}
"""Microseconds in each unit of a duration."""
_MOST_DIGITS = 15
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_WORDS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "mod": "%", "neg": "-"}
_WORDS |= {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "plus": "+"}
_JOINT = {
    frozenset(NUMBERS): FLOAT,
    frozenset((DATE, INSTANT_KIND)): INSTANT_KIND,
}
"""The kind that holds the values of two others."""
_LITERAL_KINDS = {bool: BOOL, int: INT, float: FLOAT, str: TEXT, type(None): NULL}


def check(node: Node, text: Text, kinds: Mapping[str, str]) -> Node:
    """The tree with kinds; kinds: that of each name, `t` among them where it may be used.

    Raises ExpressionError for an unknown name, and where kinds do not go together.
    """
    checked = _Checker(text, kinds).check(node)
    return _typed_null(checked, FLOAT) if checked.kind == NULL else checked


def check_known(node: Node, text: Text, kinds: Mapping[str, str]) -> Node | None:
    """The tree with kinds, if each of its names has one; else None, and each largest part that has is checked alone.

    A node's kind follows from the nodes below it alone, so what is refused of a part is wrong whatever the other names are.
    Raises ExpressionError as `check` does.
    """
    if all(name in kinds for name in node.names):
        return check(node, text, kinds)
    for arg in node.args:
        check_known(arg, text, kinds)
    return None


@dataclass(frozen=True)
class _Checker:
    text: Text
    kinds: Mapping[str, str]

    def check(self, node: Node) -> Node:
        if node.op == LITERAL:
            return replace(node, kind=_LITERAL_KINDS[type(node.value)])
        if node.op == NAME:
            return self._name(node)
        args = [self.check(arg) for arg in node.args]
        if node.op in _COMPARISONS:
            return self._compared(node, args)
        if node.op in US:
            return self._in_units(node, args[0])
        return _RULES[node.op](self, node, args)

    def _name(self, node: Node) -> Node:
        name = node.value
        if name in self.kinds:
            return replace(node, kind=self.kinds[name])
        if name == T:
            raise self.text.error_at(
                node,
                "a feature without timestamp= has no instant t",
                "give the feature a timestamp, or leave t out",
            )
        known = [name for name in self.kinds if name != T]
        raise self.text.error_at(node, f"no column {name!r}", of_name(name, known))

    # Kinds that go together.

    def _unified(self, node: Node, nodes: Sequence[Node], what: str) -> list[Node]:
        """The nodes in one kind; what: the operation, for the message."""
        read = self._dates_read(nodes)
        kinds = list(dict.fromkeys(n.kind for n in read if n.kind != NULL))
        if not kinds:
            return [_typed_null(n, FLOAT) for n in read]
        target = kinds[0]
        for kind in kinds[1:]:
            common = _JOINT.get(frozenset((target, kind)))
            if common is None:
                other = next(n for n in read if n.kind == kind)
                first = next(n for n in read if n.kind not in (NULL, kind))
                raise self._mixed(node, what, first, other)
            target = common
        return [_converted(n, target) for n in read]

    def _dates_read(self, nodes: Sequence[Node]) -> list[Node]:
        """The nodes; a text that stands beside an instant or a date is read as one."""
        kinds = {node.kind for node in nodes}
        if TEXT not in kinds or kinds.isdisjoint((INSTANT_KIND, DATE)):
            return list(nodes)
        return [
            self._date_read(n, INSTANT_KIND not in kinds)
            if n.op == LITERAL and n.kind == TEXT
            else n
            for n in nodes
        ]

    def _date_read(self, node: Node, may_be_date: bool) -> Node:
        day = day_of(node.value) if may_be_date else None
        if day is not None:
            return node.of(LITERAL, kind=DATE, value=day)
        instant = instant_of(node.value)
        if instant is None:
            raise self.text.error_at(
                node,
                f"{node.value!r} is no date",
                "write one as '2026-01-31' or '2026-01-31T12:00:00Z'",
            )
        return node.of(LITERAL, kind=INSTANT_KIND, value=instant)

    def _mixed(self, node: Node, what: str, left: Node, right: Node) -> Exception:
        left, right = (_operand(node, arg) for arg in (left, right))
        problem = f"{what} mixes {self._said(left)} and {self._said(right)}"
        return self.text.error_at(node, problem, of_kinds({left.kind, right.kind}))

    def _unfit(self, what: str, arg: Node, takes: str) -> Exception:
        return self.text.error_at(
            arg, f"{what} takes {takes}, not {self._said(arg)}", of_kinds({arg.kind, takes})
        )

    def _said(self, node: Node) -> str:
        """A part of the text and its kind, as a message says them."""
        words = self.text.line[node.start : node.end]
        shown = words if len(words) <= 40 else f"{words[:37]}..."
        return f"{shown} ({described(node.kind)})"

    def _number(self, node: Node, arg: Node) -> Node:
        """The argument, which must be a number."""
        if arg.kind == NULL:
            return _typed_null(arg, FLOAT)
        if arg.kind not in NUMBERS:
            raise self._unfit(_word(node), arg, "numbers")
        return arg

    def _condition(self, node: Node, arg: Node) -> Node:
        if arg.kind == NULL:
            return _typed_null(arg, BOOL)
        if arg.kind != BOOL:
            raise self._unfit(_word(node), arg, "true or false")
        return arg

    # Operations.

    def _plus_minus(self, node: Node, args: Sequence[Node]) -> Node:
        left, right = self._dates_read(args)
        kinds = (left.kind, right.kind)
        if kinds == (DURATION, DURATION):
            return node.of(f"int_{node.op}", left, right, kind=DURATION)
        if {*kinds} <= {INSTANT_KIND, DATE} and node.op == "sub":
            both = (_converted(arg, INSTANT_KIND) for arg in (left, right))
            return node.of("int_sub", *both, kind=DURATION)
        if kinds[1] == DURATION and kinds[0] in (INSTANT_KIND, DATE):
            instant = _converted(left, INSTANT_KIND)
            return node.of(f"instant_{node.op}", instant, right, kind=INSTANT_KIND)
        if kinds[0] == DURATION and kinds[1] in (INSTANT_KIND, DATE) and node.op == "add":
            instant = _converted(right, INSTANT_KIND)
            return node.of("instant_add", instant, left, kind=INSTANT_KIND)
        return self._arithmetic(node, [left, right])

    def _arithmetic(self, node: Node, args: Sequence[Node]) -> Node:
        bad = next((arg for arg in args if arg.kind not in (*NUMBERS, NULL)), None)
        if bad is not None:
            if args[0].kind != args[1].kind and NULL not in (args[0].kind, args[1].kind):
                raise self._mixed(node, _word(node), args[0], args[1])
            raise self._unfit(_word(node), bad, "numbers")
        left, right = self._unified(node, args, _word(node))
        if left.kind == INT:
            return node.of(f"int_{node.op}", left, right, kind=INT)
        return node.of(node.op, left, right, kind=FLOAT)

    def _divided(self, node: Node, args: Sequence[Node]) -> Node:
        if [arg.kind for arg in args] == [DURATION, DURATION]:
            floats = (arg.of("to_float", arg, kind=FLOAT) for arg in args)
            return node.of("div", *floats, kind=FLOAT)
        bad = next((arg for arg in args if arg.kind not in (*NUMBERS, NULL)), None)
        if bad is not None:
            raise self._unfit("/", bad, "numbers")
        return node.of("div", *(_converted(arg, FLOAT) for arg in args), kind=FLOAT)

    def _negated(self, node: Node, args: Sequence[Node]) -> Node:
        arg = args[0] if args[0].kind == DURATION else self._number(node, args[0])
        if node.op == "plus":
            return arg
        return node.of(node.op if arg.kind == FLOAT else f"int_{node.op}", arg, kind=arg.kind)

    def _of_float(self, node: Node, args: Sequence[Node]) -> Node:
        """A function of a float: log log1p exp sqrt."""
        return node.of(node.op, _converted(self._number(node, args[0]), FLOAT), kind=FLOAT)

    def _rounded(self, node: Node, args: Sequence[Node]) -> Node:
        """Whole numbers are rounded already; the digits are part of the operation."""
        arg, digits = self._number(node, args[0]), 0
        if len(args) > 1:
            digits = args[1].value
            if args[1].op != LITERAL or type(digits) is not int or not 0 <= digits <= _MOST_DIGITS:
                raise self.text.error_at(
                    args[1],
                    f"the digits of round are a whole number from 0 to {_MOST_DIGITS}",
                    "as in round(x, 2)",
                )
        return arg if arg.kind == INT else node.of(node.op, arg, kind=FLOAT, value=digits)

    def _extreme(self, node: Node, args: Sequence[Node]) -> Node:
        """The less or greater of two values."""
        both = self._unified(node, args, node.op)
        if both[0].kind not in ORDERED:
            raise self._unfit(node.op, _typed(args), "values that have an order")
        return node.of(node.op, *both, kind=both[0].kind)

    def _clipped(self, node: Node, args: Sequence[Node]) -> Node:
        value, low, high = self._unified(node, args, "clip")
        if value.kind not in ORDERED:
            raise self._unfit("clip", _typed(args), "values that have an order")
        at_least = node.of("max", value, low, kind=value.kind)
        return node.of("min", at_least, high, kind=value.kind)

    def _coalesced(self, node: Node, args: Sequence[Node]) -> Node:
        both = self._unified(node, args, "coalesce")
        return node.of(node.op, *both, kind=both[0].kind)

    def _null_asked(self, node: Node, args: Sequence[Node]) -> Node:
        arg = _typed_null(args[0], FLOAT) if args[0].kind == NULL else args[0]
        return node.of(node.op, arg, kind=BOOL)

    def _logical(self, node: Node, args: Sequence[Node]) -> Node:
        return node.of(node.op, *(self._condition(node, arg) for arg in args), kind=BOOL)

    def _chosen(self, node: Node, args: Sequence[Node]) -> Node:
        condition = self._condition(node, args[0])
        both = self._unified(node, args[1:], "if ... else")
        return node.of("if", condition, *both, kind=both[0].kind)

    def _compared(self, node: Node, args: Sequence[Node]) -> Node:
        nothing = next((arg for arg in args if arg.op == LITERAL and arg.value is None), None)
        if nothing is not None:
            raise self.text.error_at(node, "nothing equals null", "ask is_null(x)")
        left, right = self._unified(node, args, _word(node))
        fit = left.kind in ORDERED or (left.kind == BOOL and node.op in ("eq", "ne"))
        if not fit:
            takes = "single values" if node.op in ("eq", "ne") else "values that have an order"
            raise self._unfit(_word(node), _typed(args), takes)
        return node.of(node.op, left, right, kind=BOOL)

    def _contained(self, node: Node, args: Sequence[Node]) -> Node:
        """`x in (1, 2)`, or `x in a_list`."""
        value, items = args
        if items.op != ITEMS:
            if items.kind == TEXT:
                raise self.text.error_at(
                    node, "`in` looks into lists", "ask contains(text, part) of a text"
                )
            return self._in_list(node, items, value)
        value, *literals = self._unified(node, [value, *items.args], "in")
        if value.kind not in (*ORDERED, BOOL):
            raise self._unfit("in", args[0], "single values")
        choices = tuple(literal.value for literal in literals)
        return node.of("one_of", value, kind=BOOL, value=choices)

    def _items(self, node: Node, args: Sequence[Node]) -> Node:
        return node.of(ITEMS, *args, kind=NULL)

    def _contains(self, node: Node, args: Sequence[Node]) -> Node:
        """`contains(a_text, part)`, or `contains(a_list, x)`."""
        whole, part = args
        if element(whole.kind) is not None:
            return self._in_list(node, whole, part)
        for arg in args:
            if arg.kind not in (TEXT, NULL):
                raise self._unfit("contains", arg, "a text and a part of it, or a list and a value")
        return node.of("text_contains", *(_converted(arg, TEXT) for arg in args), kind=BOOL)

    def _in_list(self, node: Node, values: Node, value: Node) -> Node:
        inner = element(values.kind)
        if inner is None:
            raise self._unfit(_word(node), values, "a list")
        [value, _] = self._dates_read([value, replace(values, kind=inner)])
        if value.kind not in (inner, NULL) and (value.kind, inner) != (INT, FLOAT):
            raise self._mixed(node, _word(node), value, values)
        return node.of("list_contains", values, _converted(value, inner), kind=BOOL)

    def _length(self, node: Node, args: Sequence[Node]) -> Node:
        arg = _converted(args[0], TEXT) if args[0].kind == NULL else args[0]
        if arg.kind != TEXT and element(arg.kind) is None:
            raise self._unfit("length", arg, "a text or a list")
        return node.of("text_length" if arg.kind == TEXT else "list_length", arg, kind=INT)

    def _in_units(self, node: Node, arg: Node) -> Node:
        if arg.kind == NULL:
            arg = _typed_null(arg, DURATION)
        if arg.kind != DURATION:
            raise self._unfit(node.op, arg, "a duration, the difference of two instants")
        unit = node.of(LITERAL, kind=FLOAT, value=US[node.op])
        return node.of("div", arg.of("to_float", arg, kind=FLOAT), unit, kind=FLOAT)


def _converted(node: Node, kind: str) -> Node:
    """The node in another kind that holds its values; the node itself where it has that kind."""
    if node.kind == kind:
        return node
    if node.kind == NULL:
        return _typed_null(node, kind)
    if (node.kind, kind) == (INT, FLOAT):
        if node.op == LITERAL:
            return node.of(LITERAL, kind=FLOAT, value=float(node.value))
        return node.of("to_float", node, kind=FLOAT)
    assert (node.kind, kind) == (DATE, INSTANT_KIND), (node.kind, kind)
    return node.of("to_instant", node, kind=INSTANT_KIND)


def _typed(args: Sequence[Node]) -> Node:
    """The first argument that has a kind, which the others without one take."""
    return next((arg for arg in args if arg.kind != NULL), args[0])


def _operand(node: Node, arg: Node) -> Node:
    """The argument as it was written: of a function that was halved, whose halves have its whole place, an operand of that half."""
    while arg.args and (arg.op, arg.start, arg.end) == (node.op, node.start, node.end):
        arg = next((each for each in arg.args if each.kind == arg.kind), arg.args[0])
    return arg


def _typed_null(node: Node, kind: str) -> Node:
    return node.of(LITERAL, kind=kind) if node.kind == NULL else node


def _word(node: Node) -> str:
    """The operation as it is written."""
    return _WORDS.get(node.op, node.op)


_Rule = Callable[[_Checker, Node, Sequence[Node]], Node]
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("add", "sub"), _Checker._plus_minus),
    **dict.fromkeys(("mul", "floordiv", "mod"), _Checker._arithmetic),
    "div": _Checker._divided,
    **dict.fromkeys(("neg", "plus", "abs"), _Checker._negated),
    **dict.fromkeys(("log", "log1p", "exp", "sqrt"), _Checker._of_float),
    **dict.fromkeys(("round", "floor", "ceil"), _Checker._rounded),
    **dict.fromkeys(("min", "max"), _Checker._extreme),
    "clip": _Checker._clipped,
    "coalesce": _Checker._coalesced,
    "is_null": _Checker._null_asked,
    **dict.fromkeys(("and", "or", "not"), _Checker._logical),
    "if": _Checker._chosen,
    "in": _Checker._contained,
    ITEMS: _Checker._items,
    "contains": _Checker._contains,
    "length": _Checker._length,
}
