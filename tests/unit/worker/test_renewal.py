"""A lease is renewed while its job is at work, by one thread of the process."""

from __future__ import annotations

import os
import threading

import pytest
from polars.exceptions import PanicException
from redis.exceptions import ConnectionError as Away

from tests.support.workers import eventually
from worker.queue import renewal
from worker.queue.renewal import Renewer
from worker.state.work_queue import Lease

FIRST, SECOND = (Lease(name, f"job of {name}", 1, None, "drop") for name in ("first", "second"))


class Renewals:
    """A work queue whose first renewals fail; `renewed` are the features whose leases were renewed since."""

    def __init__(self, *faults: BaseException, is_held: bool = True) -> None:
        self.faults, self.is_held = list(faults), is_held
        self.renewed: list[str] = []

    def renew(self, feature: str, job: str) -> bool:
        assert job == f"job of {feature}"
        if self.faults:
            raise self.faults.pop()
        self.renewed.append(feature)
        return self.is_held


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "RENEW_S", 0.001)


@pytest.mark.parametrize(
    "fault",
    [Away("gone"), OSError("no thread"), ValueError("no number"), PanicException("a panic")],
    ids=lambda fault: type(fault).__name__,
)
def test_a_lease_is_renewed_again_after_any_fault(fault: BaseException) -> None:
    work_queue = Renewals(fault, fault)
    with renewal.renewing(work_queue, FIRST):
        eventually(lambda: work_queue.renewed)


def test_leases_one_after_the_other_are_renewed_by_one_thread() -> None:
    renewer, before = Renewer(), threading.active_count()
    work_queue = Renewals()
    for lease in (FIRST, SECOND, FIRST):
        with renewer.renewing(work_queue, lease):
            eventually(lambda lease=lease: work_queue.renewed[-1:] == [lease.feature])
    assert threading.active_count() == before + 1


def test_a_lease_that_was_given_back_is_renewed_no_more() -> None:
    renewer, given_back, other = Renewer(), Renewals(), Renewals()
    with renewer.renewing(given_back, FIRST):
        eventually(lambda: given_back.renewed)
    with renewer.renewing(other, SECOND):
        eventually(lambda: len(other.renewed) > 1)
        renewed = len(given_back.renewed)
        eventually(lambda: len(other.renewed) > 10)
        assert len(given_back.renewed) == renewed


def test_a_lost_lease_is_asked_for_no_more_and_the_next_one_is_renewed() -> None:
    renewer, lost, other = Renewer(), Renewals(is_held=False), Renewals()
    with renewer.renewing(lost, FIRST):
        eventually(lambda: lost.renewed)
        with renewer.renewing(other, SECOND):
            eventually(lambda: len(other.renewed) > 10)
    assert lost.renewed == ["first"]


def test_the_answer_that_a_lease_is_lost_does_not_end_the_next_one_that_came_meanwhile() -> None:
    renewer, other, asked, given = Renewer(), Renewals(), threading.Event(), threading.Event()

    class Slow(Renewals):
        def renew(self, feature: str, job: str) -> bool:
            asked.set()
            given.wait()
            return False

    with renewer.renewing(Slow(), FIRST):
        asked.wait()
    with renewer.renewing(other, SECOND):
        given.set()
        eventually(lambda: other.renewed, within=10)


def test_a_fork_renews_by_a_thread_of_its_own() -> None:
    work_queue = Renewals()
    with renewal.renewing(work_queue, FIRST):
        eventually(lambda: work_queue.renewed)
        child = os.fork()
        if child == 0:
            try:
                own = Renewals()
                with renewal.renewing(own, SECOND):
                    eventually(lambda: own.renewed, within=20)
                os._exit(0)
            finally:
                os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
