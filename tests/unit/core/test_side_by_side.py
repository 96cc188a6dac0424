"""Work that threads do beside the caller."""

from __future__ import annotations

import threading

import pytest

from mlforge.core import clock
from mlforge.core.side_by_side import CORES, Behind, begin, each_ahead


def test_calls_go_on_beside_the_caller_one_after_the_other() -> None:
    behind, may_go, done = Behind(), threading.Event(), list[int]()

    def first() -> None:
        may_go.wait()
        done.append(1)

    behind.call(first)
    assert done == []
    may_go.set()
    behind.call(lambda: done.append(2))
    behind.wait()
    assert done == [1, 2]


def test_what_a_call_raises_is_raised_once_by_whoever_comes_next() -> None:
    behind, done = Behind(), list[int]()
    behind.call(lambda: done.remove(3))
    with pytest.raises(ValueError, match="not in list"):
        behind.call(lambda: done.append(1))
    behind.wait()
    assert done == []
    behind.call(lambda: done.remove(3))
    behind.settle()
    with pytest.raises(ValueError, match="not in list"):
        behind.wait()


@pytest.mark.parametrize(("ahead", "most"), [(None, CORES), (1, 1)])
def test_results_come_in_order_and_few_are_made_ahead(ahead: int | None, most: int) -> None:
    made: list[int] = []

    def square(number: int) -> int:
        made.append(number)
        return number * number

    results = each_ahead(square, range(50), ahead)
    assert next(results) == 0
    assert set(made) <= set(range(most + 1))
    assert list(results) == [number * number for number in range(1, 50)]
    assert sorted(made) == list(range(50))


def test_a_fault_of_one_ends_the_others_before_it_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(each_ahead(lambda number: 1 // number, range(-1, 3)))


def test_work_sees_the_callers_clock() -> None:
    with clock.fixed(7):
        assert begin(clock.now).result() == 7
        seen = list[int]()
        behind = Behind()
        behind.call(lambda: seen.append(clock.now()))
        behind.wait()
    assert seen == [7]
