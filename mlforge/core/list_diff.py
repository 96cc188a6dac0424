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

_FAR = 2
"""So many times all known pairs are gone through, which reaches the lists of the version before by those that both were made from."""

_heads: deque[tuple[Sequence[object], Sequence[object], int]] = deque(maxlen=12)
"""Pairs of long tuples, and what both begin with: a refresh compares those of two versions again and again, which mostly were made from one list."""


def alike(some: Sequence[object], other: Sequence[object]) -> int:
    """The number of things that both begin with and that are the very same, or lie in a stretch that is equal."""
    if len(some) < _BLOCK or not (isinstance(some, tuple) and isinstance(other, tuple)):
        return _alike(some, other)
    known = _known_head(some, other)
    same = _alike(some, other, known)
    if same > known:
        _heads.append((some, other, same))
    return same


def appended(some: tuple[T, ...], more: tuple[T, ...]) -> tuple[T, ...]:
    """Both, one behind the other; `alike` need not look for what the first and the result begin with."""
    together = some + more
    if len(some) >= _BLOCK:
        _heads.append((some, together, len(some)))
    return together


def _known_head(some: Sequence[object], other: Sequence[object]) -> int:
    """A number of things that both begin with, as it follows from known pairs that lead from one to the other."""
    pairs, known = tuple(_heads), {id(some): len(some)}
    for _ in range(_FAR):
        for one, two, same in (*pairs, *((b, a, same) for a, b, same in pairs)):
            reached = min(known.get(id(one), 0), same)
            known[id(two)] = max(known.get(id(two), 0), reached)
    return known.get(id(other), 0)


def _alike(some: Sequence[object], other: Sequence[object], place: int = 0) -> int:
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
