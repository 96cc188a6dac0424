"""An intake by tasks: files read by other processes, in any order, lost and run again, and the very events of home."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import validators as v
from mlforge.build.intake_by_tasks.tasks import IntakeTask
from mlforge.build.result import BuildResult, Options
from mlforge.build.rows import Layout
from mlforge.build.runner import RunHere
from mlforge.core import failpoints
from mlforge.errors import BuildError, DefinitionError, TaskRefused
from mlforge.features.feature import Feature
from mlforge.store import LocalStore, ObjectStore, Store
from mlforge.store.local.packs import Packing
from tests.contracts.test_build_tasks import Nobody
from tests.support.objects import MemoryObjects
from tests.support.projects import Project, identity, rows
from tests.support.scattered import Scattered, TaskKilledError

GROUPED = Options(layout=Layout(part_rows=7), group_bytes=4_000)
"""Groups of some three files."""
TINY_PACKS = Packing(small_rows=20, at_least=2, pack_rows=30, grace_s=0)
GOOD = 8


def history(project: Project) -> None:
    """Files that are small and large, alike, empty, without any amount; and bad ones of every kind."""
    for number in range(GOOD):
        days = [number * 5 + n / 5 for n in range(30 if number % 3 == 0 else 4)]
        project.drop(f"good{number}", rows(*((n % 3, day, n / 7) for n, day in enumerate(days))))
    project.drop("again", rows((1, 2, 0.5), (2, 3, 0.5)))
    project.drop("again as it was", rows((1, 2, 0.5), (2, 3, 0.5)))
    project.drop("empty", rows())
    project.drop("no amount", rows((1, 4, None), (None, 5, None)))
    project.drop("lacks amount", rows((1, 2, 3.0)).drop("amount"))
    project.drop("text", rows((1, 2, 3.0)).with_columns(pl.lit("much").alias("amount")))
    project.drop("negative", rows((1, 2, -3.0)))
    damaged = project.drop("damaged", rows((1, 2, 3.0)))
    damaged.write_bytes(damaged.read_bytes()[:90] + b"PAR1")


def spend(project: Project, **changes: Any) -> Feature:
    return project.define(validators={"amount": [v.greater_than_or_equal(0)]}, **changes)


class Machines:
    """A project whose files several processes read, by stores of their own: a folder in common, or caches before a bucket."""

    def __init__(self, root: Path, place: str) -> None:
        self.root, self.place, self.objects = root, place, MemoryObjects()
        self.project = Project(root / "project")
        history(self.project)

    def store(self, machine: str) -> Store:
        if self.place == "folder":
            return LocalStore(self.root / "shared", TINY_PACKS)
        objects = MemoryObjects(self.objects.stored)
        return ObjectStore("s3://memory/store", self.root / machine, grace="1d", objects=objects)

    def build(
        self,
        runner: Scattered,
        define: Callable[[Project], Feature] = spend,
        options: Options = GROUPED,
        machine: str = "first",
        **settings: Any,
    ) -> BuildResult:
        settings = {"runner": runner, "distribute_above": 0, **settings}
        runner.executors = [
            self.project.on(self.store(other))
            .definitions(define(self.project), **settings)
            .run_task
            for other in ("second", "third")
        ]
        first = self.project.on(self.store(machine))
        return first.definitions(define(self.project), **settings).refresh("spend", options=options)

    def are_as_at_home(self, define: Callable[[Project], Feature] = spend) -> BuildResult:
        """Version, lineage, quarantine and file states are those of a build by one process; returns that."""
        home = LocalStore(self.root / "home", TINY_PACKS)
        alone = self.project.on(home).definitions(define(self.project))
        result = alone.refresh("spend", options=GROUPED)
        ours = self.store("first")
        shared, own = ours.read_metadata("spend"), home.read_metadata("spend")
        assert shared.content_hash == own.content_hash
        assert shared.partials == own.partials
        assert shared.sources == own.sources
        assert (shared.rowwise, shared.why, shared.events) == (own.rowwise, own.why, own.events)
        reasons = [
            [(path, bad.reason, bad.memo) for path, bad in store.books("spend").quarantine.items()]
            for store in (ours, home)
        ]
        assert reasons[0] == reasons[1]
        seen = [
            {path: state._replace(mtime_ns=0) for path, state in store.file_states("spend").items()}
            for store in (ours, home)
        ]
        assert seen[0] == seen[1]
        assert ours.check_partials("spend", [p.hash for p in shared.partials]) == {}
        return result


@pytest.fixture(params=["folder", "bucket"])
def machines(request: pytest.FixtureRequest, tmp_path: Path) -> Machines:
    return Machines(tmp_path, request.param)


@contextmanager
def counted_ingestions() -> Iterator[list[str]]:
    """One entry for each group of files that is ingested by a task."""
    done: list[str] = []
    failpoints.arm("task.ingested", lambda: done.append("once"))
    try:
        yield done
    finally:
        failpoints.disarm()


def test_tasks_in_any_order_give_the_events_of_home_and_set_aside_what_is_bad_there(
    machines: Machines,
) -> None:
    runner = Scattered(seed=3)

    away = machines.build(runner)

    home = machines.are_as_at_home()
    assert [*machines.store("first").books("spend").quarantine] == [
        "damaged.parquet",
        "lacks amount.parquet",
        "negative.parquet",
        "text.parquet",
    ]
    assert away.warnings == home.warnings
    assert away.intake == home.intake
    # A second round has the files without any amount, once the dtypes of others are known.
    assert len(runner.intakes) >= len(home.intake) > 3
    assert sum(group.files for group in home.intake) == GOOD + 8
    again = machines.build(Scattered())
    assert (again.reason, again.files_read, again.intake) == ("unchanged", 0, ())


def test_files_without_any_value_in_a_column_are_read_by_tasks_too_once_others_dtypes_are_known(
    machines: Machines,
) -> None:
    for number in range(9):
        untyped = rows((1, number, None)).with_columns(pl.lit(None).alias("amount"))
        machines.project.drop(f"untyped{number}", untyped)
    runner, away = Scattered(seed=1), GROUPED
    away = replace(GROUPED, group_bytes=1_500)

    machines.build(runner, options=away)

    documents = [task.group for task in runner.intakes]
    assert len(documents) == len({*documents})
    machines.are_as_at_home()
    plain = machines.build(Scattered(), options=replace(away, full=True))
    assert plain.reason == "unchanged"
    machines.are_as_at_home()


def test_an_intake_whose_process_was_lost_takes_up_what_tasks_have_done(
    machines: Machines,
) -> None:
    dying = Scattered(seed=1)
    dying.most = 3
    with pytest.raises(TaskKilledError):
        machines.build(dying)
    assert machines.store("reader").versions("spend") == []

    again = Scattered(seed=2)
    again.random.random = lambda: 1.0  # type: ignore[method-assign]  # kills nobody
    with counted_ingestions() as done:
        machines.build(again, machine="fourth" if machines.place == "bucket" else "first")

    first = dying.intakes
    assert [task.id for task in again.intakes[: len(first)]] == [task.id for task in first]
    assert len(done) == len(again.intakes) - 3
    machines.are_as_at_home()


def test_a_full_build_reads_again_what_tasks_of_a_lost_one_have_read(tmp_path: Path) -> None:
    machines, full = Machines(tmp_path, "folder"), replace(GROUPED, full=True)
    dying = Scattered(seed=1)
    dying.most = 3
    for options in (GROUPED, full):
        with pytest.raises(TaskKilledError):
            machines.build(dying, options=options)

    again = Scattered(seed=2)
    again.random.random = lambda: 1.0  # type: ignore[method-assign]  # kills nobody
    with counted_ingestions() as done:
        machines.build(again, options=full)

    assert len(done) == len({task.id for task in again.intakes})
    machines.are_as_at_home()


@pytest.mark.parametrize("step", ["packs.listed", "partial.written", "books.written"])
def test_a_process_that_is_killed_as_it_takes_events_up_loses_nothing(
    tmp_path: Path, step: str
) -> None:
    machines = Machines(tmp_path, "folder")
    deaths: list[str] = []

    def die() -> None:
        if deaths == ["ready"]:
            deaths.append("dead")
            raise TaskKilledError

    class Ready(Scattered):
        def run(self, tasks: Sequence[Any], here: RunHere) -> Iterable[Any]:
            results = [*super().run(tasks, here)]
            deaths[:] = deaths or ["ready"]
            return results

    failpoints.arm(step, die)
    try:
        with pytest.raises(TaskKilledError):
            machines.build(Ready(seed=1))
    finally:
        failpoints.disarm()

    machines.build(Scattered(seed=2))
    machines.are_as_at_home()


def test_what_a_task_wrote_and_is_damaged_before_it_is_taken_up_is_made_again(
    tmp_path: Path,
) -> None:
    machines = Machines(tmp_path, "folder")
    folder = tmp_path / "shared" / "spend" / ".tasks"

    class Damaging(Scattered):
        def run(self, tasks: Sequence[Any], here: RunHere) -> Iterable[Any]:
            results = [*super().run(tasks, here)]
            if isinstance(tasks[0], IntakeTask):
                file = folder / f"{results[0].partials[0]}.parquet"
                file.write_bytes(file.read_bytes()[:-9])
                (folder / f"{results[1].outcomes}.json").write_text("{")
                (folder / f"{results[2].partials[0]}.parquet").unlink()
            return results

    machines.build(Damaging())

    machines.are_as_at_home()
    assert not folder.exists()


class Failing(Scattered):
    """Has given up the second task of an intake, when those behind it have ended."""

    def run(self, tasks: Sequence[Any], here: RunHere) -> Iterable[Any]:
        if not isinstance(tasks[0], IntakeTask):
            yield from super().run(tasks, here)
            return
        first, given_up, *others = tasks
        yield from [*super().run([first, *others], here)][:1]
        raise given_up.failure("MemoryError", "", "host-7")


def test_files_of_a_task_that_fails_always_are_read_at_home(tmp_path: Path) -> None:
    machines = Machines(tmp_path, "folder")

    result = machines.build(Failing(seed=4))

    machines.are_as_at_home()
    assert len(result.intake) > 3


@pytest.mark.parametrize("seen", ["no folder", "other files"])
def test_files_that_others_do_not_reach_or_see_otherwise_are_read_at_home(
    tmp_path: Path, seen: str
) -> None:
    machines = Machines(tmp_path, "folder")
    project, runner = machines.project, Scattered(seed=5)
    settings: Any = {"runner": runner, "distribute_above": 0}
    definitions = project.on(machines.store("first")).definitions(spend(project), **settings)

    def on_another_machine(task: str) -> str:
        mounted = project.events.rename(tmp_path / "mounted")
        if seen == "other files":
            project.events.mkdir()
            for path in mounted.iterdir():
                shutil.copy2(mounted / "negative.parquet", project.events / path.name)
        try:
            return definitions.run_task(task)
        finally:
            shutil.rmtree(project.events, ignore_errors=True)
            mounted.rename(project.events)

    runner.executors = [on_another_machine]
    definitions.refresh("spend", options=GROUPED)

    assert len(runner.intakes) > 3
    machines.are_as_at_home()


def test_a_function_that_must_see_the_whole_source_gets_it_at_home(tmp_path: Path) -> None:
    machines = Machines(tmp_path, "folder")

    def ranked(df: pl.DataFrame) -> pl.DataFrame:
        return df.select("user_id", "at", pl.col("amount").rank().alias("amount"))

    def define(project: Project) -> Feature:
        return project.define(ranked)

    runner = Scattered(seed=6)
    machines.build(runner, define)

    assert runner.intakes
    assert not machines.store("first").read_metadata("spend").rowwise
    machines.are_as_at_home(define)


def test_a_function_that_reads_files_by_itself_is_refused_as_at_home(tmp_path: Path) -> None:
    machines = Machines(tmp_path, "folder")
    extra = machines.project.events / "good1.parquet"

    def reads(df: pl.DataFrame) -> pl.DataFrame:
        pl.read_parquet(extra)
        return identity(df)

    with pytest.raises(DefinitionError, match="reads files by itself"):
        machines.build(Scattered(), lambda project: project.define(reads))


def test_tables_of_a_function_are_read_by_tasks_and_must_be_those_of_home(
    machines: Machines,
) -> None:
    pl.DataFrame({"user_id": [0, 1], "rate": [2.0, 3.0]}).write_parquet(
        machines.project.root / "rates.parquet"
    )

    def rated(df: pl.DataFrame, rates: pl.DataFrame) -> pl.DataFrame:
        joined = df.join(rates, on="user_id", how="left")
        return joined.select("user_id", "at", pl.col("amount") * pl.col("rate"))

    def define(project: Project) -> Feature:
        return project.define(rated, tables={"rates": "rates.parquet"})

    runner = Scattered(seed=7)
    machines.build(runner, define)

    assert runner.intakes
    machines.are_as_at_home(define)


def test_a_task_of_another_release_or_code_is_refused_and_nothing_is_published(
    tmp_path: Path,
) -> None:
    machines = Machines(tmp_path, "folder")
    runner = Scattered()
    machines.build(runner)
    task = runner.intakes[0]
    machines.store("first").task_files("spend").prepare()

    other = replace(task, releases={**task.releases, "mlforge": "0.0.1"})
    with pytest.raises(TaskRefused, match=r"the task is of mlforge 0\.0\.1"):
        runner.executors[0](other.to_json())
    with pytest.raises(TaskRefused, match="other code"):
        runner.executors[0](replace(task, code="").to_json())
    machines.store("first").task_files("spend").clear()


def test_few_files_a_drop_and_a_careful_refresh_are_read_at_home(tmp_path: Path) -> None:
    machines = Machines(tmp_path, "folder")
    runner = Scattered()
    machines.build(runner, distribute_above=1_000_000)
    assert runner.tasks == []
    machines.project.drop("later", rows((1, 60, 1.0)))
    machines.build(runner)
    assert runner.intakes == []
    for number in range(2):
        machines.project.drop(f"other{number}", rows((1, 61 + number, 1.0)))
    result = machines.build(runner, options=replace(GROUPED, careful=True, group_bytes=1))
    assert runner.intakes == []
    assert len(result.intake) == 2


def test_nobody_there_is_said_once(tmp_path: Path) -> None:
    machines = Machines(tmp_path, "folder")
    settings: Any = {"runner": Nobody(), "distribute_above": 0}
    first = machines.project.on(machines.store("first"))
    alone = first.definitions(spend(machines.project), fallback="local", **settings)

    result = alone.refresh("spend", options=GROUPED)

    assert [w for w in result.warnings if "without the runner" in w] == [
        "done by this process alone, without the runner 'nobody': nobody is there"
    ]
    machines.are_as_at_home()
    with pytest.raises(BuildError):
        machines.project.on(LocalStore(tmp_path / "other")).definitions(**settings).build()
