"""Derived columns: named expressions over a row, each of which may use the columns before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mlforge.core.expression.advice import of_name
from mlforge.core.expression.checker import check, check_known
from mlforge.core.expression.kinds import (
    DTYPES,
    DURATION,
    INSTANT_KIND,
    described,
    kind_of,
    reader,
    writer,
)
from mlforge.core.expression.parser import T, parse
from mlforge.core.expression.row import compile_row
from mlforge.core.expression.tree import NAME, Node, Text

LANGUAGE = 1
"""The number of the language; a text of a greater one may mean something else."""


@dataclass(frozen=True, slots=True)
class Derived:
    """A derived column as it was written."""

    name: str
    expression: str


@dataclass(frozen=True, slots=True)
class TypedColumn:
    """A derived column with the kinds of all its parts."""

    name: str
    expression: str
    node: Node

    @property
    def dtype(self) -> str:
        """The column's dtype."""
        return DTYPES[self.node.kind]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names that it reads, `t` among them."""
        return self.node.names


def read(derived: Derived, feature: str) -> Node:
    """The tree of the column's text; ExpressionError where it does not parse."""
    return parse(derived.expression, _owner(feature, derived.name))


def columns_of_t(derived: Iterable[Derived], feature: str) -> tuple[str, ...]:
    """The derived columns that depend on the instant of evaluation, also through earlier ones."""
    moving = {T}
    for column in derived:
        if not moving.isdisjoint(read(column, feature).names):
            moving.add(column.name)
    return tuple(column.name for column in derived if column.name in moving)


def check_names(
    derived: Sequence[Derived], feature: str, known: Sequence[str], timestamp: str | None
) -> None:
    """Refuse names of no column; known: the columns before the derived ones.

    Raises ExpressionError, which names near columns.
    """
    names = list(known)
    for column in derived:
        text = Text.of(_owner(feature, column.name), column.expression)
        for node in read(column, feature).walk():
            if node.op != NAME or node.value in names or (node.value == T and timestamp):
                continue
            if node.value == timestamp:
                raise text.error_at(
                    node, f"{timestamp!r} is the events' time, not a column of a value", "write t"
                )
            if node.value == T:
                raise _no_instant(text, node)
            _check_order(text, node, column, derived)
            raise text.error_at(node, f"no column {node.value!r}", of_name(node.value, names))
        names.append(column.name)


def check_kinds(derived: Sequence[Derived], feature: str, kinds: Mapping[str, str]) -> None:
    """Refuse what is wrong whatever the events are; kinds: those of the names that have one before there are events.

    Raises ExpressionError for kinds that do not go together, a value that no column holds, and `t` where it has no kind.
    """
    known = dict(kinds)
    for column in derived:
        tree = read(column, feature)
        text = Text.of(_owner(feature, column.name), column.expression)
        for node in tree.walk():
            if T not in known and node.op == NAME and node.value == T:
                raise _no_instant(text, node)
        checked = check_known(tree, text, known)
        known.pop(column.name, None)
        if checked is not None:
            known[column.name] = _storable(checked, text).kind


@lru_cache(maxsize=256)
def typed(
    derived: tuple[Derived, ...], feature: str, dtypes: tuple[tuple[str, str], ...], timed: bool
) -> tuple[TypedColumn, ...]:
    """The columns with kinds; dtypes: names and dtypes of the columns before them; timed: whether `t` may be used.

    Raises ExpressionError for an unknown name, kinds that do not go together, or a value that no column holds.
    """
    kinds = {name: kind_of(dtype) for name, dtype in dtypes}
    if timed:
        kinds[T] = INSTANT_KIND
    columns: list[TypedColumn] = []
    for column in derived:
        text, tree = Text.of(_owner(feature, column.name), column.expression), read(column, feature)
        for named in tree.walk():
            if named.op == NAME and named.value not in kinds:
                _check_order(text, named, column, derived)
        node = _storable(check(tree, text, kinds), text)
        kinds[column.name] = node.kind
        columns.append(TypedColumn(column.name, column.expression, node))
    return tuple(columns)


def _storable(node: Node, text: Text) -> Node:
    """The column's tree; ExpressionError for a value that no column holds."""
    if node.kind in DTYPES:
        return node
    works = (
        "take seconds(...), hours(...) or days(...) of it"
        if node.kind == DURATION
        else "derive a number, a text, true or false, an instant or a date"
    )
    raise text.error_at(node, f"a column cannot be {described(node.kind)}", works)


class RowDerivation:
    """Some derived columns as a function of a row."""

    def __init__(
        self, columns: Sequence[TypedColumn], dtypes: Mapping[str, str], only: Iterable[str]
    ) -> None:
        """columns: all of a feature's derived columns, in order. dtypes: those of the columns before them.

        only: the names of the columns to compute; the others are read from the row, as far as they are used.
        """
        chosen = set(only)
        before = {**dtypes, **{c.name: c.dtype for c in columns if c.name not in chosen}}
        computed = [column for column in columns if column.name in chosen]
        used = {name for column in computed for name in column.inputs}
        self._inputs = used & before.keys()
        self._readers = [
            (name, reader(kind_of(dtype))) for name, dtype in before.items() if name in used
        ]
        self._steps: list[tuple[str, Callable[[Mapping[str, Any]], Any], Callable[[Any], Any]]] = [
            (column.name, compile_row(column.node), writer(column.node.kind)) for column in computed
        ]

    def reads(self, names: Iterable[str]) -> bool:
        """Whether it reads any of these names."""
        return not self._inputs.isdisjoint(names)

    def __call__(self, row: Mapping[str, Any], t: int | None) -> dict[str, Any]:
        """The columns' values for a row as of `t`, in UTC microseconds."""
        values: dict[str, Any] = {name: convert(row[name]) for name, convert in self._readers}
        values[T] = t
        answers: dict[str, Any] = {}
        for name, evaluate, write in self._steps:
            values[name] = evaluate(values)
            answers[name] = write(values[name])
        return answers


def _owner(feature: str, column: str) -> str:
    return f"{feature}: derive {column!r}"


def _check_order(text: Text, node: Node, column: Derived, derived: Sequence[Derived]) -> None:
    """Refuse a name that no column before this one has, if it is the column's own or that of a later one."""
    if node.value == column.name:
        works = "name a column that there is before it"
        raise text.error_at(node, f"{node.value!r} is computed from itself", works)
    if any(node.value == other.name for other in derived):
        works = f"put {node.value!r} before {column.name!r} in derive="
        raise text.error_at(node, f"{node.value!r} is derived after this column", works)


def _no_instant(text: Text, node: Node) -> Exception:
    return text.error_at(
        node,
        "a feature without timestamp= has no instant t",
        "give the feature a timestamp, or leave t out",
    )
