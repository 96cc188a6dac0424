"""Reads that are asked as one: each gets its own rows, and what ends one ends no other."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from mlforge.errors import DefinitionError, OnlineError, OnlineUnavailable
from mlforge.online import RowRequest
from mlforge.online.redis.gathering import Gathering
from mlforge.online.requests import Fetched

Asked = list[list[tuple[str, tuple[str, ...]]]]


class Store:
    """Rows that are their own hashes; each fetch waits for a turn, or fails as it is told."""

    def __init__(self) -> None:
        self.asked: Asked = []
        self.failures: dict[str, Exception] = {}
        self.go = asyncio.Event()
        self.go.set()

    async def fetch(self, requests: Sequence[RowRequest]) -> list[Fetched]:
        self.asked.append([(request.feature, tuple(request.hashes)) for request in requests])
        await asyncio.sleep(0)
        await self.go.wait()
        for request in requests:
            if request.feature in self.failures:
                raise copy.copy(self.failures[request.feature])
        return [(None, [f"{r.feature} {hash}" for hash in r.hashes]) for r in requests]


def read(**rows: Sequence[str]) -> list[RowRequest]:
    return [RowRequest(feature, list(hashes)) for feature, hashes in rows.items()]


def run(work: Callable[[Store, Gathering], Awaitable[Any]]) -> Any:
    async def begin() -> Any:
        store = Store()
        gathering = Gathering(store.fetch)
        outcome = await work(store, gathering)
        assert gathering._under_way == 0
        assert gathering._open is None
        return outcome

    return asyncio.run(begin())


def rows_of(answers: Sequence[Fetched]) -> list[list[Any]]:
    return [list(rows) for _, rows in answers]


def test_reads_of_one_turn_go_out_as_one_and_each_gets_its_own_rows() -> None:
    async def work(store: Store, gathering: Gathering) -> None:
        reads = [
            read(a="1"),
            read(a="23", b="4"),
            read(b="45"),
            read(c=""),
            [*read(a="6"), *read(a="67"), *read(b="")],
        ]
        answers = await asyncio.gather(*map(gathering.fetched, reads))
        for requests, fetched in zip(reads, answers, strict=True):
            assert rows_of(fetched) == [[f"{r.feature} {h}" for h in r.hashes] for r in requests]
        first, merged = store.asked
        assert first == [("a", ("1",))], "it finds no other under way"
        assert merged == [("a", tuple("23667")), ("b", tuple("445")), ("c", ())]

    run(work)


def test_a_read_alone_and_a_large_one_go_out_by_themselves_at_once() -> None:
    async def work(store: Store, gathering: Gathering) -> None:
        for _ in range(3):
            await gathering.fetched(read(a="1"))
        assert len(store.asked) == 3
        large = read(a=[str(number) for number in range(100)])
        await asyncio.gather(*(gathering.fetched(each) for each in (read(a="1"), large, large)))
        assert len(store.asked) == 6

    run(work)


def test_no_more_than_so_many_rows_are_asked_as_one() -> None:
    async def work(store: Store, gathering: Gathering) -> None:
        reads = [read(a=[f"{number}.{row}" for row in range(50)]) for number in range(30)]
        answers = await asyncio.gather(*map(gathering.fetched, reads))
        assert [rows_of(of)[0][7] for of in answers] == [f"a {number}.7" for number in range(30)]
        sizes = [sum(len(rows) for _, rows in asked) for asked in store.asked]
        assert max(sizes) == 500
        assert sum(sizes) == 30 * 50

    run(work)


@pytest.mark.parametrize("cancelled", [1, 2], ids=["who asks for all", "who has joined"])
@pytest.mark.parametrize("when", ["joining", "asking"])
def test_a_read_that_is_cancelled_ends_no_other(cancelled: int, when: str) -> None:
    async def work(store: Store, gathering: Gathering) -> None:
        store.go.clear()
        tasks = [asyncio.create_task(gathering.fetched(read(a=str(n)))) for n in range(4)]
        await asyncio.sleep(0)
        if when == "asking":
            while len(store.asked) < 2:
                await asyncio.sleep(0)
        tasks[cancelled].cancel()
        store.go.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers.pop(cancelled), asyncio.CancelledError)
        expected = [[[f"a {n}"]] for n in range(4) if n != cancelled]
        assert [rows_of(of) for of in answers if not isinstance(of, BaseException)] == expected

    run(work)


@pytest.mark.parametrize("error", [OnlineError("damaged"), DefinitionError("no name")], ids=repr)
@pytest.mark.parametrize("asks", [True, False], ids=["who asks for all", "who has joined"])
def test_what_is_wrong_with_one_feature_ends_reads_of_it_alone(
    error: Exception, asks: bool
) -> None:
    async def work(store: Store, gathering: Gathering) -> None:
        store.failures["bad"] = error
        first, second = (read(bad="1"), read(a="2")) if asks else (read(a="2"), read(bad="1"))
        reads = [read(a="0"), first, second, read(a="3", bad="4"), read(a="5")]
        answers = await asyncio.gather(*map(gathering.fetched, reads), return_exceptions=True)
        assert [isinstance(answer, type(error)) for answer in answers] == [
            any(request.feature == "bad" for request in requests) for requests in reads
        ]

    run(work)


def test_a_server_that_is_away_is_asked_once_for_all_and_told_to_each() -> None:
    async def work(store: Store, gathering: Gathering) -> None:
        store.failures["a"] = OnlineUnavailable("away")
        reads = [read(a=str(number)) for number in range(6)]
        answers = await asyncio.gather(*map(gathering.fetched, reads), return_exceptions=True)
        assert all(isinstance(answer, OnlineUnavailable) for answer in answers)
        assert len(store.asked) == 2
        assert len(set(map(id, answers))) == 6, "each has an error of its own"

    run(work)


def test_reads_of_another_loop_are_not_joined() -> None:
    store = Store()
    gathering = Gathering(store.fetch)
    gathering._under_way = 1  # as of a loop in another thread
    for number in range(3):
        store.go = asyncio.Event()
        store.go.set()

        async def both(number: int) -> list[Any]:
            reads = (gathering.fetched(read(a=f"{number}{row}")) for row in range(2))
            return [rows_of(of) for of in await asyncio.gather(*reads)]

        expected = [[[f"a {digit}" for digit in f"{number}{row}"]] for row in range(2)]
        assert asyncio.run(both(number)) == expected
    assert len(store.asked) == 3
