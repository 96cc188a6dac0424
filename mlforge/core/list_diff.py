"""Differences of long lists that mostly share their objects: compared by identity, without looking into the items."""

from __future__ import annotations

import operator
from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence
from itertools import chain, compress, count, filterfalse
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from mlforge.core.manifest import Partial

T = TypeVar("T")
_BLOCK = (
    4_096  # items of a slice: comparing slices takes a tenth of the time that comparing items takes
)

_last: deque[tuple[Sequence[object], Sequence[object], int]] = deque(maxlen=3)
"""Long tuples that were compared last, and what both begin with: a refresh compares those of two versions again and again."""


def alike(some: Sequence[object], other: Sequence[object]) -> int:
    """The number of things that both begin with and that are the very same, or lie in a stretch that is equal."""
    if len(some) < _BLOCK or not (isinstance(some, tuple) and isinstance(other, tuple)):
        return _alike(some, other)
    for known in tuple(_last):
        if known[0] is some and known[1] is other:
            return known[2]
    same = _alike(some, other)
    _last.append((some, other, same))
    return same


def _alike(some: Sequence[object], other: Sequence[object]) -> int:
    place = 0
    while block := some[place : place + _BLOCK]:
        opposite = other[place : place + _BLOCK]
        if block != opposite:
            differ = chain(map(operator.is_not, block, opposite), (True,))
            same = next(compress(count(), differ))
            if same < len(block):
                return place + same
        place += len(block)
    return place


def lacking(some: Iterable[T], other: Collection[T]) -> list[T]:
    """Items that are not in a collection, in their order."""
    return list(filterfalse(other.__contains__, some))


def differing(old: Sequence[T], new: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    """Both without the very same things that they begin and end with."""
    head = alike(old, new)
    old, new = old[head:], new[head:]
    tail = _alike(old[::-1], new[::-1]) if old and new else 0
    return old[: len(old) - tail], new[: len(new) - tail]


def replaced_partials(
    old: Sequence[Partial], new: Sequence[Partial]
) -> tuple[list[Partial], list[Partial]]:
    """The partials removed and the partials added; partials in both versions cancel out."""
    old, new = differing(old, new)
    before = Counter([partial.hash for partial in old])
    after = Counter([partial.hash for partial in new])
    differ = {key for key, _ in before.items() ^ after.items()}
    known = {partial.hash: partial for partial in (*old, *new) if partial.hash in differ}
    more = {key: after[key] - before[key] for key in known}
    return (
        [known[key] for key, count in more.items() for _ in range(-count)],
        [known[key] for key, count in more.items() for _ in range(count)],
    )
