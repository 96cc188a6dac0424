"""Workers that die, hang or lack memory at any step: nothing is lost, doubled or torn, nothing wrong served."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

import mlforge
import worker
from tests.support.faults import ASKED, HEAD, Plant, places, running, usual_with
from tests.support.invariant import Witness, assert_invariant
from tests.support.workers import eventually
from worker.service.embedded_redis import EmbeddedServer
from worker.state.ticket import DEATHS, Ticket
from worker.state.work_queue import LEASE_MS

OTHERS = ["spend", "daily", "newest"]
"""The usual features."""
TAKEN_UP_S = 15.0
"""Within which a killed worker's work is taken up."""

MADE = {  # at a patch of a feature that has no files to remove, no parts to place
    *("file.synced", "partial.written", "file_states.written", "stage.made"),
    *("parts.written", "publish.staged", "publish.renamed", "publish.pointed", "publish.indexed"),
    *("push.begun", "push.put", "push.removed", "push.finished"),
}
IN_SHARED_BUILDS = {"task.claimed"}
"""Tried by `tests/process/test_worker_shared_build.py`."""
AT_WORK = {"job.taken", "job.begun", "lease.taken", "refresh.done", "job.done", "lease.returned"}


def name_of(place: str) -> str:
    return place.replace(".", "_")


def one_feature_a_place(steps: set[str]) -> str:
    names = [name_of(place) for place in sorted(steps)]
    features = f"\nfeatures = [made(name, metrics=ROLLING) for name in {names!r}]\n"
    return HEAD + features + 'defs = Definitions(store=STORE, features=features, name="plant")\n'


@pytest.fixture
def plant(redis: Redis, server: EmbeddedServer, tmp_path: Path) -> Iterator[Plant]:
    """A plant for which nothing runs yet."""
    yield from running(Plant(tmp_path, server.url))


def test_every_place_in_the_worker_is_tried_here() -> None:
    assert places(worker) == AT_WORK | IN_SHARED_BUILDS
    assert places(mlforge) >= MADE


def every_step(redis: Redis, server: EmbeddedServer, folder: Path, steps: set[str]) -> Plant:
    """A plant with a feature for each step, each with a version online."""
    made = Plant(folder, server.url, text=one_feature_a_place(steps)).run_all()
    for _ in range(3):
        made.drop()
    assert_invariant(made.project, deadline_s=60)
    return made


@pytest.mark.slow
def test_a_job_killed_at_any_step_is_done_again(redis, server, tmp_path) -> None:
    """The fork alone dies: its worker says so, and each feature comes up to date."""
    steps = (MADE | AT_WORK) - {"job.taken"}
    plant = every_step(redis, server, tmp_path, steps)
    for _ in running(plant):
        for place in steps:
            plant.order(f"{place}@{name_of(place)}")
        asked = {name_of(place): [{"user_id": user} for user in range(1, 9)] for place in steps}
        before = {name: plant.versions(name) for name in asked}
        with Witness(plant.project, asked):
            plant.drop()
            eventually(lambda: all(plant.obeyed(f"{p}@{name_of(p)}") for p in steps))
            assert_invariant(plant.project)
        assert {name: plant.versions(name)[:-1] for name in asked} == before, "one more of each"
        assert sum(each.starts for each in plant.supervised) == 3, "no worker died with its fork"


@pytest.mark.slow
def test_a_worker_killed_at_any_step_of_its_fork_is_replaced(redis, server, tmp_path) -> None:
    """The parent alone is killed: the fork does not go on beside whoever takes its work up."""
    steps = (MADE | AT_WORK) - {"job.taken"}
    plant = every_step(redis, server, tmp_path, steps)
    for _ in running(plant):
        for place in steps:
            plant.order(f"{place}@{name_of(place)}", "kill the worker")
        asked = {name_of(place): [{"user_id": user} for user in range(1, 9)] for place in steps}
        before = {name: plant.versions(name) for name in asked}
        with Witness(plant.project, asked):
            plant.drop()
            eventually(lambda: all(plant.obeyed(f"{p}@{name_of(p)}") for p in steps), 120)
            # The last ones killed may be both workers: they start again before they take anything up.
            assert_invariant(plant.project)
        assert {name: plant.versions(name)[:-1] for name in asked} == before, "one more of each"


@pytest.mark.slow
def test_the_work_of_a_killed_worker_is_taken_up_by_another_within_fifteen_seconds(plant) -> None:
    """With the Procfile's own commands; the lease of the dead one has to expire first."""
    plant.run_all()
    plant.drop()
    assert_invariant(plant.project, deadline_s=60)
    plant.order("lease.taken@spend", "kill the worker")
    with Witness(plant.project, ASKED):
        plant.drop()
        eventually(lambda: plant.obeyed("lease.taken@spend"))
        took = assert_invariant(plant.project, deadline_s=TAKEN_UP_S)
    assert took > LEASE_MS / 1000 - 5, "the lease was not waited for, so this proves nothing"


@pytest.mark.slow
def test_a_job_that_was_taken_and_never_begun_is_made_again(plant) -> None:
    """A worker dies between the queue and its fork."""
    plant.run_all()
    plant.drop()
    assert_invariant(plant.project, deadline_s=60)
    plant.order("job.taken")
    plant.drop()
    eventually(lambda: plant.obeyed("job.taken"))
    assert_invariant(plant.project, deadline_s=TAKEN_UP_S)


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [False, True], ids=["the worker", "its process group"])
def test_sigterm_amid_a_job_ends_it_or_gives_it_back(plant, whole_group) -> None:
    """systemd and honcho signal the whole group: what the fork was at is done by the next worker."""
    plant.supervise("watcher", procfile=True)
    first = plant.supervise("worker", procfile=True)
    plant.drop()
    assert_invariant(plant.project, deadline_s=60)
    plant.order("refresh.done@spend", "stop")
    plant.drop()
    fork = eventually(lambda: plant.obeyed("refresh.done@spend"))
    if whole_group:
        os.kill(fork, signal.SIGTERM)
    os.kill(first.pid, signal.SIGTERM)
    os.kill(fork, signal.SIGCONT)
    eventually(lambda: first.starts == 2)
    assert_invariant(plant.project, deadline_s=TAKEN_UP_S)


@pytest.mark.slow
def test_a_job_that_runs_out_of_memory_is_tried_again_and_blames_no_file(plant) -> None:
    plant.run_all()
    plant.drop()
    assert_invariant(plant.project, deadline_s=60)
    plant.order("partial.written@spend", "run out of memory")
    plant.order("refresh.done@newest", "run out of memory")
    plant.drop()
    eventually(lambda: plant.obeyed("partial.written@spend"))
    eventually(lambda: plant.obeyed("refresh.done@newest"))
    assert_invariant(plant.project)


HUNGRY = usual_with(
    "hungry",
    """
import resource


@feature(keys=["user_id"], source="drops/", timestamp="at", incremental=True)
def hungry(df: pl.DataFrame) -> pl.DataFrame:
    if is_there("hunger"):
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, resource.RLIM_INFINITY))
        bytearray(8 << 30)
    return df.select("user_id", "at", "amount")
""",
)


@pytest.mark.slow
def test_a_function_that_takes_more_memory_than_there_is_sets_no_file_aside(
    redis,
    server,
    tmp_path,
) -> None:
    plant = Plant(tmp_path, server.url, text=HUNGRY).run_all()
    for _ in running(plant):
        plant.drop()
        assert_invariant(plant.project, deadline_s=60)
        (tmp_path / "hunger").touch()
        plant.drop()
        failed = eventually(lambda: t if (t := plant.ticket("hungry")).interruptions else None)
        assert "MemoryError" in failed.error
        assert_invariant(plant.project, features=OTHERS)
        (tmp_path / "hunger").unlink()
        assert_invariant(plant.project)


HUNG = usual_with(
    "hung",
    """
import ctypes


@feature(keys=["user_id"], source="drops/", timestamp="at", incremental=True)
def hung(df: pl.DataFrame) -> pl.DataFrame:
    if is_there("hang"):
        (HERE / "hangs").touch()
        lock, libc = ctypes.create_string_buffer(128), ctypes.PyDLL(None)
        libc.pthread_mutex_lock(lock)
        libc.pthread_mutex_lock(lock)  # for ever, and no other thread of this process runs
    return df.select("user_id", "at", "amount")
""",
)


@pytest.mark.slow
def test_a_function_stuck_in_native_code_is_killed_and_nobody_else_waits(
    redis,
    server,
    tmp_path,
) -> None:
    """It holds the interpreter, so that neither an alarm nor the lease's thread gets to run."""
    plant = Plant(tmp_path, server.url, text=HUNG, extra={"MLFORGE_JOB_TIMEOUT": "7"}).run_all()
    for _ in running(plant):
        plant.drop()
        assert_invariant(plant.project, deadline_s=60)
        (tmp_path / "hang").touch()
        plant.drop()
        eventually((tmp_path / "hangs").exists)
        assert_invariant(plant.project, features=OTHERS)
        began = plant.ticket("hung")
        assert began.leased
        assert not began.error
        failed = eventually(lambda: t if (t := plant.ticket("hung")).failures else None)
        assert "not done within 7 s (MLFORGE_JOB_TIMEOUT)" in failed.error
        assert (failed.failures, failed.interruptions) == (1, 0), "its lease was held all the while"
        (tmp_path / "hang").unlink()
        assert_invariant(plant.project)


def poisoned(plant: Plant) -> Iterator[None]:
    """Run a plant one feature of which meets its poison: the others are none the worse for it."""
    (plant.folder / "poison").mkdir()
    (plant.folder / "poisoned").touch()
    plant.run_all()
    for _ in running(plant):
        plant.drop(into="poison")
        plant.drop()
        assert_invariant(plant.project, features=OTHERS, deadline_s=60)
        yield


DEADLY = usual_with(
    "deadly",
    """
import os
import signal


@feature(keys=["user_id"], source="poison/", timestamp="at", incremental=True)
def deadly(df: pl.DataFrame) -> pl.DataFrame:
    if is_there("poisoned"):
        os.kill(os.getpid(), signal.SIGKILL)
    return df.select("user_id", "at", "amount")
""",
)


def hurried(redis: Redis, plant: Plant, feature: str) -> Ticket:
    """The ticket, whose pause after a death is over."""
    found = plant.ticket(feature)
    if found.deaths and not found.leased and not found.queued:
        redis.hset(f"mlforge-work:{plant.project.scope}:ticket:{feature}", "failed_at", 1)
    return found


@pytest.mark.slow
def test_a_function_that_ends_every_process_is_parked_and_nobody_else_waits(
    redis,
    server,
    tmp_path,
) -> None:
    plant = Plant(tmp_path, server.url, text=DEADLY)
    for _ in poisoned(plant):
        eventually(lambda: hurried(redis, plant, "deadly").parked, 60)
        assert plant.ticket("deadly").deaths == DEATHS
        assert "SIGKILL" in plant.ticket("deadly").error
        (tmp_path / "poisoned").unlink()
        assert plant.ask("retry", "deadly").returncode == 0
        assert_invariant(plant.project, deadline_s=60)


POISON = usual_with(
    "poison",
    """
@feature(keys=["user_id"], source="poison/", timestamp="at", incremental=True)
def poison(df: pl.DataFrame) -> pl.DataFrame:
    if is_there("poisoned"):
        (HERE / "tries").open("a").write("x")
        raise ValueError("as always")
    return df.select("user_id", "at", "amount")
""",
)


def tries(plant: Plant) -> int:
    return (plant.folder / "tries").stat().st_size


def by_command(plant: Plant) -> None:
    assert plant.ask("retry", "poison").returncode == 0


def by_file(plant: Plant) -> None:
    plant.drop(into="poison")


def by_code(plant: Plant) -> None:
    file = plant.folder / "definitions.py"
    file.write_text(file.read_text().replace('ValueError("as always")', 'ValueError("as ever")'))


@pytest.mark.slow
def test_a_poison_feature_is_parked_seen_and_tried_again_when_something_changes(
    redis,
    server,
    tmp_path,
) -> None:
    plant = Plant(tmp_path, server.url, text=POISON)
    for _ in poisoned(plant):
        eventually(lambda: plant.ticket("poison").parked, 60)
        status = plant.ask("status")
        assert status.returncode == 1
        assert "given up until a file or the code changes" in status.stdout
        plant.drop()
        assert_invariant(plant.project, features=OTHERS)
        again: list[Callable[[Plant], None]] = [by_command, by_file, by_code]
        for what in again:
            tried = tries(plant)
            what(plant)
            eventually(lambda tried=tried: tries(plant) > tried)
        (tmp_path / "poisoned").unlink()
        by_command(plant)
        assert_invariant(plant.reopened(), deadline_s=60)
