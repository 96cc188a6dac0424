"""Training sets in a bucket: the bytes of a folder's, there at once or not at all, by machines that share nothing but the bucket."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pytest

from mlforge import TrainingSet, training_set
from mlforge.core import clock, failpoints
from mlforge.core.values import Duration
from mlforge.errors import IntegrityError, RetrievalError, StoreError, TaskRefused
from mlforge.metrics import Rolling
from mlforge.store import LocalStore, ObjectStore
from mlforge.training_sets import stored_set
from mlforge.training_sets.bucket import BucketFiles
from mlforge.training_sets.by_tasks import shared_writing
from mlforge.training_sets.places import place_at
from tests.support.object_servers import BUCKET, seaweed
from tests.support.objects import MemoryObjects
from tests.support.projects import Project, rows
from tests.support.scattered import Scattered

OUT = "s3://memory/train/2026-11"
PART = 30


class InMemory(ObjectStore):
    """A store of which other addresses lie in memory, too; before and after: called with each deed there and its key."""

    others: ClassVar[dict[str, dict[str, Any]]] = {}
    before: Callable[[str, str], None] = staticmethod(lambda deed, key: None)
    after: Callable[[str, str], None] = staticmethod(lambda deed, key: None)

    def objects_at(self, url: str) -> MemoryObjects:
        client = MemoryObjects(self.others.setdefault(url, {}))
        client.url, client.before, client.after = url, self.before, self.after
        return client


class Machines:
    """Machines with caches of their own and a bucket that all of them reach, with a feature that one of them has built."""

    def __init__(self, root: Path) -> None:
        self.root, self.stored = root, dict[str, tuple[bytes, int, int]]()
        self.project = Project(root / "project")
        for number in range(3):
            events = [(n % 5, number * 3 + n / 20, (n + 1) ** 3 / 7) for n in range(60)]
            self.project.drop(f"f{number}", rows(*events))
        aggregations = ["sum", "mean", "std", "last"]
        self.feature = self.project.define(metrics=[Rolling("2d", {"amount": aggregations})])
        self.at("first").build(self.feature)
        spine = [(n % 6, (n * 7 % 190) / 19, 0.0) for n in range(200)]
        self.spine = rows(*spine).drop("amount").with_row_index("note")

    def store(self, machine: str) -> InMemory:
        return InMemory(
            "s3://memory/store", self.root / machine, objects=MemoryObjects(self.stored)
        )

    def at(self, machine: str) -> Project:
        return self.project.on(self.store(machine))

    def runner(self) -> Recorded:
        definitions = [self.at(each).definitions(self.feature) for each in ("second", "third")]
        return Recorded([each.run_task for each in definitions])

    def made(self, out: str | Path = OUT, spine: Any = None, **how: Any) -> TrainingSet:
        rows_of = self.spine if spine is None else spine
        return training_set(rows_of, ["spend"], self.store("first"), out, part_rows=PART, **how)

    @property
    def objects(self) -> Mapping[str, Any]:
        return InMemory.others[OUT]


class Recorded(Scattered):
    """Scattered tasks, all of which are kept."""

    def __init__(self, executors: list[Any]) -> None:
        super().__init__()
        self.executors, self.every = executors, list[Any]()

    def run(self, tasks: Any, here: Any) -> Any:
        self.every += tasks
        return super().run(tasks, here)


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    monkeypatch.setattr(InMemory, "others", {})
    monkeypatch.setattr(stored_set, "_KEPT", tmp_path / "kept")
    monkeypatch.setattr(shared_writing, "TASK_BYTES", 16 * 7 * PART * 2)
    return Machines(tmp_path)


@pytest.mark.parametrize("spine", ["in memory", "in a plan", "in files"])
@pytest.mark.parametrize("by", ["one process", "tasks"])
def test_a_set_has_the_bytes_of_one_in_a_folder_and_nothing_lies_beside_it(
    machines: Machines, by: str, spine: str
) -> None:
    path = machines.root / "spine.parquet"
    machines.spine.write_parquet(path)
    given = {"in memory": machines.spine, "in a plan": pl.scan_parquet(path), "in files": path}
    runner = machines.runner()
    how: Any = {"runner": runner} if by == "tasks" else {}
    home = machines.made(machines.root / "home", given[spine])

    made = machines.made(OUT, given[spine], **how)

    seen = TrainingSet.open(OUT, machines.store("reader"))
    assert seen.document == made.document
    assert seen.read().equals(home.read())
    assert [part.hash for part in made.document.parts] == [p.hash for p in home.document.parts]
    assert (seen.verify(), seen.address, seen.lock.columns) == ([], OUT, home.lock.columns)
    parts = {part.file for part in made.document.parts}
    assert {*machines.objects} == {*parts, f"{made.document.id}/features.lock", "training_set.json"}
    assert len(parts) == 7
    assert {task.kind for task in runner.every} == ({"join", "parts"} if how else set())
    assert made.release(machines.store("first")) == ("spend",)


def test_a_task_that_is_late_writes_nothing(machines: Machines) -> None:
    runner = machines.runner()
    machines.made(runner=runner)
    before = {*machines.objects}

    for task in runner.every:
        with pytest.raises(TaskRefused, match="finished or given up"):
            runner.executors[0](task.to_json())

    assert {*machines.objects} == before


def test_of_two_that_make_a_set_in_one_place_one_is_refused_and_leaves_nothing(
    machines: Machines,
) -> None:
    other: list[TrainingSet] = []

    def another() -> None:
        failpoints.disarm()
        other.append(machines.made())

    failpoints.arm("set.written", another)
    try:
        with pytest.raises(RetrievalError, match="never overwritten"):
            machines.made()
    finally:
        failpoints.disarm()

    [made] = other
    assert all(
        key.startswith(made.document.id) or key == "training_set.json" for key in machines.objects
    )
    assert TrainingSet.open(OUT, machines.store("reader")).verify() == []
    assert [*machines.store("first").books("spend").sets] == [made.document.id]
    with pytest.raises(RetrievalError, match="never overwritten"):
        machines.made()


@pytest.mark.parametrize("lost", [StoreError, KeyboardInterrupt])
def test_a_set_whose_document_is_there_keeps_its_parts_though_no_answer_tells(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, lost: type[BaseException]
) -> None:
    def lose(deed: str, key: str) -> None:
        if deed == "create":
            raise lost("no answer")

    monkeypatch.setattr(InMemory, "after", staticmethod(lose))

    with nullcontext() if lost is StoreError else pytest.raises(lost):
        machines.made()

    assert TrainingSet.open(OUT, machines.store("reader")).verify() == []
    assert [pin.until for pin in machines.store("first").books("spend").sets.values()] == [None]


def test_a_set_whose_document_cannot_be_written_leaves_nothing(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(deed: str, key: str) -> None:
        if deed == "create":
            raise StoreError("forbidden")

    monkeypatch.setattr(InMemory, "before", staticmethod(refuse))

    with pytest.raises(StoreError, match="forbidden"):
        machines.made()

    assert machines.objects == {}


def test_a_set_that_fails_leaves_nothing_and_holds_no_version(machines: Machines) -> None:
    with pytest.raises(RetrievalError, match="has no key column"):
        machines.made(spine=machines.spine.drop("user_id"))

    assert machines.objects == {}
    assert machines.store("first").books("spend").sets == {}
    with pytest.raises(RetrievalError, match="no training set in"):
        TrainingSet.open(OUT, machines.store("reader"))


def test_objects_that_are_gone_or_others_are_told(machines: Machines) -> None:
    made = machines.made()
    stored: Any = machines.objects
    first, second, *_ = (part.file for part in made.document.parts)
    stored[first] = (b"PAR1", *stored[first][1:])
    del stored[second]

    assert made.verify() == [f"{first} is not as it was written", f"{second} is missing"]
    with pytest.raises(IntegrityError):
        made.read()


MAKING = """
import os, signal, sys
from mlforge import training_set
from mlforge.core import failpoints
from mlforge.store import LocalStore
failpoints.arm("set.written", lambda: os.kill(os.getpid(), signal.SIGKILL))
training_set(sys.argv[1], ["spend"], LocalStore(sys.argv[2]), sys.argv[3], part_rows=2)
"""


@pytest.mark.slow
def test_a_set_on_a_real_server_whose_process_is_killed_is_not_there_and_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_set, "_KEPT", tmp_path / "kept")
    project = Project(tmp_path / "project")
    project.drop("a", rows(*((n % 2, n, n / 7) for n in range(9))))
    project.build()
    spine, store = tmp_path / "spine.parquet", project.store
    assert isinstance(store, LocalStore)
    rows(*((n % 2, n, 0.0) for n in range(5))).drop("amount").write_parquet(spine)
    out = f"s3://{BUCKET}/train/2026-11"
    with seaweed(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        command = [sys.executable, "-c", MAKING, str(spine), str(store.path), out]
        ended = subprocess.run(command, env={**os.environ}, check=False)
        assert ended.returncode == -signal.SIGKILL
        with pytest.raises(RetrievalError, match="no training set in"):
            TrainingSet.open(out)
        [left] = store.books("spend").sets

        made = training_set(spine, ["spend"], store, out, part_rows=2)
        assert TrainingSet.open(out).verify() == []
        with clock.fixed(clock.now() + Duration.parse("8d").us):
            training_set(spine, ["spend"], store, f"{out}-again")

        keys = [entry.key for entry in stored_set.objects_at(out).entries("")]
        assert {*store.books("spend").sets} >= {made.document.id}
        assert left not in store.books("spend").sets
        assert {key.partition("/")[0] for key in keys} == {made.document.id, "training_set.json"}


def test_a_file_whose_download_ends_midway_is_fetched_anew(tmp_path: Path) -> None:
    objects = MemoryObjects({})
    files = BucketFiles(objects, "set", tmp_path)
    objects.put("set/_making/aside/spine", b"whole")

    def cut(deed: str, key: str) -> None:
        [arrived] = tmp_path.iterdir()
        arrived.write_bytes(b"who")
        raise StoreError("the connection is gone")

    objects.after = cut
    with pytest.raises(StoreError, match="the connection is gone"):
        files.found("aside/spine")
    objects.after = lambda deed, key: None
    assert files.found("aside/spine").read_bytes() == b"whole"


def test_what_is_cleared_behind_a_set_that_is_there_is_none_of_its_parts(
    machines: Machines,
) -> None:
    made = machines.made()
    kept = dict(machines.objects)
    place_at(OUT, machines.store("first")).remove(made.document.id)
    assert machines.objects == kept
