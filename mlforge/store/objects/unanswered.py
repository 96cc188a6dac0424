"""Whether an object for which no answer comes is alone in that: another one is read to know."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from mlforge.errors import StoreError
from mlforge.store.objects.objects import Blob, Entry, NoAnswer, NotReadable

T = TypeVar("T")
_MOST, _WITHIN_S = 10, 600.0
"""Objects without an answer in ten minutes; with more of them the bucket is unwell, and nobody goes on without them."""
_WITNESSES, _TRIED = 8, 3
_GLANCED_AT = 1000


class Unanswered:
    """The objects of a bucket for which no answer came lately, and some that were there, to ask for in comparison.

    read: the request for a whole object, None where it is gone.
    """

    def __init__(self, read: Callable[[str], Blob | None]) -> None:
        self._read = read
        self._failed_at: dict[str, float] = {}
        self._sizes: dict[str, int] = {}

    def note(self, entries: Iterable[tuple[str, int]]) -> None:
        """Remember the smallest of some objects, keys with sizes, as ones to ask for."""
        sizes = {**self._sizes, **{key: size for key, size in entries if size}}
        self._sizes = dict(sorted(sizes.items(), key=lambda entry: entry[1])[:_WITNESSES])

    def note_listed(self, entries: list[Entry]) -> None:
        """Remember the smallest objects of a listing, however long it is."""
        self.note((entry.key, entry.size) for entry in entries[:_GLANCED_AT])

    def answer(self, key: str, ask: Callable[[], T]) -> T:
        """The answer to a request for an object.

        Raises NotReadable where none comes for this object, not even the second time, while another is read in between; the
        request's own error where others fare no better, or too many fare as badly.
        """
        try:
            answer = ask()
        except NoAnswer as error:
            if not self._is_another_read(key):
                raise
            return self._second_answer(key, ask, error)
        self._failed_at.pop(key, None)
        return answer

    def _second_answer(self, key: str, ask: Callable[[], T], error: NoAnswer) -> T:
        """As `answer`, once others are known to be read; an object that failed twice before is not asked for again."""
        if key not in self._failed_lately():
            try:
                return ask()
            except NoAnswer as again:
                error = again
        self._failed_at[key] = time.monotonic()
        if len(self._failed_lately()) > _MOST:
            raise error
        raise NotReadable(f"{error}; other objects of the bucket are read") from error

    def _failed_lately(self) -> set[str]:
        since = time.monotonic() - _WITHIN_S
        return {key for key, at in list(self._failed_at.items()) if at >= since}

    def _is_another_read(self, key: str) -> bool:
        """Whether one of the remembered objects is read now, whole."""
        others = [other for other in list(self._sizes) if other not in {key, *self._failed_at}]
        for other in others[:_TRIED]:
            try:
                if self._read(other) is not None:
                    return True
            except NotReadable:
                pass
            except StoreError:
                return False
            self._sizes.pop(other, None)
        return False
