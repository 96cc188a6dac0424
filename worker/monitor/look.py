"""Readings of what a status tells: what cannot be read is noted, and the store is asked no more once nothing in it can be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from redis.exceptions import ConnectionError as NoConnection

from mlforge.errors import StoreUnavailable
from mlforge.store import Store
from worker.supervision import FAULTS

T = TypeVar("T")
STORE_AWAY = "its store cannot be read"


class _StoreAwayError(Exception):
    """Nothing in the store can be read."""


class StoreLook:
    """A store that may be away, as its bucket is gone, or refuses: each answer of it may take as long as the one before.

    problem: why nothing in it can be read; None while that is not known.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.problem: str | None = None

    def ask(self, read: Callable[[Store], T]) -> T:
        """The result of a reading of the store. Raises _StoreAwayError without asking once nothing can be read."""
        if self.problem is None:
            try:
                return read(self._store)
            except StoreUnavailable:
                self._ask_for_another()
                if self.problem is None:
                    raise
        raise _StoreAwayError

    def _ask_for_another(self) -> None:
        """Find out whether it is this reading alone that fails, by one that belongs to no feature."""
        try:
            self._store.renames()
        except StoreUnavailable as error:
            self.problem = str(error)
        except FAULTS:
            pass  # the store answers


@dataclass
class Look:
    """A reader that notes what cannot be read, and returns a default in its place."""

    problems: list[str] = field(default_factory=list)

    def at(self, what: str, read: Callable[[], T], default: T) -> T:
        """The result of `read`, or a default if it fails."""
        try:
            return read()
        except NoConnection:
            raise
        except _StoreAwayError:
            if STORE_AWAY not in self.problems:
                self.problems.append(STORE_AWAY)
        except FAULTS as error:
            kind = "" if str(error) else type(error).__name__
            self.problems.append(
                f"{what} cannot be read: {kind}{' '.join(str(error).split())[:500]}"
            )
        return default
