"""A document's meaning as it was last read, for as long as its file stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from mlforge.store.local.paths import State, state_or_none

T = TypeVar("T")


class FileMemo(Generic[T]):
    """Remembers what the reading of a file gave until the file is replaced or written to."""

    def __init__(self) -> None:
        self._known: tuple[State, T] | None = None

    def of(self, path: Path | str, read: Callable[[], T | None]) -> T | None:
        """The meaning of the file as it is now, by `read` where it has changed; None where there is no such file."""
        state = state_or_none(path)
        if state is None:
            return None
        if self._known is None or self._known[0] != state:
            value = read()
            if value is None:  # it has gone since
                return None
            self._known = state, value
        return self._known[1]
