"""Texts of values, each described once, also where values lead back to themselves, or lie deeper than a stack reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

DEEPEST = 10_000
"""Values that lie deeper within others are not described."""
_STACK = 64
"""So many levels are described on the stack of one thread, well within Python's limit of recursion."""
_NOTHING: frozenset[int] = frozenset()
_CUT = -1
"""Stands in `_Known.outer` for a value that lay too deep; no id is negative."""


class TooDeepError(Exception):
    """A value lies deeper within others than is followed."""


class _Known(NamedTuple):
    """A value that was described, which is kept so that its id is no other's, and its text.

    outer: ids of the values around it to which the text leads back: within others it would be another text. height: how many levels lie
    within it. number: how many values were known before.
    """

    value: object
    text: str
    outer: frozenset[int]
    height: int
    number: int


@dataclass(slots=True)
class _Unordered:
    """A container that is being described whose items come in another order in each process.

    begun: how many values were known before. depends: whether texts of its items depend on that order.
    """

    begun: int
    depends: bool = False


class KnownTexts:
    """The texts of values by their identity. describe: makes the text of a value, asking for those within it."""

    def __init__(self, describe: Callable[[Any], str], shorten: Callable[[str], str]) -> None:
        self._describe, self._shorten = describe, shorten
        self._open: dict[int, int] = {}
        self._known: dict[int, _Known] = {}
        self._outer = _NOTHING
        self._reached = 0  # the depth of the deepest value that was described
        self._unordered: list[_Unordered] = []

    def of(self, value: object) -> str:
        """The text of a value; inside a cycle, how far out it began. Raises TooDeepError."""
        key = id(value)
        if key in self._open:
            self._outer |= {key}
            return f"cycle {self._open[key]}"
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._described(value)
            if known.outer:
                self._outer |= known.outer
        else:
            self._use_again(known)
        return known.text

    def cut(self) -> None:
        """Note that a value within those that are being described lies too deep for its text."""
        self._outer |= {_CUT}

    def in_any_order(self, texts: Iterable[str]) -> list[str] | None:
        """Texts that are made in an order that differs between processes, sorted.

        None where they depend on it: then the items lead to one another in cycles. What was described of them is forgotten.
        """
        container = _Unordered(len(self._known))
        self._unordered.append(container)
        try:
            made = sorted(texts)
        except BaseException:
            self._forget(container.begun)
            raise
        finally:
            self._unordered.pop()
        if not container.depends:
            return made
        self._forget(container.begun)
        return None

    def _use_again(self, known: _Known) -> None:
        """Take over what the text of a value leads to, in another place than that which it was made for."""
        bottom = len(self._open) + known.height
        if bottom >= DEEPEST:
            self._note_use_elsewhere(known)
            raise TooDeepError
        self._reached = max(self._reached, bottom)
        if known.outer:
            around = known.outer & self._open.keys()
            if len(around) < len(known.outer):
                self._note_use_elsewhere(known)
            self._outer |= around

    def _described(self, value: object) -> _Known:
        key, depth, around, reached = id(value), len(self._open), self._outer, self._reached
        if depth == DEEPEST:
            raise TooDeepError
        self._open[key], self._outer, self._reached = depth, _NOTHING, depth
        try:
            text = (
                self._on_a_stack(value) if depth and not depth % _STACK else self._describe(value)
            )
            outer, height = self._outer, self._reached - depth
        finally:
            del self._open[key]
            self._outer = around
            self._reached = max(self._reached, reached)
        if key in outer:
            outer -= {key}
        return _Known(value, self._shorten(text), outer, height, len(self._known))

    def _on_a_stack(self, value: object) -> str:
        """The text of a value, made by a thread whose stack is empty."""
        with ThreadPoolExecutor(1, "mlforge-depth") as thread:
            return thread.submit(self._describe, value).result()

    def _note_use_elsewhere(self, known: _Known) -> None:
        """Note that a text is used away from where it was made: which place that was may depend on the order of items."""
        for container in reversed(self._unordered):
            if known.number >= container.begun:
                container.depends = True
                return

    def _forget(self, begun: int) -> None:
        """Forget all values but so many, those that were known first."""
        while len(self._known) > begun:
            self._known.popitem()
