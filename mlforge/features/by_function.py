"""Values remembered of functions, with the hash of the code that they hold for."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")
Function = Callable[..., object]


class ByFunction(Generic[V]):
    """A value of each function, while the function lives and its code stays the same.

    A feature's function may be any object that can be called: one that is compared by value is known by its identity, and
    of one that cannot be referred to weakly nothing is remembered.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Function], str, V]] = {}

    def get(self, function: Function, code_hash: str) -> V | None:
        """The value that was remembered of this function with this code; None where there is none."""
        known = self._known.get(id(function))
        if known is None:
            return None
        reference, code, value = known
        return value if code == code_hash and reference() is function else None

    def remember(self, function: Function, code_hash: str, value: V) -> None:
        """Remember a value in the place of the one before."""
        key, known = id(function), self._known
        try:
            reference = weakref.ref(function, lambda _: known.pop(key, None))
        except TypeError:
            return
        known[key] = reference, code_hash, value
