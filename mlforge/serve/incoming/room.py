"""The room for bodies that are being taken, whose sum has a bound: many large ones at once would take all memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlforge.serve.http import Message, Receive
from mlforge.serve.problems import Refused


class Room:
    """Bytes of bodies in hand, at most so many."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0

    @contextmanager
    def counted(self, receive: Receive) -> Iterator[Receive]:
        """A receive that counts a body's bytes as they come, until the block ends; it raises Refused, 503, where there is no room for them."""
        own = 0

        async def counting() -> Message:
            nonlocal own
            message = await receive()
            size = len(message.get("body", b""))
            own, self._held = own + size, self._held + size
            if self._held > self._most:
                raise Refused(
                    503,
                    "too_many_uploads",
                    f"more than {self._most:,} bytes of rows are being taken at this moment; send these again",
                )
            return message

        try:
            yield counting
        finally:
            self._held -= own
