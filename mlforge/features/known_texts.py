"""Texts of values, each described once, also where values lead back to themselves, or lie deeper than a stack reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

DEEPEST = 10_000
"""Values that lie deeper within others are not described."""
_STACK = 64
"""So many levels are described on the stack of one thread, well within Python's limit of recursion."""
_NOTHING: frozenset[int] = frozenset()
MOST_AGAIN = 50_000
"""So many values are described again for the items of a set, each of which is described as if it were the first."""
_CUT = -1
"""Stands in `_Known.outer` for a value that lay too deep; no id is negative."""


class TooDeepError(Exception):
    """A value lies deeper within others than is followed."""


class _Known(NamedTuple):
    """A value that was described, which is kept so that its id is no other's, and its text.

    outer: ids of the values around it to which the text leads back: within others it would be another text. height: how many levels lie
    within it. bound: how many sets were open where something in it was told by its place, as a cycle is; amid another item of the last of
    these it may be told otherwise.
    """

    value: object
    text: str
    outer: frozenset[int]
    height: int
    bound: int


class KnownTexts:
    """The texts of values by their identity. describe: makes the text of a value, asking for those within it."""

    def __init__(self, describe: Callable[[Any], str], shorten: Callable[[str], str]) -> None:
        self._describe, self._shorten = describe, shorten
        self._open: dict[int, int] = {}
        self._known: dict[int, _Known] = {}
        self._outer = _NOTHING
        self._reached = 0  # the depth of the deepest value that was described
        self._bound = 0  # of the value that is being described, as in `_Known`
        self._sets = self._again = 0

    def of(self, value: object) -> str:
        """The text of a value; inside a cycle, how far out it began. Raises TooDeepError."""
        key = id(value)
        if key in self._open:
            self._outer |= {key}
            self._bound = max(self._bound, self._sets)
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
        self._bound = max(self._bound, self._sets)

    def in_any_order(
        self, values: Iterable[Any], describe: Callable[[Any], str], shared: Iterable[Any]
    ) -> list[str] | None:
        """The texts of values that come in another order in each process, sorted.

        None where they lie too deep, or lead to one another in too many ways. Of each what is bound to its place is forgotten before
        the next one, so that no text depends on the values before it. describe: makes the text of one. shared: what lies in several values,
        in an order that is the same in each process: it is described once.
        """
        texts: list[str] = []
        begun, before = len(self._known), self._again
        around, self._outer = self._outer, _NOTHING
        sets, depth = self._sets, len(self._open)
        try:
            self._open[-1 - depth] = (
                depth  # no id: it is described as deep as it lies in the values
            )
            for value in shared:
                describe(value)
            del self._open[-1 - depth]
            self._sets += 1
            for value in values:
                known = len(self._known)
                texts.append(describe(value))
                self._again = min(self._again + self._forget(known), before + MOST_AGAIN)
                if self._again == before + MOST_AGAIN or _CUT in self._outer:
                    return None
        except BaseException:
            while len(self._known) > begun:
                self._known.popitem()
            raise
        finally:
            self._open.pop(-1 - depth, None)
            self._sets = sets
            self._outer |= around
        return sorted(texts)

    def _use_again(self, known: _Known) -> None:
        """Take over what the text of a value leads to, in another place than that which it was made for."""
        bottom = len(self._open) + known.height
        if bottom >= DEEPEST:
            raise TooDeepError
        self._reached = max(self._reached, bottom)
        self._outer |= known.outer & self._open.keys()
        self._bound = max(self._bound, known.bound)

    def _described(self, value: object) -> _Known:
        key, depth, around, reached = id(value), len(self._open), self._outer, self._reached
        bound_around = self._bound
        if depth == DEEPEST:
            raise TooDeepError
        self._open[key], self._outer, self._reached = depth, _NOTHING, depth
        self._bound = 0
        try:
            text = (
                self._on_a_stack(value) if depth and not depth % _STACK else self._describe(value)
            )
            outer, height, bound = self._outer, self._reached - depth, self._bound
        finally:
            del self._open[key]
            self._outer = around
            self._reached = max(self._reached, reached)
            self._bound = max(self._bound, bound_around)
        return _Known(value, self._shorten(text), outer - {key}, height, bound)

    def _on_a_stack(self, value: object) -> str:
        """The text of a value, made by a thread whose stack is empty."""
        with ThreadPoolExecutor(1, "mlforge-depth") as thread:
            return thread.submit(self._describe, value).result()

    def _forget(self, begun: int) -> int:
        """Forget the values after so many, those that were known first, that the next item of a set may tell otherwise; returns how many."""
        later = [self._known.popitem() for _ in range(len(self._known) - begun)]
        free = [(key, known) for key, known in reversed(later) if known.bound < self._sets]
        self._known.update(free)
        return len(later) - len(free)
