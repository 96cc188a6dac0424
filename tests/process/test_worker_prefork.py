"""Processes forked ahead of their orders."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.workers import eventually
from worker.queue.prefork import Outcome, PreforkPool

Make = Callable[..., PreforkPool]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Spares whose service is to write their process id into a file of the order's name; they go on after `more`."""
    made: list[PreforkPool] = []

    def serve(order: str) -> bool:
        part = tmp_path / f"{order}.part"
        part.write_text(str(os.getpid()))
        part.rename(tmp_path / order)
        if order.startswith("killed"):
            if order.endswith("child") and os.fork() == 0:
                until = time.monotonic() + 90  # it holds all pipes
                while time.monotonic() < until and not (tmp_path / "over").exists():
                    time.sleep(0.05)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
        return order.startswith("more")

    def of(count: int = 1, warm: Callable[[], Iterator[float]] = lambda: iter(())) -> PreforkPool:
        made.append(PreforkPool(count, lambda: None, warm, serve))
        made[-1].refill()
        return made[-1]

    yield of
    (tmp_path / "over").touch()
    for spares in made:
        spares.dismiss()


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_each_order_is_served_by_a_process_that_was_there_before_it(
    make: Make, tmp_path: Path
) -> None:
    spares = make(2)
    pids = [spare.pid for order in ("first", "second") if (spare := spares.give(order))]
    assert list(map(ended, pids)) == [0, 0]
    assert [int((tmp_path / order).read_text()) for order in ("first", "second")] == pids
    assert len({*pids, os.getpid()}) == 3


def test_a_process_that_has_served_its_last_order_leaves_no_zombie(make: Make) -> None:
    spares = make(1)
    spare = spares.give("last")
    assert spare is not None
    assert spare.wait() == Outcome(0)
    eventually(lambda: not Path(f"/proc/{spare.pid}").exists())
    assert spares.give("another") is None


def test_a_process_that_goes_on_serves_the_next_order_before_any_other(
    make: Make, tmp_path: Path
) -> None:
    spares = make(2)
    first = spares.give("more")
    assert first is not None
    assert first.wait() == Outcome(0, goes_on=True)
    spares.take_back(first)
    for order in ("more again", "last"):
        again = spares.give(order)
        assert again is first
        outcome = again.wait()
        assert int((tmp_path / order).read_text()) == first.pid
        if outcome.goes_on:
            spares.take_back(again)
    assert outcome == Outcome(0)
    other = spares.give("last of the other")
    assert other is not None
    assert other.pid != first.pid


def test_warming_up_goes_on_between_orders(make: Make, tmp_path: Path) -> None:
    def warm() -> Iterator[float]:
        yield 60.0
        (tmp_path / "second step").touch()
        yield 60.0

    spares = make(1, warm)
    spare = spares.give("more")
    assert spare is not None
    spare.wait()
    eventually((tmp_path / "second step").exists)
    spares.take_back(spare)
    assert spares.give("last") is spare
    assert spare.wait() == Outcome(0)


def test_a_process_that_is_killed_while_it_waits_for_its_next_order_is_passed_over(
    make: Make,
) -> None:
    spares = make(1)
    spare = spares.give("more")
    assert spare is not None
    spare.wait()
    spares.take_back(spare)
    os.kill(spare.pid, signal.SIGKILL)
    os.waitid(os.P_PID, spare.pid, os.WEXITED | os.WNOWAIT)
    assert spares.give("another") is None
    assert not Path(f"/proc/{spare.pid}").exists()


@pytest.mark.parametrize("order", ["killed", "killed with a child"])
def test_a_process_that_ends_without_a_word_has_not_served(make: Make, order: str) -> None:
    spare = make(1).give(order)
    assert spare is not None
    began = time.monotonic()
    assert spare.wait() == Outcome(signal.SIGKILL)
    assert time.monotonic() - began < 60


def test_without_a_spare_an_order_is_not_taken(make: Make) -> None:
    spares = make(1)
    assert spares.give("first")
    assert spares.wanting
    assert spares.give("second") is None


def test_a_spare_that_was_killed_is_passed_over(make: Make, tmp_path: Path) -> None:
    spares = make(2)
    victim, other = (spare.pid for spare in spares._idle)
    os.kill(victim, signal.SIGKILL)
    eventually(
        lambda: Path(f"/proc/{victim}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    )
    spare = spares.give("first")
    assert spare is not None
    assert (spare.pid, ended(other)) == (other, 0)
    assert (tmp_path / "first").exists()


def test_an_order_waits_for_the_step_in_hand_and_not_for_the_others(
    make: Make, tmp_path: Path
) -> None:
    def warm() -> Iterator[float]:
        (tmp_path / "begun").touch()
        eventually((tmp_path / "go").exists)
        yield 0.0
        (tmp_path / "second").touch()

    spares = make(1, warm)
    eventually((tmp_path / "begun").exists)
    spare = spares.give("order")
    (tmp_path / "go").touch()
    assert spare is not None
    assert ended(spare.pid) == 0
    assert (tmp_path / "order").exists()
    assert not (tmp_path / "second").exists()


def test_dismissed_spares_end_also_in_the_middle_of_a_step(make: Make, tmp_path: Path) -> None:
    def warm() -> Iterator[float]:
        (tmp_path / "begun").touch()
        signal.pause()
        yield 0.0

    spares = make(1, warm)
    eventually((tmp_path / "begun").exists)
    [spare] = spares._idle
    spares.dismiss()
    with pytest.raises(ProcessLookupError):
        os.kill(spare.pid, 0)


def test_spares_end_with_their_parent(tmp_path: Path) -> None:
    """Also where the kernel does not tell them: each pipe ends with the one process that may write."""
    told, tell = os.pipe()
    parent = os.fork()
    if parent == 0:
        spares = PreforkPool(2, lambda: None, lambda: iter(()), lambda _: False)
        spares.refill()
        os.write(tell, " ".join(str(spare.pid) for spare in spares._idle).encode())
        os._exit(0)
    assert ended(parent) == 0
    for pid in map(int, os.read(told, 100).split()):
        eventually(lambda pid=pid: not Path(f"/proc/{pid}").exists())
    os.close(told)
    os.close(tell)
