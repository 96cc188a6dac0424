"""Features of one source that wait together: one job serves them, and each stands alone for all that may go wrong."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from mlforge.core import clock, failpoints
from mlforge.core.values import SECOND_US
from mlforge.sources.source_reading import SourceReading
from tests.support.workers import (
    Shop,
    eventually,
    purchases,
    requested,
    running_shop,
    several,
    write,
)
from worker import project as projects
from worker.child_process import GROWTH_BYTES
from worker.queue import JobQueue, enqueue, refresh_job, together
from worker.queue.forking import JOBS_A_PROCESS, may_serve_on

STEPS = (
    *("job.begun", "lease.taken", "stage.made", "partial.written", "file.synced", "parts.written"),
    *("parts.placed", "publish.staged", "publish.renamed", "publish.pointed", "refresh.done"),
    *("push.begun", "push.put", "push.removed", "push.finished", "job.done", "lease.returned"),
)
"""The steps of a drop, in their order."""
OFTEN = ("partial.written", "publish.renamed", "push.put")
NAMES = [f"f{number}" for number in range(8)]
ALIKE = several(dict.fromkeys(NAMES, "drops/"))
BAD = """
import os
import signal

KEPT = []


@feature(keys=["user_id"], source="drops/", timestamp="at", incremental=True)
def f3(df: pl.DataFrame) -> pl.DataFrame:
    if is_there("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    if is_there("leak"):
        KEPT.append(b"x" * (700 << 20))
    if is_there("fail"):
        raise ValueError("as always")
    return df.select("user_id", "at", "amount")


FEATURES = [rolling(name, source) for name, source in SOURCES.items() if name != "f3"]
defs = Definitions(store=LocalStore(HERE / "feature_store"), features=[*FEATURES, f3], name="shop")
"""


@pytest.fixture
def idle(server, tmp_path) -> Iterator[Shop]:
    """A shop of eight features on one source, for which nothing runs yet."""
    with running_shop(server, tmp_path, (), definitions=ALIKE, sources=["drops"]) as made:
        yield made


@pytest.fixture
def one_is_bad(server, tmp_path) -> Iterator[Shop]:
    """The same, one feature of which can be told to fail or to die."""
    with running_shop(server, tmp_path, (), definitions=ALIKE + BAD, sources=["drops"]) as made:
        yield made


def children_of(worker: int) -> list[int]:
    return list(map(int, Path(f"/proc/{worker}/task/{worker}/children").read_text().split()))


def dropped(shop: Shop, name: str = "a") -> None:
    """A file in the source, and a request of each feature, as the watcher makes them."""
    amount = 1.0 + len(list((shop.folder / "drops").iterdir()))
    write(shop.folder / f"drops/{name}.parquet", purchases((1, 10, amount)))
    for feature in NAMES:
        job = requested(shop.project.work_queue, feature, f"{name} came", closed_at=1).job
        enqueue(shop.project, feature, job)


def served(shop: Shop, names: list[str] = NAMES) -> bool:
    return not any(ticket.behind for ticket in shop.project.work_queue.read(names))


def jobs_of(shop: Shop) -> dict[str, str]:
    """The job that refreshed each feature last."""
    return {entry["feature"]: entry["job"] for entry in shop.log("refreshed") if "job" in entry}


def test_features_that_wait_together_are_served_by_one_job(idle):
    dropped(idle)
    idle.start("worker")
    eventually(lambda: served(idle))
    assert {name: idle.versions(name) for name in NAMES} == {name: ["1.0.0"] for name in NAMES}
    assert all(idle.online(name, 1) for name in NAMES)
    assert len(set(jobs_of(idle).values())) == 1, "one job"
    assert len(idle.log("refreshed")) >= len(NAMES), "each has its own line"
    assert not JobQueue(idle.project.redis, idle.project.scope).waiting()


def test_a_large_intake_reads_files_for_the_features_whose_jobs_wait_and_no_others(idle):
    dropped(idle)
    queue = idle.project.work_queue
    leased, failed = (queue.read([name])[0] for name in NAMES[2:4])
    assert queue.start(leased.feature, leased.queued)
    queue.failed(queue.start(failed.feature, failed.queued), "as always")

    beside = together.waiting_beside(idle.project, NAMES[0])

    assert [each.feature.name for each in beside] == [NAMES[1], *NAMES[4:]]


@pytest.mark.slow
def test_a_feature_that_fails_ends_its_job_and_no_other_feature_s(one_is_bad):
    (one_is_bad.folder / "fail").touch()
    dropped(one_is_bad)
    one_is_bad.start("worker")
    others = [name for name in NAMES if name != "f3"]
    eventually(lambda: served(one_is_bad, others))
    bad = eventually(lambda: t if (t := one_is_bad.ticket("f3")).error else None)
    assert "as always" in bad.error
    assert [one_is_bad.ticket(name).error for name in others] == [None] * len(others)
    assert one_is_bad.versions("f3") == []


def test_a_feature_that_ends_its_process_is_tried_alone_from_then_on(one_is_bad):
    (one_is_bad.folder / "die").touch()
    dropped(one_is_bad)
    worker = one_is_bad.start("worker")
    others = [name for name in NAMES if name != "f3"]
    eventually(lambda: served(one_is_bad, others))
    bad = eventually(lambda: t if (t := one_is_bad.ticket("f3")).deaths else None)
    assert "SIGKILL" in bad.error
    assert [one_is_bad.ticket(name).deaths for name in others] == [0] * len(others)
    assert [one_is_bad.versions(name) for name in others] == [["1.0.0"]] * len(others)
    assert one_is_bad.log("refresh interrupted", feature="f3")
    assert not [
        entry for entry in one_is_bad.log("refresh interrupted") if entry["feature"] != "f3"
    ]
    assert worker.poll() is None
    (one_is_bad.folder / "die").unlink()
    job = one_is_bad.project.work_queue.requeue(one_is_bad.ticket("f3"))
    enqueue(one_is_bad.project, "f3", job)
    dropped(one_is_bad, "b")
    eventually(lambda: served(one_is_bad))
    assert one_is_bad.online("f3", 1)


@pytest.mark.slow
def test_a_process_that_has_grown_is_replaced_and_one_that_has_not_serves_on(one_is_bad):
    worker = one_is_bad.start("worker")
    # Until then it tries whether it may fork.
    eventually(lambda: one_is_bad.log("worker ready"), within=60)
    pids = []
    for name in ("a", "b", "leaking", "c"):
        if name == "leaking":
            (one_is_bad.folder / "leak").touch()
        eventually(lambda: len(children_of(worker.pid)) == 1)
        [pid] = children_of(worker.pid)
        pids.append(pid)
        dropped(one_is_bad, name)
        eventually(lambda: served(one_is_bad))
        (one_is_bad.folder / "leak").unlink(missing_ok=True)
        if name == "leaking":
            eventually(lambda pid=pid: pid not in children_of(worker.pid))
    assert pids[0] == pids[1] == pids[2] != pids[3]


@pytest.mark.parametrize(
    ("outcome", "jobs", "grown", "goes_on"),
    [
        *((outcome, 1, 0, True) for outcome in ("refreshed", "unchanged", "held", "nothing to do")),
        *(
            (outcome, 1, 0, False)
            for outcome in ("failed", "parked", "gone", "given back", "not ours", None)
        ),
        ("refreshed", JOBS_A_PROCESS, 0, False),
        ("refreshed", JOBS_A_PROCESS - 1, GROWTH_BYTES, True),
        ("refreshed", 1, GROWTH_BYTES + 1, False),
    ],
)
def test_a_process_serves_on_after_what_leaves_it_in_order(outcome, jobs, grown, goes_on):
    assert may_serve_on(outcome, jobs, grown) is goes_on


# -- the rules, without processes


@pytest.fixture
def project(idle):
    return idle.project


def leases(project, job="the-job"):
    return (lease for lease, _ in together.waiting_together(project, "f0", job))


def test_one_lease_is_held_at_a_time_and_the_jobs_taken_over_leave_the_queue(idle, project):
    dropped(idle)
    queue = JobQueue(project.redis, project.scope)
    assert len(queue.waiting()) == len(NAMES)
    for number, lease in enumerate(leases(project), start=1):
        tickets = project.work_queue.read(NAMES)
        assert [t.feature for t in tickets if t.leased] == [lease.feature]
        assert lease.job == "the-job"
        assert lease.closed_at == 1
        assert len(queue.waiting()) == len(NAMES) - number
        project.work_queue.done(lease)
    assert [t.feature for t in project.work_queue.read(NAMES) if t.behind] == ["f0"]
    [left] = queue.waiting()
    assert project.redis.keys("rq:job:*") == [b"rq:job:" + left.encode()]


def test_features_in_trouble_at_rest_or_at_work_elsewhere_are_left_alone(idle, project):
    dropped(idle)
    tickets = {ticket.feature: ticket for ticket in project.work_queue.read(NAMES)}
    lease = project.work_queue.start("f1", tickets["f1"].queued)
    assert lease is not None
    failing = project.work_queue.start("f2", tickets["f2"].queued)
    project.work_queue.failed(failing, "as always")
    enqueue(project, "f2", project.work_queue.requeue(idle.ticket("f2")))
    until = project.work_queue.now() + 60 * SECOND_US
    project.redis.hset(f"mlforge-work:{project.scope}:ticket:f3", "rests_until", until)
    taken = []
    for each in leases(project):
        taken.append(each.feature)
        project.work_queue.done(each)
    assert sorted(taken) == [name for name in NAMES if name not in ("f0", "f1", "f2", "f3")]


def test_a_feature_at_rest_is_only_pushed_also_where_the_host_s_clock_is_behind(idle, project):
    dropped(idle)
    now = project.work_queue.now()
    rest = {"rests_until": now + 60 * SECOND_US, "served_at": now}
    project.redis.hset(f"mlforge-work:{project.scope}:ticket:f1", mapping=rest)
    with clock.fixed(now - 10 * SECOND_US):
        refresh_job._serve_together(project, idle.ticket("f0"), idle.ticket("f0").queued)
    assert [t.feature for t in project.work_queue.read(NAMES) if t.behind] == ["f1"]


def test_a_feature_is_served_once_a_job_so_that_other_sources_get_their_turn(idle, project):
    dropped(idle)
    taken = []
    for lease in leases(project):
        taken.append(lease.feature)
        project.work_queue.done(lease)
        enqueue(project, lease.feature, requested(project.work_queue, lease.feature, "again").job)
    assert sorted(taken) == NAMES[1:]


def test_a_request_during_its_refresh_leads_to_one_more(idle, project):
    dropped(idle)
    lease = next(leases(project))
    assert requested(project.work_queue, lease.feature, "b came").job is None
    assert project.work_queue.done(lease) is not None


@pytest.mark.parametrize("limit", ["time", "memory", "ending", "definitions"])
def test_nothing_more_is_taken_where_a_process_should_end(idle, project, monkeypatch, limit):
    dropped(idle)
    waiting = leases(project)
    project.work_queue.done(next(waiting))
    if limit == "time":
        later = together.time.monotonic() + project.settings.job_timeout_s
        monkeypatch.setattr(together.time, "monotonic", lambda: later)
    elif limit == "memory":
        monkeypatch.setattr(together, "resident_bytes", lambda: 1 << 50)
    elif limit == "ending":
        monkeypatch.setattr(together, "is_worker_ending", lambda _: True)
    else:
        project.redis.set(f"mlforge-work:{project.scope}:definitions", "other 1")
    assert next(waiting, None) is None


def test_a_job_that_was_taken_over_finds_nothing_to_do(idle, project):
    dropped(idle)
    queued = idle.ticket("f1").queued
    lease = project.work_queue.claim(idle.ticket("f1"), "the-job")
    assert lease is not None
    outcome = refresh_job.serve(project, idle.ticket("f1"), queued, SourceReading())
    assert outcome == "nothing to do"
    assert project.work_queue.renew("f1", "the-job"), "its lease is still held"
    assert project.work_queue.done(lease) is None


def test_a_ticket_that_has_moved_on_is_not_claimed(idle, project):
    dropped(idle)
    old = idle.ticket("f1")
    lease = project.work_queue.start("f1", old.queued)
    project.work_queue.done(lease)
    requested(project.work_queue, "f1", "b came")
    assert project.work_queue.claim(old, "the-job") is None


def test_a_claim_whose_answer_was_lost_is_answered_alike(idle, project, monkeypatch):
    dropped(idle)
    work_queue = project.work_queue
    ticket = idle.ticket("f1")
    once = work_queue._start

    def twice(keys, arguments):
        once(keys, arguments)
        return once(keys, arguments)

    monkeypatch.setattr(work_queue, "_start", twice)
    assert work_queue.claim(ticket, "the-job") is not None


@pytest.mark.parametrize(
    "step", [pytest.param(s, marks=() if s in OFTEN else pytest.mark.slow) for s in STEPS]
)
def test_a_job_that_ends_at_any_step_of_one_feature_leaves_all_others_as_they_should_be(
    idle, project, monkeypatch, step
):
    """The third time that a step is reached it mostly is another feature's than the job's own."""
    monkeypatch.setattr(projects, "_open", project)
    dropped(idle)
    passes = count(1)

    def end() -> None:
        if next(passes) == 3:
            raise SystemExit

    job = idle.ticket("f0").queued
    monkeypatch.setattr(refresh_job, "current_job_id", lambda: job)
    failpoints.arm(step, end)
    try:
        with pytest.raises(SystemExit):
            refresh_job.refresh("f0", project.scope, project.hash)
    finally:
        failpoints.disarm()
    blamed = [name for name in NAMES if project.work_queue.died(name, job, "it ended")]
    done = [t.feature for t in project.work_queue.read(NAMES) if not t.behind]
    assert len(blamed) == (step != "lease.returned")
    assert bool(done) is (step != "file.synced")  # which is reached several times for each
    assert len(done) < len(NAMES)
    assert not set(blamed) & set(done)
    assert [idle.versions(name) for name in done] == [["1.0.0"]] * len(done)
    assert all(idle.online(name, 1) for name in done)

    while behind := [t for t in project.work_queue.read(NAMES) if t.behind]:
        job = behind[0].queued or project.work_queue.requeue(behind[0])
        refresh_job.refresh(behind[0].feature, project.scope, project.hash)
    assert [idle.versions(name) for name in NAMES] == [["1.0.0"]] * len(NAMES)
    assert [idle.online(name, 1) for name in NAMES] == [idle.online("f0", 1)] * len(NAMES)


def test_only_the_feature_at_work_is_blamed_for_the_end_of_a_job(idle, project):
    dropped(idle)
    lease = next(leases(project))
    died = [project.work_queue.died(name, "the-job", "gone") for name in NAMES]
    assert [name for name, it in zip(NAMES, died, strict=True) if it] == [lease.feature]
    assert [t.feature for t in project.work_queue.read(NAMES) if t.deaths] == [lease.feature]
