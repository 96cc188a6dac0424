"""Writes of many rows behind a fence: transactions side by side, each in a lane of its own.

A transaction holds the condition that the fence in its lane stands; so a push that was overtaken writes nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from mlforge.errors import OnlineUnavailable
from mlforge.online.dynamodb.access import Access
from mlforge.online.dynamodb.client import Unmet
from mlforge.online.dynamodb.items import IN_TRANSACTION, LANES, Item, in_transaction

_BYTES = 3_000_000
"""Of texts in a transaction, which may have 4 MB in all."""
_TRIES = 5


def fenced_writes(
    access: Access,
    feature: str,
    fence: str,
    writes: Iterable[tuple[str, Item]],
    check: Callable[[], None],
) -> int:
    """The number of writes done. check: raises where the fence does not stand, once a transaction found that it does not."""

    def transact(lane: int, part: list[tuple[str, Item]]) -> int:
        condition = access.items.check_fence(feature, lane, fence)
        request = [condition, *in_transaction(part, access.items.table)]
        for attempt in range(_TRIES):
            try:
                access.write("transact_write_items", TransactItems=request)
            except Unmet:
                check()
                if attempt == _TRIES - 1:
                    raise OnlineUnavailable(
                        f"{feature}: the fence of its push comes and goes in {access.table}; push again"
                    ) from None
            else:
                break
        return len(part)

    return _side_by_side(transact, _parts(writes))


def _side_by_side(
    work: Callable[[int, list[tuple[str, Item]]], int],
    parts: Iterator[list[tuple[str, Item]]],
) -> int:
    """The sum of what work returns of the parts, as many at a time as there are lanes; the first error ends it."""
    first = next(parts, None)
    if first is None:
        return 0
    second = next(parts, None)
    if second is None:
        return work(0, first)
    total, free = 0, list(range(LANES))
    under_way: dict[Future[int], int] = {}
    with ThreadPoolExecutor(LANES, "dynamodb") as pool:
        part: list[tuple[str, Item]] | None
        for part in (first, second):
            lane = free.pop()
            under_way[pool.submit(work, lane, part)] = lane
        while under_way:
            part = next(parts, None) if free else None
            if part is not None:
                lane = free.pop()
                under_way[pool.submit(work, lane, part)] = lane
                continue
            done, _ = wait(under_way, return_when=FIRST_COMPLETED)
            for future in done:
                free.append(under_way.pop(future))
                total += future.result()
    return total


def _parts(writes: Iterable[tuple[str, Item]]) -> Iterator[list[tuple[str, Item]]]:
    """The writes, as many at a time as a transaction takes beside its condition."""
    part: list[tuple[str, Item]] = []
    size = 0
    for kind, value in writes:
        length = len(value["json"]["S"].encode()) if "json" in value else 0
        if part and (len(part) == IN_TRANSACTION - 1 or size + length > _BYTES):
            yield part
            part, size = [], 0
        part.append((kind, value))
        size += length
    if part:
        yield part
