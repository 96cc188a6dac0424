"""An intake by tasks for several features of one source: each file is read once for all, and each feature is as at home."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import Definitions, Feature
from mlforge.build.intake_by_tasks import tasks as intake_tasks
from mlforge.build.result import Options
from mlforge.build.runner import RunHere
from mlforge.core import failpoints
from mlforge.definitions.building import companions_of
from mlforge.metrics import Rolling
from mlforge.store import LocalStore, ObjectStore, Store
from tests.contracts.test_intake_tasks import TINY_PACKS
from tests.support.objects import MemoryObjects
from tests.support.projects import Project, rows
from tests.support.scattered import Scattered, TaskKilledError, killed

NAMES = ("spend", "extremes", "doubled", "ranked")
FILES, GROUPS = 7, 4


def doubled(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", amount=pl.col("amount") * 2)


def ranked(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", amount=pl.col("amount").rank())


def features(project: Project) -> list[Feature]:
    """Two of one function, one of another, and one that must see the whole source."""
    extremes: list[Any] = [Rolling("7d", {"amount": ["min", "max"]})]
    return [
        project.define(),
        project.define(name="extremes", metrics=extremes),
        project.define(doubled, name="doubled"),
        project.define(ranked, name="ranked", incremental=False),
    ]


class Alone(Scattered):
    """Loses no process, and notes which tasks were beside others'."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.random.random = lambda: 1.0  # type: ignore[method-assign]
        self.beside: list[list[str]] = []

    def run(self, tasks: Sequence[Any], here: RunHere) -> Iterable[Any]:
        if tasks[0].kind == "intake":
            self.beside.append([other.feature for other in tasks[0].others])
        return super().run(tasks, here)


class Machines:
    def __init__(self, root: Path, place: str) -> None:
        self.root, self.place, self.objects = root, place, MemoryObjects()
        self.project = Project(root / "project")
        for number in range(FILES):
            self.drop(number)
        bad = self.project.drop("bad", rows((1, 2, 3.0)))
        bad.write_bytes(bad.read_bytes()[:90] + b"PAR1")

    def drop(self, number: int) -> None:
        days = [number * 5 + n / 5 for n in range(9)]
        self.project.drop(
            f"good{number}", rows(*((n % 3, day, day / 7) for n, day in enumerate(days)))
        )

    def store(self, machine: str) -> Store:
        if self.place == "folder":
            return LocalStore(self.root / "shared", TINY_PACKS)
        objects = MemoryObjects(self.objects.stored)
        return ObjectStore("s3://memory/store", self.root / machine, grace="1d", objects=objects)

    def definitions(self, runner: Scattered) -> Definitions:
        settings: dict[str, Any] = {"runner": runner, "distribute_above": 0}
        first, *others = (
            self.project.on(self.store(name)).definitions(*features(self.project), **settings)
            for name in ("first", "second", "third")
        )
        runner.executors = [other.run_task for other in others]
        return first

    def are_as_at_home(self) -> None:
        home = LocalStore(self.root / "home", TINY_PACKS)
        self.project.on(home).definitions(*features(self.project)).build()
        ours = self.store("first")
        for name in NAMES:
            shared, own = ours.read_metadata(name), home.read_metadata(name)
            assert (shared.content_hash, shared.sources) == (own.content_hash, own.sources)
            assert shared.partials == own.partials
            assert [*ours.books(name).quarantine] == ["bad.parquet"]
            assert ours.check_partials(name, [p.hash for p in shared.partials]) == {}


@pytest.fixture(params=["folder", "bucket"])
def machines(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Machines:
    monkeypatch.setattr(intake_tasks, "GROUP_FILES", 2)
    monkeypatch.setattr("mlforge.build.intake_by_tasks.companions.SETTLED_NS", 0)
    return Machines(tmp_path, request.param)


@pytest.mark.parametrize("full", [False, True])
def test_each_file_is_read_once_by_tasks_for_all_features_that_treat_each_alone(
    machines: Machines, decoded: list[None], full: bool
) -> None:
    runner = Alone(seed=1)

    machines.definitions(runner).build(NAMES[:3], full=full)

    assert runner.beside == [["extremes", "doubled"], [], []]
    assert len(runner.intakes) == 3 * GROUPS
    assert len(decoded) == FILES
    machines.definitions(Alone()).build("ranked")
    machines.are_as_at_home()
    for name in NAMES:
        again = machines.definitions(Alone()).build(name)[name]
        assert (again.reason, again.intake) == ("unchanged", ())


def test_a_process_that_is_lost_amid_tasks_of_several_features_loses_none(
    machines: Machines,
) -> None:
    machines.definitions(Scattered(seed=5)).build()

    machines.are_as_at_home()


def test_tasks_beside_one_whose_process_was_lost_are_left_to_their_turn(
    machines: Machines,
) -> None:
    class Losing(Alone):
        without_result: list[str] | None = None

        def one(self, task: Any) -> Any:
            if task.kind != "intake" or not task.beside or self.without_result is not None:
                return super().one(task)
            failpoints.arm("task.ingested", killed)
            with pytest.raises(TaskKilledError):
                super().one(task)
            failpoints.disarm()
            result, store = super().one(task), machines.store("first")
            self.without_result = [
                other.feature
                for other in task.others
                if store.task_files(other.feature).document(other.id) is None
            ]
            return result

    runner = Losing(seed=6)
    machines.definitions(runner).build(NAMES[:3])

    assert runner.without_result == ["extremes", "doubled"]
    machines.definitions(Alone()).build("ranked")
    machines.are_as_at_home()


def test_a_feature_that_would_read_other_files_reads_them_in_its_own_turn(
    machines: Machines,
) -> None:
    machines.definitions(Alone()).build("extremes")
    for number in range(FILES, FILES + 4):
        machines.drop(number)
    runner = Alone(seed=2)

    machines.definitions(runner).build()

    assert runner.beside == [["doubled"], [], []]
    machines.are_as_at_home()


@pytest.mark.timeout(30)
def test_nobody_waits_for_a_feature_that_somebody_is_at_work_on(machines: Machines) -> None:
    with ExitStack() as at_work:

        class Watched(Alone):
            def run(self, tasks: Sequence[Any], here: RunHere) -> Iterable[Any]:
                at_work.close()
                return super().run(tasks, here)

        runner = Watched(seed=4)
        definitions = machines.definitions(runner)
        at_work.enter_context(machines.store("first").lock("extremes"))
        definitions.build(NAMES[:3])

    assert runner.beside == [["doubled"], [], []]
    machines.definitions(Alone()).build("ranked")
    machines.are_as_at_home()


def test_two_intakes_at_once_do_the_tasks_of_a_third_feature_beside_one_of_them(
    machines: Machines,
) -> None:
    runner = Alone(seed=7)
    definitions = machines.definitions(runner)
    others = {"spend": ["doubled"], "extremes": ["doubled"], "doubled": []}
    for name, names in others.items():
        options = Options(companions=partial(companions_of, definitions, names))
        definitions.refresh(name, options=options)

    assert runner.beside == [["doubled"], [], []]
    machines.definitions(Alone()).build("ranked")
    machines.are_as_at_home()


def test_a_function_that_fails_beside_another_fails_in_its_own_turn(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Panic(BaseException):
        """As polars has one, which is no Exception."""

    from mlforge.build.intake_by_tasks import running as intake_running

    read = intake_running._Work.read

    def panicking(work: Any, files: Any) -> None:
        if work.task.feature == "extremes" and work.task.id not in panicked:
            panicked.append(work.task.id)
            raise Panic
        read(work, files)

    panicked: list[str] = []
    monkeypatch.setattr(intake_running._Work, "read", panicking)
    machines.definitions(Alone(seed=3)).build()

    assert len(panicked) == GROUPS
    machines.are_as_at_home()
