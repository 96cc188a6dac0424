"""Training sets by tasks: JSON in and out, in any order, lost and run again, and the same files as by one process."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import Service, TrainingSet, ahead, events_of, training_set
from mlforge.build.distribution import Distribution
from mlforge.errors import IntegrityError, RetrievalError, RunnerUnavailable, TaskRefused
from mlforge.store import LocalStore
from mlforge.training_sets.by_tasks import shared_writing
from tests.support.projects import Project, at
from tests.support.scattered import SHAPES, SOME_SHAPES, Scattered, TaskKilledError, uneven

PART = 40


class Recorded(Scattered):
    """Scattered tasks, all of which are kept."""

    def __init__(self, project: Project, feature: Any, seed: int = 0) -> None:
        super().__init__(seed)
        others = [project.on(LocalStore(project.root / "store")).definitions(feature) for _ in "ab"]
        self.executors = [each.run_task for each in others]
        self.every: list[Any] = []
        self.dies_at = ""

    def run(self, tasks: Sequence[Any], here: Any) -> Iterable[Any]:
        self.every += tasks
        self.most = 1 if tasks[0].kind == self.dies_at else self.most
        return super().run(tasks, here)


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task has a few slices or parts."""
    monkeypatch.setattr(shared_writing, "TASK_BYTES", 16 * 8 * PART * 3)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return uneven(tmp_path)


def spine(project: Project, files: int = 3, seed: int = 5) -> Path:
    """Rows of known and unknown users in no order, many in one hour, some without a time, in a few files."""
    drawn, folder = random.Random(seed), project.root / "spine"
    folder.mkdir()
    for number in range(files):
        days = [drawn.choice([drawn.uniform(-1, 12), 4.5, None]) for _ in range(130 + number)]
        frame = pl.DataFrame(
            {
                "note": [f"{number}-{n}" for n in range(len(days))],
                "user_id": [drawn.randrange(14) for _ in days],
                "at": [None if day is None else at(day) for day in days],
            },
            schema={"note": pl.String, "user_id": pl.Int64, "at": pl.Datetime("us", "UTC")},
        )
        frame.write_parquet(folder / f"{number}.parquet", row_group_size=50)
    return folder


def as_one(made: TrainingSet) -> dict[str, Any]:
    """All that is known of a set, but for its own name and time."""
    return {**made.document.to_json(), "id": "", "created_at": ""}


@pytest.mark.parametrize("engine", ["polars", pytest.param("duckdb", marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", SOME_SHAPES)
def test_tasks_in_any_order_make_the_files_of_a_set_by_one_process(
    project: Project, shape: str, engine: str
) -> None:
    feature = project.define(**SHAPES[shape])
    project.build(feature)
    runner = Recorded(project, feature, seed=len(shape))
    about: dict[str, Any] = {"store": project.store, "engine": engine, "part_rows": PART}
    path = spine(project)

    alone = training_set(path, ["spend"], out=project.root / "alone", **about)
    shared = training_set(path, ["spend"], out=project.root / "shared", runner=runner, **about)

    assert shared.read().equals(alone.read(), null_equal=True)
    assert as_one(shared) == as_one(alone)
    assert shared.verify() == []
    assert {task.kind for task in runner.every} == {"join", "parts"}
    assert len(runner.every) > 3
    assert [path.name for path in project.root.glob(".*")] == []


@pytest.mark.slow
def test_a_service_with_labels_over_rows_of_events_or_of_memory_is_the_same_by_tasks(
    project: Project,
) -> None:
    spend = project.define(**SHAPES["continuous"])
    service = Service(
        "checkout",
        features=[spend["amount__sum__12h", "amount__mean__9d"].as_("buyer", user_id="buyer_id")],
        request={"price": pl.Float64},
        derive={"share": "price / buyer__amount__mean__9d"},
        defaults={"buyer__amount__sum__12h": 0.0},
    )
    project.definitions(spend, services=[service]).build()
    labels = {"ahead": ahead(spend.as_("buyer", user_id="buyer_id"), "amount", "sum", "2d")}
    frame = pl.read_parquet(spine(project)).rename({"user_id": "buyer_id"})
    priced = frame.with_columns(price=pl.int_range(pl.len()).cast(pl.Float64))
    about: dict[str, Any] = {"store": project.store, "part_rows": PART}
    for name, rows_of, features, own in (
        ("memory", priced, service, labels),
        (
            "events",
            events_of(spend, every="6h"),
            ["spend"],
            {"ahead": ahead(spend, "amount", "count", "1d")},
        ),
    ):
        runner = Recorded(project, spend)
        alone = training_set(rows_of, features, out=project.root / f"{name}1", labels=own, **about)
        shared = training_set(
            rows_of, features, out=project.root / f"{name}2", labels=own, runner=runner, **about
        )

        assert as_one(shared) == as_one(alone)
        assert shared.document.labels[0].unknown > 0
        assert len(runner.every) > 3


def made_by(runner: Any, project: Project, path: Path) -> TrainingSet:
    """The training set of a spine, in parts of a few rows, by the tasks of a runner."""
    out = project.root / "set"
    return training_set(path, ["spend"], project.store, out, part_rows=PART, runner=runner)


def test_a_set_that_is_killed_is_not_there_and_is_made_anew(project: Project) -> None:
    feature = project.define()
    project.build(feature)
    path, out = spine(project), project.root / "set"
    for stage in ("join", "parts"):
        killed = Recorded(project, feature)
        killed.dies_at = stage
        with pytest.raises(TaskKilledError):
            training_set(path, ["spend"], project.store, out, part_rows=PART, runner=killed)
        assert not out.exists()
        assert project.store.books("spend").sets == {}

    made = training_set(
        path, ["spend"], project.store, out, part_rows=PART, runner=Recorded(project, feature)
    )

    assert made.read().height == 393
    assert made.verify() == []


def test_a_task_that_is_late_writes_nothing_into_the_set(project: Project) -> None:
    feature = project.define()
    project.build(feature)
    runner = Recorded(project, feature)
    made = made_by(runner, project, spine(project))

    for task in runner.every:
        with pytest.raises(TaskRefused, match="finished or given up"):
            runner.executors[0](task.to_json())

    assert {file.name for file in made.path.iterdir()} == {
        *(part.file for part in made.document.parts),
        "training_set.json",
        "features.lock",
    }
    assert made.verify() == []


def test_a_process_with_another_store_refuses_a_task(project: Project, tmp_path: Path) -> None:
    feature = project.define()
    project.build(feature)
    runner = Recorded(project, feature)
    elsewhere = project.on(LocalStore(tmp_path / "elsewhere"))
    elsewhere.build(feature)
    runner.executors = [elsewhere.definitions(feature).run_task]

    with pytest.raises(TaskRefused, match="is made from the store"):
        made_by(runner, project, spine(project))

    assert not (project.root / "set").exists()


def test_a_part_that_is_not_here_as_a_task_wrote_it_makes_no_set(project: Project) -> None:
    feature = project.define()
    project.build(feature)
    runner = Recorded(project, feature)
    one = runner.one

    def damaged(task: Any) -> Any:
        result = one(task)
        if task.kind == "parts":
            for path in project.root.glob(".set.*/set/part-00003.parquet"):
                path.write_bytes(b"another disk")
        return result

    runner.one = damaged  # type: ignore[method-assign]
    with pytest.raises(IntegrityError, match=r"part-00003\.parquet of set is not here"):
        made_by(runner, project, spine(project))

    assert not (project.root / "set").exists()


def test_a_spine_that_changes_meanwhile_makes_no_set(project: Project) -> None:
    feature = project.define()
    project.build(feature)
    path, runner = spine(project), Recorded(project, feature)
    one = runner.one

    def replaced(task: Any) -> Any:
        pl.read_parquet(path / "1.parquet").reverse().write_parquet(path / "1.parquet")
        runner.one = one  # type: ignore[method-assign]
        return one(task)

    runner.one = replaced  # type: ignore[method-assign]
    with pytest.raises(RetrievalError, match="changed while it was read"):
        made_by(runner, project, path)


def test_short_spines_are_not_shared_and_long_ones_go_on_alone_where_they_may(
    project: Project,
) -> None:
    class Nobody(Recorded):
        def run(self, tasks: Sequence[Any], here: Any) -> Iterable[Any]:
            raise RunnerUnavailable("nobody is there")

    feature = project.define()
    project.build(feature)
    path = spine(project)

    def made(name: str, **how: Any) -> TrainingSet:
        return training_set(path, ["spend"], project.store, project.root / name, **how)

    nobody = Nobody(project, feature)
    assert made("whole", runner=nobody).rows == 393
    above = made("above", runner=Distribution(nobody, 393, ""), part_rows=PART)
    alone = made("alone", runner=Distribution(nobody, 392, "", alone=True), part_rows=PART)
    with pytest.raises(RunnerUnavailable, match="nobody is there"):
        made("nobody", runner=nobody, part_rows=PART)

    assert alone.document.parts == above.document.parts
    assert not (project.root / "nobody").exists()
