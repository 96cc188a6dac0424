"""`max_age`: how old values online may be."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from mlforge.core.values import Duration, to_iso
from mlforge.online import OnlineBooks


@dataclass(frozen=True, slots=True)
class MaxAge:
    """The instants between which values' age may count from, in UTC microseconds.

    An instant further ahead than the age is long was noted by a clock that was ahead: how old the values are is not known then.
    """

    oldest: int
    newest: int

    @classmethod
    def at(cls, now: int, age: str | timedelta | Duration) -> MaxAge:
        """Of values that are read at an instant. DefinitionError for what is no duration."""
        length = Duration.parse(age, "max_age").us
        return cls(now - length, now + length)

    def allows(self, earliest: int, latest: int) -> bool:
        """Whether values are young enough whose ages count from instants, the earliest and the latest of which are these."""
        return self.oldest <= earliest and latest <= self.newest

    def fault(self, books: OnlineBooks) -> str | None:
        """Why a feature's values are not acceptable, as the end of a sentence about it; None where they are."""
        counts_from = since(books)
        if self.allows(counts_from, counts_from):
            return None
        assert books.target is not None
        standing = "was pushed at" if books.target.as_of is None else "is served as of"
        if counts_from < self.oldest:
            why = f"older than max_age allows ({to_iso(self.oldest)})"
        else:
            why = "which a clock that was ahead noted, so that nobody can tell their age until it is pushed again"
        return f"{standing} {to_iso(counts_from)}, {why}"


def since(books: OnlineBooks) -> int:
    """The instant that the age of values counts from: their `as_of`, or the last push of an untimed feature."""
    assert books.target is not None
    return books.pushed_at if books.target.as_of is None else books.target.as_of
