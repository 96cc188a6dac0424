"""Differences of long lists that mostly share their objects: compared by identity, without looking into the items."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Sequence
from itertools import chain, compress, count, filterfalse
from typing import TypeVar

T = TypeVar("T")


def alike(some: Iterable[object], other: Iterable[object]) -> int:
    """The number of very same things that both begin with."""
    differ = chain(map(operator.is_not, some, other), (True,))
    return next(compress(count(), differ))


def lacking(some: Iterable[T], other: Collection[T]) -> list[T]:
    """Items that are not in a collection, in their order."""
    return list(filterfalse(other.__contains__, some))


def differing(old: Sequence[T], new: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    """Both without the very same things that they begin and end with."""
    head = alike(old, new)
    tail = min(alike(reversed(old), reversed(new)), min(len(old), len(new)) - head)
    return old[head : len(old) - tail], new[head : len(new) - tail]
