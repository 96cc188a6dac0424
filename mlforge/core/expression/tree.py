"""The tree of an expression, and the error that points into its text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from mlforge.errors import ExpressionError

LITERAL, NAME, ITEMS = "literal", "name", "items"
LONGEST_TEXT, MOST_NODES, DEEPEST = 4_000, 1_000, 100
_WIDEST = 100  # characters of a text in a message


@dataclass(frozen=True, slots=True)
class Node:
    """An operation on further nodes; a literal, a name, or the items on the right of `in`.

    value: the literal's value, the name, or the digits of a rounding. start, end: the characters of the text
    that it was read from. kind: the kind of its value, empty until it is checked.
    """

    op: str
    args: tuple[Node, ...] = ()
    value: Any = None
    start: int = 0
    end: int = 0
    kind: str = ""

    def of(self, op: str, *args: Node, kind: str = "", value: Any = None) -> Node:
        """Another node in this node's place."""
        return replace(self, op=op, args=args, kind=kind, value=value)

    def walk(self) -> Iterator[Node]:
        """The node and all below it, each before its own."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack += reversed(node.args)

    @property
    def names(self) -> tuple[str, ...]:
        """The names in the tree, each once, in the order of the text."""
        return tuple(dict.fromkeys(node.value for node in self.walk() if node.op == NAME))


@dataclass(frozen=True, slots=True)
class Text:
    """An expression's text on one line, and whose it is."""

    owner: str
    line: str

    @classmethod
    def of(cls, owner: str, text: str) -> Text:
        """The text with its line breaks and tabs as spaces, so that places in it are columns."""
        return cls(owner, "".join(" " if c in "\t\r\n\f\v" else c for c in text))

    def error(self, start: int, end: int, problem: str, works: str = "") -> ExpressionError:
        """The error of a place in the text, with a line of carets below it."""
        first = 0 if len(self.line) <= _WIDEST else max(0, start - _WIDEST // 4)
        shown = self.line[first : first + _WIDEST]
        carets = " " * (start - first) + "^" * max(1, min(end - first, len(shown)) - start + first)
        advice = f"; {works}" if works else ""
        lines = f"{problem}, at character {start + 1}{advice}\n    {shown}\n    {carets}"
        readable = lines.encode(errors="backslashreplace").decode()
        return ExpressionError(f"{self.owner}: {readable}")

    def error_at(self, node: Node, problem: str, works: str = "") -> ExpressionError:
        """The error of a node."""
        return self.error(node.start, node.end, problem, works)
