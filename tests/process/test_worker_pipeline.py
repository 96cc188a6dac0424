"""Real processes: a file is dropped, a version appears, its rows are online; and what goes wrong."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.support.workers import Shop, eventually, purchases, write
from worker.queue import JobQueue, queue_of
from worker.state.drop_steps import STEPS
from worker.state.event_log import Entry
from worker.state.sign_of_life import read_sign


@dataclass(frozen=True)
class Slow:
    """The feature `slow`, whose function stays where it is until it may go on."""

    folder: Path

    def stop(self) -> None:
        (self.folder / "at_work").unlink(missing_ok=True)
        (self.folder / "block").touch()

    def is_at_work(self) -> bool:
        return (self.folder / "at_work").exists()

    def go_on(self) -> None:
        (self.folder / "block").unlink(missing_ok=True)


@pytest.fixture
def slow(shop: Shop) -> Iterator[Slow]:
    """The slow feature, stopped; it goes on after the test in any case."""
    feature = Slow(shop.folder)
    feature.stop()
    yield feature
    feature.go_on()


def forks_of(worker: int) -> list[int]:
    """The processes that a worker forked, the oldest first."""
    return list(map(int, Path(f"/proc/{worker}/task/{worker}/children").read_text().split()))


def horse_of(worker: int) -> int:
    """The process that has the job in hand: the only one, once those before it are gone."""
    [horse] = eventually(lambda: found if len(found := forks_of(worker)) == 1 else None)
    return horse


def test_a_drop_becomes_a_version_and_rows_online(shop):
    file = write(shop.folder / "drops" / "a.parquet", purchases((1, 0, 2.0), (1, 60, 3.0)))
    waited = shop.ask("wait", str(file), "--timeout", "60")
    assert (waited.returncode, waited.stdout) == (0, "spend 1.0.0: readable\n"), waited.stderr
    assert shop.versions("spend") == ["1.0.0"]
    assert shop.online("spend", 1) == {"amount__sum__7d": 5.0, "amount__count__7d": 2}


def test_how_long_a_drop_took_is_recorded(shop):
    # What the watcher's first scan finds was there before it: nobody knows for how long.
    journal = shop.project.event_log
    eventually(lambda: any(entry.kind == "watching" for entry in journal.read("0")))
    eventually(lambda: not shop.ticket("spend").behind)
    before = journal.freshness("spend")
    write(shop.folder / "drops" / "b.parquet", purchases((2, 0, 1.0)))
    eventually(lambda: shop.online("spend", 2))
    after = eventually(lambda: found if (found := journal.freshness("spend")) != before else None)
    assert 0 < after.p50 < 20_000

    def with_steps() -> Entry | None:  # written after the figure
        refreshed = (entry for entry in journal.recent() if entry.kind == "refreshed")
        return next((entry for entry in refreshed if entry.details["steps"]), None)

    entry = eventually(with_steps)
    steps, whole = entry.details["steps"], entry.details["freshness_ms"]
    assert list(steps) == list(STEPS)
    assert sum(steps.values()) == pytest.approx(whole, abs=1.0)
    assert all(steps[step] > 0 for step in ("event", "queue", "read", "build", "publish", "push"))
    [slowest, *_] = json.loads(shop.ask("status", "--slow", "--json").stdout)["drops"]
    assert (slowest["feature"], slowest["total_ms"], slowest["steps"]) == ("spend", whole, steps)
    assert "readable at" in shop.ask("status", "--slow").stdout


def test_a_drop_that_changes_nothing_is_told_and_is_no_freshness(shop):
    journal = shop.project.event_log
    file = shop.folder / "drops" / "b.parquet"
    eventually(lambda: shop.online("spend", 2) and not shop.ticket("spend").behind)
    before = journal.freshness("spend")
    write(file, file.read_bytes())

    def unchanged() -> dict[str, Any] | None:
        told = [entry.details for entry in journal.recent() if entry.kind == "refreshed"]
        return next((details for details in told if details["changed"] is False), None)

    details = eventually(unchanged)
    assert (details["freshness_ms"] > 0, details["steps"]) == (True, None)
    assert journal.freshness("spend") == before


def test_a_corrupt_file_is_set_aside_and_everything_goes_on(shop):
    write(shop.folder / "drops" / "bad.parquet", b"PAR1" + b"\0" * 200 + b"PAR1")
    eventually(lambda: "bad.parquet" in shop.store.books("spend").quarantine)
    write(shop.folder / "drops" / "c.parquet", purchases((3, 0, 7.0)))
    eventually(lambda: shop.online("spend", 3))
    waited = shop.ask("wait", "drops/bad.parquet")
    assert waited.returncode == 1
    assert "quarantined" in waited.stdout
    status = shop.ask("status")
    assert "quarantined bad.parquet" in status.stdout
    (shop.folder / "drops" / "bad.parquet").unlink()
    eventually(lambda: not shop.store.books("spend").quarantine)


def test_drops_while_a_refresh_runs_lead_to_exactly_one_more(shop, slow):
    write(shop.folder / "slow" / "0.parquet", purchases((1, 0, 1.0)))
    eventually(slow.is_at_work)
    begun = shop.ticket("slow")
    for number in range(1, 6):
        write(shop.folder / "slow" / f"{number}.parquet", purchases((1, number, 1.0)))
        eventually(lambda number=number: shop.ticket("slow").wanted >= begun.wanted + number)
    assert shop.ticket("slow").queued is None, "no job waits for a lease that another has"
    slow.go_on()
    eventually(lambda: not shop.ticket("slow").behind)
    eventually(lambda: shop.online("slow", 1))
    assert shop.versions("slow") == ["1.0.0", "1.0.1"]
    assert shop.store.read("slow").height == 6


def test_a_job_runs_in_a_process_that_was_forked_before_it_came_as_does_the_next(shop, slow):
    worker = shop.processes[1].pid
    at_work = []
    for second, name in enumerate(("ahead", "next")):
        slow.stop()
        write(shop.folder / "slow" / f"{name}.parquet", purchases((12 + second, second, 1.0)))
        eventually(slow.is_at_work)
        at_work.append(horse_of(worker))
        slow.go_on()
        eventually(lambda user=12 + second: shop.online("slow", user))
        eventually(lambda: not shop.ticket("slow").behind)
    assert at_work[0] == at_work[1], "none was forked for the second job"


@pytest.mark.slow
def test_a_worker_reports_and_is_listed_again_after_a_flush_at_work_and_at_rest(shop, slow):
    redis, queue = shop.project.redis, JobQueue(shop.project.redis, shop.project.scope)

    def lose_all() -> None:
        redis.delete(f"mlforge-alive:{socket.gethostname()}", *redis.keys("rq:worker*"))

    def listed() -> list[str]:
        return [each.name for each in queue.workers() if each.is_ours]

    write(shop.folder / "slow" / "long.parquet", purchases((14, 0, 1.0)))
    eventually(slow.is_at_work)
    names = listed()
    lose_all()
    assert [eventually(lambda: read_sign(redis, socket.gethostname()))] == names
    assert eventually(listed) == names
    slow.go_on()
    eventually(lambda: shop.online("slow", 14))
    lose_all()
    assert eventually(listed) == names


def test_a_killed_fork_is_replaced_at_once(shop, slow):
    write(shop.folder / "slow" / "killed.parquet", purchases((9, 0, 1.0)))
    eventually(slow.is_at_work)
    os.kill(horse_of(shop.processes[1].pid), signal.SIGKILL)
    died = eventually(lambda: found if (found := shop.ticket("slow")).deaths else None)
    assert "SIGKILL" in died.error
    slow.go_on()
    eventually(lambda: shop.online("slow", 9))
    eventually(lambda: shop.ticket("slow").error is None)


@pytest.mark.slow
def test_the_work_of_a_killed_worker_is_done_by_the_next(shop, slow):
    write(shop.folder / "slow" / "late.parquet", purchases((10, 0, 1.0)))
    eventually(slow.is_at_work)
    killed = shop.processes.pop(1)
    killed.kill()
    killed.wait()
    slow.go_on()
    shop.start("worker")
    eventually(lambda: shop.online("slow", 10))


def test_a_feature_that_always_fails_is_reported_and_does_not_starve_others(shop):
    write(shop.folder / "poison" / "a.parquet", purchases((1, 0, 1.0)))
    failing = eventually(lambda: found if (found := shop.ticket("poison")).failures else None)
    assert "no_such_column" in failing.error
    write(shop.folder / "drops" / "d.parquet", purchases((4, 0, 1.0)))
    eventually(lambda: shop.online("spend", 4))
    status = shop.ask("status", "--json")
    assert status.returncode == 1
    assert "no_such_column" in status.stdout


def test_sigterm_lets_the_job_in_hand_finish(shop, slow):
    write(shop.folder / "slow" / "term.parquet", purchases((11, 0, 1.0)))
    eventually(slow.is_at_work)
    worker = shop.processes.pop()
    worker.terminate()
    slow.go_on()
    assert worker.wait(60) == 0
    assert shop.online("slow", 11)
    shop.start("worker")


STOPPED_WHILE_IT_FORKS = """
import os, signal, sys
from mlforge.cli import main
told = []
def stop():
    if not told and signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        told.append(os.kill(os.getpid(), signal.SIGTERM))
os.register_at_fork(after_in_parent=stop)
sys.exit(main(["worker"]))
"""


@pytest.mark.slow
def test_sigterm_is_heard_while_a_process_is_forked(shop):
    worker = shop.run([sys.executable, "-c", STOPPED_WHILE_IT_FORKS])
    assert worker.wait(60) == 0
    shop.processes.remove(worker)


def test_a_pickled_job_is_refused_not_run(shop):
    redis, queue = Redis.from_url(shop.url), queue_of(shop.project.scope)
    touched = shop.folder / "pwned"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(touched),)

    data = pickle.dumps(("worker.queue.refresh_job.refresh", None, (Evil(),), {}))
    created = "2024-01-01T00:00:00.000000Z"
    redis.hset("rq:job:evil", mapping={"data": data, "created_at": created, "origin": queue})
    redis.rpush(f"rq:queue:{queue}", "evil")
    eventually(lambda: "evil" not in JobQueue(redis, shop.project.scope).waiting())
    write(shop.folder / "drops" / "e.parquet", purchases((5, 0, 1.0)))
    eventually(lambda: shop.online("spend", 5))
    assert not touched.exists()


@pytest.mark.slow
def test_a_plain_rq_worker_on_the_queue_is_reported(shop):
    plain = shop.run(
        [
            str(Path(sys.executable).with_name("rq")),
            "worker",
            "--url",
            shop.url,
            queue_of(shop.project.scope),
        ]
    )
    eventually(
        lambda: (
            not all(w.is_ours for w in JobQueue(shop.project.redis, shop.project.scope).workers())
        )
    )
    assert "its serializer is wrong" in shop.ask("status").stdout
    plain.terminate()
    plain.wait(60)


@pytest.mark.slow
def test_definitions_that_are_others_in_each_process_are_told_of(shop):
    file, journal = shop.folder / "definitions.py", shop.project.event_log
    since, good = journal.last_id(), file.read_text()
    model = "import os\nimport string\nMODEL = string.Template(str(os.getpid()))\n"
    used = good.replace("def spend(df: pl.DataFrame)", "def spend(df: pl.DataFrame, model=MODEL)")
    file.write_text(used.replace("import polars as pl\n", f"import polars as pl\n{model}", 1))

    def told() -> list[str]:
        entries = journal.read(since)
        return [e.details["error"] for e in entries if e.kind == "definitions_unsteady"]

    assert "so that no worker takes a job (spend uses default.0)" in eventually(told)[0]
    file.write_text(good)  # which all processes have alike, so that the drop is taken
    write(shop.folder / "drops" / "steady.parquet", purchases((9, 0, 1.0)))
    eventually(lambda: shop.online("spend", 9))


@pytest.mark.slow
def test_edited_definitions_are_taken_up_and_a_broken_edit_keeps_the_old_ones(shop):
    for source in ("drops", "slow"):  # what edits are told from is what the processes began with
        write(shop.folder / source / "e.parquet", purchases((1, 0, 1.0)))
    eventually(lambda: shop.online("spend", 1) and shop.online("slow", 1))
    file = shop.folder / "definitions.py"
    journal, good = shop.project.event_log, file.read_text()
    since = journal.last_id()
    file.write_text(good + "\nthis is not python\n")
    broken = eventually(lambda: [e for e in journal.read(since) if e.kind == "definitions_broken"])
    assert "definitions.py" in broken[0].details["error"]
    write(shop.folder / "drops" / "f.parquet", purchases((6, 0, 1.0)))
    eventually(lambda: shop.online("spend", 6))
    file.write_text(good.replace('["sum", "count"]', '["sum", "count", "max"]'))

    def is_taken_up() -> bool:
        assert shop.project.presence.read() is not None, "it starts anew, and watches on"
        return (shop.online("spend", 6) or {}).get("amount__max__7d") == 1.0

    eventually(is_taken_up)
    assert shop.versions("spend")[-1].endswith(".0"), "a new metric is a minor version"
    only = 'features=[spend], gone_after="1ms"'
    file.write_text(file.read_text().replace("features=[spend, slow, poison]", only))
    eventually(lambda: shop.online("slow", 1) is None)
    assert shop.online("spend", 6)
