"""The steps that a drop waits for: what they add up to, and which drops were slowest."""

from __future__ import annotations

from typing import Any

import pytest

from mlforge.core.steps import Steps
from worker.monitor import slow
from worker.state.drop_steps import STEPS, drop_steps, slowest, trigger_of
from worker.state.event_log import Distribution, Entry
from worker.state.work_queue import Lease

WORK = {"read": 0.010, "build": 0.020, "publish": 0.005, "push": 0.015}


def lease(**changes: Any) -> Lease:
    """Closed at 0 ms, requested at 20 ms, taken at 33 ms by a call of 3 ms."""
    usual = {"closed_at": 0, "requested_at": 20_000, "taken_at": 33_000, "took_s": 0.003}
    return Lease("spend", "job", 1, reason="a came", **{**usual, **changes})


def entry(feature: str, ms: Any, at: int = 1, **details: Any) -> Entry:
    steps = details.pop("steps", {"read": 1.0})
    return Entry(f"{at}-0", "refreshed", feature, {"freshness_ms": ms, "steps": steps, **details})


def test_the_steps_of_a_drop_add_up_to_its_whole():
    steps = drop_steps(lease(), WORK, 90.0)
    assert steps == {
        "event": 20.0,
        "queue": 10.0,
        "lease": 3.0,
        "read": 10.0,
        "build": 20.0,
        "publish": 5.0,
        "push": 15.0,
        "other": 7.0,
    }
    assert list(steps) == list(STEPS)


def test_no_step_is_negative_where_clocks_differ():
    steps = drop_steps(lease(closed_at=50_000, taken_at=19_000), WORK, 10.0)
    assert steps["event"] == steps["queue"] == steps["other"] == 0.0


def test_a_request_of_the_release_before_tells_no_steps_before_its_lease():
    steps = drop_steps(lease(requested_at=None), WORK, 90.0)
    assert (steps["event"], steps["queue"], steps["lease"], steps["other"]) == (0, 0, 0, 40.0)


def test_the_slowest_drops_come_first_and_nothing_else_is_among_them():
    entries = [
        entry("a", 10.0),
        entry("b", 30.0, version="1.0.1", trigger="x came"),
        entry("c", 20.0),
        Entry("9-0", "failed", "d", {"freshness_ms": 99.0, "steps": {}}),
        entry("e", None, steps=None),
    ]
    assert [drop.feature for drop in slowest(entries, 2)] == ["b", "c"]
    first = slowest(entries, 1)[0]
    assert (first.version, first.trigger, first.total_ms) == ("1.0.1", "x came", 30.0)
    assert first.steps == {**dict.fromkeys(STEPS, 0.0), "read": 1.0}


@pytest.mark.parametrize("wrong", ["much", None, [1], float("nan"), float("inf"), {"a": 1}])
def test_an_entry_with_figures_that_are_none_is_shown_as_far_as_it_can_be_read(wrong):
    [drop] = slowest([entry("a", wrong, steps={"read": wrong, "push": 2.0})], 5)
    assert (drop.total_ms, drop.steps["read"], drop.steps["push"]) == (0.0, 0.0, 2.0)


def test_the_screen_shows_each_step_that_some_drop_waited_for_and_says_what_it_is():
    drops = slowest([entry("spend", 1_234.0, steps={"queue": 1_200.0, "push": 34.0})], 5)
    head, line, *notes = [row for row in slow.render(drops).split("\n") if row]
    assert head.split()[-2:] == ["queue", "push"]
    assert line.split()[-3:] == ["1,234", "1,200", "34"]
    assert [note.partition(":")[0] for note in notes] == ["queue", "push"]
    assert "no drop yet" in slow.render([])


def test_steps_count_the_time_from_one_end_to_the_next(monkeypatch):
    times = iter([1.0, 1.5, 4.0, 4.25])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    steps = Steps()
    for step in ("read", "build", "read"):
        steps.end(step)
    assert steps.seconds == {"read": 0.75, "build": 2.5}


def test_a_drop_tells_of_the_files_that_its_version_took_in():
    def files(**counts: int) -> dict[str, Any]:
        return {kind: {"count": count, "first": []} for kind, count in counts.items()}

    assert trigger_of("27 files came", files(files_added=45)) == "45 files came"
    assert trigger_of("a.parquet came", files(files_added=3)) == "3 files came"
    assert trigger_of("a.parquet came", files(files_added=1)) == "a.parquet came"
    mixed = files(files_added=2, files_removed=1)
    assert trigger_of("1 file went, 1 file came", mixed) == "2 files came, 1 file went"
    assert trigger_of("definitions", files(files_added=45)) == "definitions"
    assert trigger_of("user_spend 1.0.3", {}) == "user_spend 1.0.3"
    assert trigger_of("27 files came", {}) == "27 files came"


@pytest.mark.parametrize(
    ("count", "percentiles"), [(1, (1, 1, 1)), (2, (1, 2, 2)), (100, (50, 95, 99))]
)
def test_of_so_many_drops_a_percentile_is_the_least_that_so_many_reach(
    count: int, percentiles: tuple[float, ...]
) -> None:
    times = Distribution.of([float(place) for place in range(count, 0, -1)])
    assert times is not None
    assert (times.p50, times.p95, times.p99) == percentiles
