"""Small reads that come together on an event loop, asked as one: the books of a feature are fetched once for all of them."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from mlforge.errors import MlforgeError, OnlineUnavailable
from mlforge.online.requests import Fetched, RowRequest

Requests: TypeAlias = Sequence[RowRequest]
Fetch: TypeAlias = Callable[[Requests], Awaitable[list[Fetched]]]
_Places: TypeAlias = list[tuple[int, int]]
"""For each request of a read: the request that it is a part of, and where its rows begin there."""
_ALONE = 64
"""From how many rows on a read is asked alone: its books are a small part of it."""
_AT_ONCE = 512
"""The most rows that are asked as one: more would keep other callers of the server waiting."""


class _Apart(Exception):
    """Reads that were asked as one are to be asked one by one."""


@dataclass(slots=True, eq=False)
class _Batch:
    """Reads of one turn of an event loop. The first of them asks for all; the others wait for their futures."""

    loop: asyncio.AbstractEventLoop
    reads: list[Requests]
    size: int
    futures: list[asyncio.Future[list[Fetched]]] = field(default_factory=list)

    def takes(self, loop: asyncio.AbstractEventLoop, size: int) -> bool:
        """Whether a read of this size may join."""
        return self.loop is loop and self.size + size <= _AT_ONCE

    def join(self, requests: Requests, size: int) -> asyncio.Future[list[Fetched]]:
        """The share of a read that joins."""
        future: asyncio.Future[list[Fetched]] = self.loop.create_future()
        self.reads.append(requests)
        self.futures.append(future)
        self.size += size
        return future

    def fail(self, error: Exception) -> None:
        """Raise an error at all who have joined."""
        for future in self.futures:
            if not future.done():
                future.set_exception(copy.copy(error))

    def hand_out(self, shares: Sequence[list[Fetched]]) -> None:
        """Give all who have joined their shares."""
        for future, share in zip(self.futures, shares, strict=True):
            if not future.done():  # else its caller was cancelled
                future.set_result(share)


class Gathering:
    """Reads by `fetch`, of which small ones that are asked in one turn of an event loop go out as one.

    A read that finds no other under way goes out at once.
    """

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._open: _Batch | None = None
        self._under_way = 0

    async def fetched(self, requests: Requests) -> list[Fetched]:
        """The books and rows of one instant, as `fetch` gives them; raises as it does."""
        self._under_way += 1
        try:
            size = sum([len(request.hashes) + 1 for request in requests])
            if size > _ALONE or self._under_way == 1:
                return await self._fetch(requests)
            loop, batch = asyncio.get_running_loop(), self._open
            if batch is None or not batch.takes(loop, size):
                batch = self._open = _Batch(loop, [requests], size)
                return await self._asked_for_all(batch)
            try:
                return await batch.join(requests, size)
            except _Apart:
                return await self._fetch(requests)
        finally:
            self._under_way -= 1

    async def _asked_for_all(self, batch: _Batch) -> list[Fetched]:
        """The share of the read that opened the batch."""
        try:
            await asyncio.sleep(0)  # others of this turn join
            self._close(batch)
            asked, places = _merged(batch.reads)
            fetched = await self._fetch(asked)
        except OnlineUnavailable as error:
            batch.fail(error)
            raise
        except MlforgeError:  # of one feature, or a name that is none, which not all of them read
            batch.fail(_Apart())
            return await self._fetch(batch.reads[0])
        except BaseException:  # this read was cancelled, the others were not
            self._close(batch)
            batch.fail(_Apart())
            raise
        own, *others = (_share(*read, fetched) for read in zip(batch.reads, places, strict=True))
        batch.hand_out(others)
        return own

    def _close(self, batch: _Batch) -> None:
        if self._open is batch:
            self._open = None


def _merged(reads: Sequence[Requests]) -> tuple[list[RowRequest], list[_Places]]:
    """A request for each feature, and the places in them of each read."""
    hashes: dict[str, list[str]] = {}
    numbers: dict[str, int] = {}
    places = []
    for requests in reads:
        of_read = []
        for request in requests:
            rows = hashes.setdefault(request.feature, [])
            number = numbers.setdefault(request.feature, len(numbers))
            of_read.append((number, len(rows)))
            rows += request.hashes
        places.append(of_read)
    return [RowRequest(feature, rows) for feature, rows in hashes.items()], places


def _share(requests: Requests, places: _Places, fetched: Sequence[Fetched]) -> list[Fetched]:
    """A read's part of what was fetched for all."""
    share: list[Fetched] = []
    for request, (number, first) in zip(requests, places, strict=True):
        books, rows = fetched[number]
        share.append((books, rows[first : first + len(request.hashes)]))
    return share
