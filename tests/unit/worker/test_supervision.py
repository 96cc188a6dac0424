"""Rounds that fault do not end the work, and a heartbeat tells when one was last finished."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from polars.exceptions import PanicException
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import ResponseError
from structlog.testing import CapturingLogger, capture_logs

from mlforge.errors import StoreError, StoreUnavailable
from worker import supervision
from worker.monitor.metrics import Health
from worker.state.presence import PartState, WatcherState
from worker.supervision import (
    AGAIN_S,
    DEAD_S,
    LATE_S,
    Heartbeat,
    Rounds,
    pause_after,
    survived,
    tell_fault,
)

FAULTS = [
    NoConnection("away"),
    ResponseError("MISCONF"),
    StoreError("full"),
    OSError(28, "no space"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ValueError("invalid literal for int(): 'abc'"),
    RecursionError("maximum recursion depth exceeded"),
    KeyError("kind"),
    TypeError("'int' object is not subscriptable"),
    MemoryError(),
    PanicException("index out of bounds"),
]


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What is logged, while no round waits for long."""
    monkeypatch.setattr(supervision, "BACK_OFF_S", (0.0,))
    monkeypatch.setattr(supervision, "_told_at", {})
    with capture_logs() as entries:
        yield entries


@pytest.mark.parametrize("fault", [*FAULTS, SystemExit(1)], ids=lambda e: type(e).__name__)
def test_a_thread_goes_on_after_any_fault_of_a_round(fault: BaseException, told: list[Any]) -> None:
    stop, heartbeat = threading.Event(), Heartbeat("reconcile")
    outcomes: Iterator[BaseException | None] = iter([fault, fault, None])

    def work() -> None:
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome
        stop.set()

    Rounds(heartbeat, work, 0.0).run(stop)
    assert heartbeat.error is None
    assert heartbeat.problem() == ""
    assert told


@pytest.mark.parametrize("fault", FAULTS, ids=lambda e: type(e).__name__)
def test_a_step_goes_on_after_any_fault_of_another(fault: BaseException, told: list[Any]) -> None:
    with survived("compare", feature="spend"):
        raise fault
    [entry] = told
    assert entry["feature"] == "spend"
    assert str(fault) in entry["error"]


def test_an_order_to_stop_is_no_fault() -> None:
    with pytest.raises(KeyboardInterrupt), survived("compare"):
        raise KeyboardInterrupt


def test_an_outage_is_told_once_for_each_of_its_causes_and_again_each_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(supervision, "_told_at", {})
    monkeypatch.setattr(supervision, "time", SimpleNamespace(monotonic=lambda: now))

    def told(*faults: Exception) -> list[str]:
        log = CapturingLogger()
        monkeypatch.setattr(supervision, "log", log)
        for fault in faults:
            tell_fault("go on with the queue", fault)
        return [call.kwargs["error"] for call in log.calls if call.args == ("server away",)]

    refused, away = ResponseError("MISCONF"), NoConnection("away")
    assert told(refused, refused, refused) == ["MISCONF"]
    assert told(away, refused, away) == ["away"]
    now += AGAIN_S - 1
    assert told(refused, away) == []
    now += 1
    assert told(refused, away, refused) == ["MISCONF", "away"]


def test_a_disk_or_a_bucket_that_is_away_is_told_once_a_while_for_each_feature(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, log = 1_000.0, CapturingLogger()
    monkeypatch.setattr(supervision, "log", log)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for attempt in range(3):  # of a bucket the text tells how long the request took, too
        tell_fault("compare", StoreUnavailable(f"expired after {attempt} ms"), feature="spend")
    tell_fault("compare", StoreUnavailable("expired after 3 ms"), feature="visits")
    assert [call.kwargs["feature"] for call in log.calls] == ["spend", "visits"]
    now += AGAIN_S
    tell_fault("compare", StoreUnavailable("expired after 4 ms"), feature="spend")
    assert log.calls[-1].kwargs["error"] == "expired after 4 ms"


def test_faults_other_than_outages_are_told_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(supervision, "log", log)
    for _ in range(2):
        tell_fault("compare", StoreError("full"))
    assert [call.kwargs["error"] for call in log.calls] == ["full", "full"]


def test_pauses_grow_and_the_last_one_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "BACK_OFF_S", (1.0, 2.0, 15.0))
    assert [pause_after(faults) for faults in (1, 2, 3, 4, 100)] == [1.0, 2.0, 15.0, 15.0, 15.0]


def test_a_heartbeat_that_is_old_says_since_when_and_why() -> None:
    heartbeat = Heartbeat("reconcile", finished_at=time.monotonic() - LATE_S - 10)
    heartbeat.failed(ValueError("wanted=abc"))
    assert heartbeat.problem() == "no round was finished for 40 s (ValueError: wanted=abc)"
    assert heartbeat.problem(DEAD_S) == ""
    heartbeat.finished()
    assert heartbeat.problem() == ""


def test_a_process_is_alive_until_work_has_stood_still_for_long() -> None:
    late = Heartbeat("reconcile", finished_at=time.monotonic() - LATE_S - 1)
    dead = Heartbeat("watch sources", finished_at=time.monotonic() - DEAD_S - 1)
    assert Health(None, (late,)).stuck() == ""  # type: ignore[arg-type]
    assert "watch sources: no round" in Health(None, (late, dead)).stuck()  # type: ignore[arg-type]


def test_what_a_watcher_last_reported_grows_old_with_its_silence() -> None:
    fine = WatcherState("host", 7, 1.0, (PartState("reconcile", 0.5),))
    assert list(fine.problems()) == []
    assert list(replace(fine, definitions_problem="they do not import").problems()) == [
        "they do not import"
    ]
    [late] = WatcherState(
        "host", 7, 2.0, (PartState("reconcile", LATE_S, "KeyError: 'x'"),)
    ).problems()
    assert "does not reconcile: no round was finished for 32 s (KeyError: 'x')" in late
    [silent] = WatcherState("host", 7, LATE_S + 60, ()).problems()
    assert "has not reported for 90 s" in silent
