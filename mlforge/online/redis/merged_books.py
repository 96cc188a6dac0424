"""The books of several buckets as those of the feature: what holds for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mlforge.online.books import INCOMPLETE, OnlineBooks, Target


def merged(parts: Sequence[OnlineBooks | None]) -> OnlineBooks | None:
    """Books whose promise holds in every bucket; None where no bucket has any.

    Where a push is being finished, or a node came back with less than it had, buckets differ. Then the least
    that any is at is what is promised, and rows may be of all that any tells of. Without the books of a bucket nothing is promised.
    The owner is that of the last bucket, which is begun when all others are.
    """
    first = parts[0]
    if all(part is first or part == first for part in parts):
        return first
    known = [part for part in parts if part is not None]
    owner = known[-1].owner
    if len(known) < len(parts) or any(part.target is None for part in known):
        return OnlineBooks(target=None, pending=_told(known), owner=owner)
    least = min(known, key=_age)
    incomplete = any(part.evidence == INCOMPLETE for part in known)
    return replace(
        least,
        pending=_told(known, besides=least.target),
        renewed_at=min(part.renewed_at for part in known),
        evidence=INCOMPLETE if incomplete else least.evidence,
        owner=owner,
    )


def _told(known: Sequence[OnlineBooks], besides: Target | None = None) -> tuple[Target, ...]:
    """All targets that buckets tell of, done or pending, each once. besides: one that is not told of as done."""
    done = [part.target for part in known if part.target is not None and part.target != besides]
    pending = [target for part in known for target in part.pending]
    return tuple(dict.fromkeys([*done, *pending]))


def _age(books: OnlineBooks) -> tuple[tuple[int, int], int]:
    assert books.target is not None
    return books.target.fence, books.pushed_at
