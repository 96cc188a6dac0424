"""A full build by tasks over a store in a bucket: machines share nothing but the bucket, and the bytes are those of a build at home."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge.build.result import BuildResult, Options
from mlforge.build.runner import RunHere
from mlforge.build.tasks import BuildTask, TaskResult
from mlforge.core import failpoints
from mlforge.core.manifest import Part
from mlforge.engines.tiles import build
from mlforge.errors import VersionConflict
from mlforge.metrics import Rolling
from mlforge.store import LocalStore, ObjectStore, TablePiece
from mlforge.store.objects.task_files import ObjectTaskFiles
from tests.contracts.test_build_tasks import SHAPES, TINY, WHOLE, Nobody, history
from tests.support.objects import MemoryObjects
from tests.support.projects import Project, rows
from tests.support.scattered import Scattered, TaskKilledError

URL = "s3://memory/store"


class Machines:
    """Machines with caches of their own, a bucket that all of them reach, and a folder of sources."""

    options = WHOLE

    def __init__(self, root: Path) -> None:
        self.root, self.objects = root, MemoryObjects()
        self.project = Project(root / "project")
        history(self.project)

    def store(self, machine: str, grace: str = "1d") -> ObjectStore:
        objects = MemoryObjects(self.objects.stored)
        return ObjectStore(URL, self.root / machine, grace=grace, objects=objects)

    def build(
        self, runner: Scattered, store: ObjectStore | None = None, **shape: Any
    ) -> BuildResult:
        """A build by one machine whose tasks two others run."""
        options: Any = {"runner": runner, "distribute_above": 0}
        feature = self.project.define(**shape)
        runner.executors = [
            self.project.on(self.store(machine)).definitions(feature, **options).run_task
            for machine in ("second", "third")
        ]
        first = self.project.on(store or self.store("first"))
        return first.definitions(feature, **options).refresh("spend", options=self.options)

    def at_home(self, **shape: Any) -> LocalStore:
        """The store of a build by one process, on a disk."""
        home = LocalStore(self.root / "home")
        definitions = self.project.on(home).definitions(self.project.define(**shape))
        definitions.refresh("spend", options=self.options)
        return home

    def are_as_at_home(self, home: LocalStore) -> None:
        """A machine that knows nothing yet reads the very bytes that a build at home has."""
        store = self.store("reader")
        ours, theirs = store.read_metadata("spend"), home.read_metadata("spend")
        assert [(p.file, p.hash) for p in ours.parts] == [(p.file, p.hash) for p in theirs.parts]
        assert ours.content_hash == theirs.content_hash
        assert store.read("spend").equals(home.read("spend"))
        assert store.check_manifest(ours) == []
        assert self.keys("_tasks") == []

    def keys(self, folder: str) -> list[str]:
        return [key for key in self.objects.stored if key.startswith(f"spend/{folder}/")]


@pytest.fixture
def machines(tmp_path: Path) -> Machines:
    return Machines(tmp_path)


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(shape, marks=() if shape == "over all time" else pytest.mark.slow)
        for shape in SHAPES
    ],
)
def test_tasks_of_other_machines_give_the_bytes_of_a_build_at_home_and_are_uploaded_once(
    machines: Machines, shape: str
) -> None:
    first = machines.store("first")
    runner = Scattered(seed=len(shape))

    away = machines.build(runner, first, **SHAPES[shape])

    assert len(away.tasks) > 3
    machines.are_as_at_home(machines.at_home(**SHAPES[shape]))
    objects = first._objects
    assert isinstance(objects, MemoryObjects)
    written = [key for deed, key, *_ in objects.requests if deed == "put"]
    assert [key for key in written if "/_parts/" in key] == []
    partials = [key for key in written if "/_partials/" in key]
    assert sorted(partials) == sorted(machines.keys("_partials"))


@pytest.mark.parametrize(
    "shape",
    [
        "without metrics",
        pytest.param("continuous", marks=pytest.mark.slow),
        pytest.param("over all time", marks=pytest.mark.slow),
    ],
)
def test_buckets_of_entities_that_other_machines_evaluate_are_put_together_as_at_home(
    machines: Machines, shape: str
) -> None:
    machines.options = TINY

    away = machines.build(Scattered(seed=len(shape)), **SHAPES[shape])

    assert any(task.buckets > 1 for task in away.tasks)
    machines.are_as_at_home(machines.at_home(**SHAPES[shape]))


@pytest.mark.parametrize(
    "options", [pytest.param(WHOLE, marks=pytest.mark.slow), TINY], ids=["whole", "in buckets"]
)
def test_tiles_that_a_machine_has_cached_have_no_part_in_the_bytes_of_a_build(
    machines: Machines, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "FEWEST", 0)
    monkeypatch.setattr(build, "DENSE", 0)
    machines.options = options
    # Files of five days each: many an interval lies in two.
    shape: dict[str, Any] = {
        "metrics": [Rolling("6d", {"amount": ["std", "var"]})],
        "interval": "3d",
    }
    home = machines.at_home(**shape)
    assert list((home.path / "spend" / "_tiles").iterdir())

    away = machines.build(Scattered(seed=4), **shape)

    assert any(task.buckets > 1 for task in away.tasks) == (options is TINY)
    machines.are_as_at_home(home)


def test_a_build_whose_machine_was_lost_is_taken_up_by_another(machines: Machines) -> None:
    dying = Scattered(seed=1)
    dying.most = 3
    with pytest.raises(TaskKilledError):
        machines.build(dying)
    parts = set(machines.keys("_parts"))
    assert len(parts) >= 3
    assert machines.store("reader").versions("spend") == []

    again = Scattered(seed=2)
    machines.build(again, machines.store("fourth"))

    done = {f"spend/_tasks/{task.id}.json" for task in dying.tasks}
    assert done == {f"spend/_tasks/{task.id}.json" for task in again.tasks}
    assert parts <= set(machines.keys("_parts"))
    machines.are_as_at_home(machines.at_home())


def test_a_task_that_was_run_is_not_evaluated_again(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = Scattered(seed=1)
    dying.most = 3
    with pytest.raises(TaskKilledError):
        machines.build(dying)
    evaluated: list[str] = []
    write_part = ObjectTaskFiles.write_part

    def noted(self: ObjectTaskFiles, piece: TablePiece) -> Part:
        part = write_part(self, piece)
        evaluated.append(part.hash)
        return part

    before = {key.rpartition("/")[2].partition(".")[0] for key in machines.keys("_parts")}
    monkeypatch.setattr(ObjectTaskFiles, "write_part", noted)
    machines.build(Scattered(seed=2))

    assert before.isdisjoint(evaluated)
    assert evaluated


@pytest.mark.parametrize("step", ["publish.staged", "publish.renamed", "publish.pointed"])
def test_a_machine_that_is_killed_as_it_publishes_loses_nothing_of_the_tasks(
    machines: Machines, step: str
) -> None:
    def die() -> None:
        raise TaskKilledError

    failpoints.arm(step, die)
    with suppress(TaskKilledError):
        machines.build(Scattered(seed=3))
    failpoints.disarm()

    machines.build(Scattered(seed=4), machines.store("fourth"))
    with machines.store("fourth", grace="1us").lock("spend"):
        machines.store("fourth", grace="1us").remove_partials("spend", [])

    machines.are_as_at_home(machines.at_home())


@pytest.mark.parametrize("damage", ["cut short", "gone", "no result"])
def test_a_part_that_is_damaged_in_the_bucket_before_the_build_takes_it_is_made_again(
    machines: Machines, damage: str
) -> None:
    stored = machines.objects.stored

    class Damaging(Scattered):
        def run(self, tasks: Sequence[BuildTask], here: RunHere) -> Iterable[TaskResult]:
            results = list(super().run(tasks, here))
            key = f"spend/_parts/{results[1].parts[0].hash}.parquet"
            data, state, modified = stored.pop(key)
            if damage == "cut short":
                stored[key] = data[:-9], state, modified
            if damage == "no result":
                stored[f"spend/_tasks/{tasks[1].id}.json"] = b"{", state, modified
            return results

    machines.build(Damaging())

    machines.are_as_at_home(machines.at_home())


@pytest.mark.parametrize("kind", ["parts", "frames"])
def test_files_of_tasks_are_fetched_side_by_side_each_once(machines: Machines, kind: str) -> None:
    objects = MemoryObjects(machines.objects.stored)
    store = ObjectStore(URL, machines.root / "first", grace="1d", objects=objects)
    frames = [rows((n, n, 1.0)) for n in range(3)]
    with store.lock("spend"):
        writing = machines.store("second").task_files("spend")
        reading = store.task_files("spend")
        reading.prepare()
        if kind == "parts":
            hashes = [writing.write_part(TablePiece(frame, None)).hash for frame in frames]
        else:
            hashes = [*map(writing.write_frame, frames)]
        all_there = threading.Barrier(len(frames), timeout=60)
        objects.before = lambda deed, key: (
            all_there.wait() if deed == "download" and key.split("/")[-1][:-8] in hashes else None
        )

        files = getattr(reading, kind)([*hashes, hashes[0], "none"])

    assert files[3:] == [files[0], None]
    for file, frame in zip(files, frames, strict=False):
        assert pl.read_parquet(file or "").equals(frame)


def test_parts_that_another_machine_swept_meanwhile_are_missed_by_no_version(
    machines: Machines,
) -> None:
    class Swept(Scattered):
        def run(self, tasks: Sequence[BuildTask], here: RunHere) -> Iterable[TaskResult]:
            for number, result in enumerate(super().run(tasks, here)):
                yield result
                if number == 2:
                    other = machines.store("other", grace="1us")
                    other.remove_partials("spend", [])

    with suppress(VersionConflict):
        machines.build(Swept(seed=5))
    assert machines.store("reader").versions("spend") == []

    machines.build(Scattered(seed=6))
    machines.are_as_at_home(machines.at_home())


def test_what_a_killed_build_leaves_goes_by_age(machines: Machines) -> None:
    dying = Scattered(seed=1)
    dying.most = 3
    with pytest.raises(TaskKilledError):
        machines.build(dying)
    assert machines.keys("_tasks")
    machines.project.on(machines.store("first")).definitions().refresh("spend", options=WHOLE)
    assert machines.keys("_tasks")  # it may be another machine's, which is at work

    old = machines.store("first", grace="1us")
    with old.lock("spend"):
        old.remove_partials("spend", [])

    machines.are_as_at_home(machines.at_home())


@pytest.mark.parametrize("end", ["erased", "scrubbed", "published"])
def test_a_task_that_is_late_writes_nothing(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    dying = Scattered()
    dying.most = 0
    with pytest.raises(TaskKilledError):
        machines.build(dying)
    assert machines.keys("_tasks")
    other = machines.store("other")
    write_part = ObjectTaskFiles.write_part

    def late(self: ObjectTaskFiles, piece: TablePiece) -> Part:
        monkeypatch.setattr(ObjectTaskFiles, "write_part", write_part)
        ends[end]()
        objects.clear()
        objects.update(machines.objects.stored)
        return write_part(self, piece)

    def erased() -> None:
        with other.lock("spend"):
            other.erase("spend")

    def scrubbed() -> None:
        with other.lock("spend"):
            other.scrub("spend", ())
        with pytest.raises(TaskKilledError):
            machines.build(dying)  # another build has begun since

    def published() -> None:
        machines.build(Scattered(seed=7), other)

    ends: dict[str, Callable[[], None]] = {
        "erased": erased,
        "scrubbed": scrubbed,
        "published": published,
    }
    objects: dict[str, Any] = {}
    monkeypatch.setattr(ObjectTaskFiles, "write_part", late)
    with pytest.raises(VersionConflict, match="has ended"):
        dying.executors[0](dying.tasks[0].to_json())

    assert machines.objects.stored == objects
    ends["erased"]()
    with pytest.raises(VersionConflict, match="has ended"):
        dying.executors[1](dying.tasks[0].to_json())


def test_no_row_of_a_scrubbed_entity_is_left_of_a_killed_build(machines: Machines) -> None:
    machines.project.drop("rare", rows((7_203_984_651, 3.0, 1.0)))
    dying = Scattered(seed=1)
    dying.most = 3
    with pytest.raises(TaskKilledError):
        machines.build(dying, **SHAPES["over all time"])
    assert _holds(machines, 7_203_984_651)

    other = machines.store("other")
    with other.lock("spend"):
        other.scrub("spend", other.kept_partials("spend"))

    assert not _holds(machines, 7_203_984_651)


def _holds(machines: Machines, user: int) -> bool:
    files = [
        io.BytesIO(data)
        for key, (data, *_) in machines.objects.stored.items()
        if key.endswith(".parquet")
    ]
    return any(user in pl.read_parquet(file)["user_id"] for file in files)


def test_a_drop_of_a_shared_feature_has_no_requests_for_tasks(machines: Machines) -> None:
    store = machines.store("first")
    machines.build(Scattered(seed=1), store)
    machines.project.drop("last", rows((1, 41.0, 2.0)))
    objects = store._objects
    assert isinstance(objects, MemoryObjects)
    objects.requests.clear()

    definitions = machines.project.on(store).definitions(runner=Nobody(), distribute_above=0)
    assert definitions.refresh("spend").version == "1.0.1"

    assert [key for _, key, *_ in objects.requests if "_tasks" in key] == []
