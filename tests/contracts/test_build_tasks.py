"""A full build by tasks: JSON in and out, in any order, lost and run again, and the same bytes as at home."""

from __future__ import annotations

import json
import math
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.exceptions import ComputeError
from structlog.testing import capture_logs

from mlforge import cli
from mlforge.build.result import BuildResult, Options
from mlforge.build.rows import Layout
from mlforge.build.runner import RunHere, Runner
from mlforge.build.tasks import BuildTask, TaskResult
from mlforge.core import machine
from mlforge.core.aggregations import AGGREGATIONS
from mlforge.core.disk import hash_file
from mlforge.core.manifest import Part
from mlforge.errors import (
    DataError,
    DefinitionError,
    RunnerUnavailable,
    StoreError,
    StoreUnavailable,
    TaskRefused,
    UnsupportedStore,
    VersionConflict,
)
from mlforge.metrics import Rolling, ToDate
from mlforge.store import LocalStore, Store, TablePiece
from mlforge.store.file_tasks import Kept
from mlforge.store.local import task_files
from mlforge.store.local.task_files import LocalTaskFiles
from mlforge.store.local.write_behind import WriteBehind
from tests.support.projects import Project, rows
from tests.support.scattered import Scattered, TaskKilledError

WHOLE = Options(layout=Layout(part_rows=7, chunk_rows=45))
"""Ranges of two files each, which have and see no more events than they may."""
TINY = Options(layout=Layout(part_rows=7, chunk_rows=5))
"""Ranges of a file, which see more than they may: their entities are dealt into buckets."""
NAMES = list(AGGREGATIONS)
SHAPES: dict[str, dict[str, Any]] = {
    "continuous": {"metrics": [Rolling(["12h", "2d"], {"amount": NAMES}, closed="left")]},
    "over all time": {
        "metrics": [
            Rolling("all", {"amount": ["sum", "count", "mean", "std", "min"]}),
            Rolling("1d", {"amount": "median"}),
        ]
    },
    "aligned": {
        "metrics": [Rolling("2d", {"amount": "sum"}), ToDate("1w", {"amount": "mean"})],
        "interval": "6h",
    },
    "without metrics": {"metrics": []},
    "without keys": {"metrics": [Rolling("1d", {"amount": ["sum", "last"]})], "keys": []},
}


def history(project: Project) -> None:
    """Three users' uneven amounts over forty days, a file every five days, so that sums round."""
    for number in range(8):
        days = [number * 5 + n / 5 for n in range(25)]
        events = (
            (n % 3, day, math.exp(math.sin(n * number + 1) * 9) / 7) for n, day in enumerate(days)
        )
        project.drop(f"days{number}", rows(*events))


def by_tasks(
    project: Project,
    store: LocalStore,
    runner: Scattered,
    layout: Options = WHOLE,
    **shape: Any,
) -> BuildResult:
    """A build whose tasks are run by two other processes' definitions."""
    options: Any = {"runner": runner, "distribute_above": 0}
    feature = project.define(**shape)
    runner.executors = [
        project.on(LocalStore(store.path)).definitions(feature, **options).run_task for _ in "ab"
    ]
    return project.on(store).definitions(feature, **options).refresh("spend", options=layout)


def files_of(store: LocalStore) -> list[tuple[str, str]]:
    return [(part.file, part.hash) for part in store.read_metadata("spend").parts]


@pytest.mark.parametrize("engine", ["polars", pytest.param("duckdb", marks=pytest.mark.slow)])
@pytest.mark.parametrize("options", [WHOLE, TINY], ids=["whole", "in buckets"])
@pytest.mark.parametrize("shape", SHAPES)
def test_tasks_in_any_order_give_the_bytes_of_a_build_by_one_process(
    tmp_path: Path, shape: str, engine: str, options: Options
) -> None:
    project = Project(tmp_path, engine)
    history(project)
    alone, shared = LocalStore(tmp_path / "alone"), LocalStore(tmp_path / "shared")
    home = (
        project.on(alone)
        .definitions(project.define(**SHAPES[shape]))
        .refresh("spend", options=options)
    )

    runner = Scattered(seed=len(shape))
    away = by_tasks(project, shared, runner, options, **SHAPES[shape])

    assert len(runner.tasks) == len(home.tasks) > 3
    assert away.tasks == home.tasks
    assert away.manifest is not None
    assert files_of(shared) == files_of(alone)
    assert away.manifest.content_hash == alone.read_metadata("spend").content_hash
    assert any(task.carried for task in runner.tasks) == (shape == "over all time")
    can_be_dealt = options is TINY and shape != "without keys"
    assert any(task.buckets > 1 for task in runner.tasks) == can_be_dealt
    assert not (shared.path / "spend" / ".tasks").exists()


def _dying_after_three(tmp_path: Path) -> tuple[Project, LocalStore, Path, Scattered]:
    """A project, the store that its tasks share with the folder of these, and a runner that dies after three."""
    project, dying = Project(tmp_path), Scattered(seed=1)
    history(project)
    dying.most = 3
    store = LocalStore(tmp_path / "shared")
    return project, store, store.path / "spend" / ".tasks", dying


def test_a_build_whose_process_was_lost_takes_up_the_parts_that_are_there(tmp_path: Path) -> None:
    project, store, folder, dying = _dying_after_three(tmp_path)
    with pytest.raises(TaskKilledError):
        by_tasks(project, store, dying)
    done = [task.id for task in dying.tasks if (folder / f"{task.id}.json").exists()]
    assert len(done) == 3
    assert store.versions("spend") == []

    evaluated: list[str] = []
    again = Scattered(seed=2)
    again.one = lambda task: _watched(again, task, folder, evaluated)  # type: ignore[method-assign]
    by_tasks(project, LocalStore(store.path), again)

    assert sorted(evaluated) == sorted({task.id for task in again.tasks} - set(done))
    project.build()
    assert files_of(store) == files_of(_with_tiny_parts(project, tmp_path))


def test_a_full_build_takes_up_nothing_of_a_build_that_was_lost(tmp_path: Path) -> None:
    project, store, folder, dying = _dying_after_three(tmp_path)
    full = replace(WHOLE, full=True)
    for options in (WHOLE, full):
        with pytest.raises(TaskKilledError):
            by_tasks(project, store, dying, options)
    assert len([task for task in dying.tasks if (folder / f"{task.id}.json").exists()]) == 3

    evaluated: list[str] = []
    again = Scattered(seed=2)
    again.one = lambda task: _watched(again, task, folder, evaluated)  # type: ignore[method-assign]
    by_tasks(project, LocalStore(store.path), again, full)

    assert sorted(evaluated) == sorted(task.id for task in again.tasks)
    assert files_of(store) == files_of(_with_tiny_parts(project, tmp_path))


def test_no_task_is_given_away_before_the_events_that_it_reads_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path)
    history(project)
    begin, wait = WriteBehind.begin, WriteBehind.wait
    gates: dict[int, threading.Event] = {}

    def held(behind: WriteBehind, write: Callable[[], None], *kept: Mapping[str, Kept]) -> None:
        gate = gates.setdefault(id(behind), threading.Event())
        begin(behind, lambda: gate.wait(60) and write(), *kept)

    def awaited(behind: WriteBehind) -> None:
        gates.setdefault(id(behind), threading.Event()).set()
        wait(behind)

    monkeypatch.setattr(WriteBehind, "begin", held)
    monkeypatch.setattr(WriteBehind, "wait", awaited)
    with capture_logs() as logs:
        by_tasks(project, LocalStore(tmp_path / "shared"), Scattered(seed=1))

    assert gates
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == []


def _watched(runner: Scattered, task: BuildTask, folder: Path, evaluated: list[str]) -> TaskResult:
    if not (folder / f"{task.id}.json").exists():
        evaluated.append(task.id)
    written = {path: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    result = Scattered.one(runner, task)
    assert {path: path.stat().st_mtime_ns for path in written} == written or task.id in evaluated
    return result


def _with_tiny_parts(project: Project, root: Path) -> LocalStore:
    store = LocalStore(root / "alone")
    project.on(store).definitions().refresh("spend", options=WHOLE)
    return store


def test_a_build_in_buckets_puts_rows_aside_and_says_so_where_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path)
    history(project)
    spool = tmp_path / "spool"
    monkeypatch.setattr(tempfile, "tempdir", str(spool))

    assert project.definitions().refresh("spend", options=WHOLE).rows == 200  # needs none

    dealt = project.on(LocalStore(tmp_path / "dealt")).definitions()
    with pytest.raises(StoreError, match="TMPDIR"):
        dealt.refresh("spend", options=TINY)
    spool.mkdir()
    assert dealt.refresh("spend", options=TINY).rows == 200
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ("parquet: underlying IO error: No space left on device (os error 28)", StoreUnavailable),
        ("cannot write 'Object' datatype to parquet", DataError),
    ],
)
def test_rows_put_aside_that_parquet_cannot_hold_are_no_matter_of_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, kind: type[Exception]
) -> None:
    """Else a worker would try for good what no room mends."""
    project = Project(tmp_path)
    history(project)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    write = pl.DataFrame.write_parquet

    def refusing_aside(frame: pl.DataFrame, file: Any, **options: Any) -> None:
        if str(file).startswith(f"{tmp_path}/mlforge-scratch-build"):
            raise ComputeError(told)
        write(frame, file, **options)

    monkeypatch.setattr(pl.DataFrame, "write_parquet", refusing_aside)
    with pytest.raises(kind) as raised:
        project.definitions().refresh("spend", options=TINY)
    assert ("make room" in str(raised.value)) is (kind is StoreUnavailable)


@pytest.mark.parametrize("end", ["erased", "scrubbed"])
def test_a_task_that_is_late_writes_nothing_once_its_feature_is_erased_or_an_entity_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    project = Project(tmp_path)
    history(project)
    store, dying = LocalStore(tmp_path / "shared"), Scattered()
    dying.most = 0
    with pytest.raises(TaskKilledError):
        by_tasks(project, store, dying)
    assert list((store.path / "spend" / ".tasks").glob("*.json"))
    write_part = LocalTaskFiles.write_part

    def late(self: LocalTaskFiles, piece: TablePiece) -> Part:
        ends[end]()
        return write_part(self, piece)

    def erased() -> None:
        with store.lock("spend"):
            store.erase("spend")

    def scrubbed() -> None:
        with store.lock("spend"):
            store.scrub("spend", ())

    ends = {"erased": erased, "scrubbed": scrubbed}
    monkeypatch.setattr(LocalTaskFiles, "write_part", late)
    with pytest.raises(VersionConflict, match="has ended"):
        dying.executors[0](dying.tasks[0].to_json())

    assert not (store.path / "spend" / ".tasks").exists()
    assert list(store.path.rglob(".staged-*")) == []


def test_what_a_killed_build_left_is_gone_after_a_day(tmp_path: Path) -> None:
    project = Project(tmp_path)
    history(project)
    store, dying = LocalStore(tmp_path / "shared"), Scattered(seed=1)
    dying.most = 3
    with pytest.raises(TaskKilledError):
        by_tasks(project, store, dying)
    folder = store.path / "spend" / ".tasks"
    with store.lock("spend"):
        assert list(folder.glob("*.parquet"))

    day_ago = folder.stat().st_mtime - 86_500
    os.utime(folder, (day_ago, day_ago))
    with store.lock("spend"):
        assert not folder.exists()


@pytest.mark.parametrize("damage", ["cut short", "gone", "no result"])
def test_a_part_that_is_damaged_before_the_build_takes_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(task_files, "_NOTED_BYTES", 0)
    project = Project(tmp_path)
    history(project)
    store = LocalStore(tmp_path / "shared")

    class Damaging(Scattered):
        def run(self, tasks: Sequence[BuildTask], here: RunHere) -> Iterable[TaskResult]:
            results = list(super().run(tasks, here))
            folder = store.path / "spend" / ".tasks"
            file = folder / f"{results[1].parts[0].hash}.parquet"
            if damage == "cut short":
                file.write_bytes(file.read_bytes()[:-9])
            else:
                file.unlink()
            if damage == "no result":
                (folder / f"{tasks[1].id}.json").write_text("{")
            return results

    by_tasks(project, store, Damaging())

    assert files_of(store) == files_of(_with_tiny_parts(project, tmp_path))


@pytest.mark.parametrize("since", ["nothing", "another start", "another file", "other bytes"])
def test_a_file_is_hashed_once_on_a_machine_unless_it_is_another_by_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, since: str
) -> None:
    monkeypatch.setattr(task_files, "_NOTED_BYTES", 0)
    hashed: list[Path] = []
    files = LocalStore(tmp_path).task_files("spend")
    files.prepare()
    name = files.write_frame(rows((1, 1, 1.0)))
    path = files.frame(name)
    assert path is not None
    content, at = path.read_bytes(), path.stat()
    monkeypatch.setattr(
        task_files, "hash_file", lambda path: hashed.append(path) or hash_file(path)
    )
    if since == "another start":
        monkeypatch.setattr(machine, "boot", lambda: "another")
    if since == "another file":  # with the same bytes, at the same instant
        files.write_part(TablePiece(rows((1, 1, 1.0)), None))
        path.with_suffix(".copy").write_bytes(content)
        path.with_suffix(".copy").replace(path)
        os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
        hashed.clear()
    if since == "other bytes":
        path.write_bytes(content[:-9] + bytes(9))
        os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns + 1))

    assert files.frame(name) == (None if since == "other bytes" else path)

    assert len(hashed) == (since != "nothing")


def test_a_task_is_refused_by_other_definitions_other_releases_and_what_is_no_task(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path)
    history(project)
    runner = Scattered()
    by_tasks(project, LocalStore(tmp_path / "shared"), runner)
    task = runner.tasks[0]
    [run, _] = runner.executors

    with pytest.raises(TaskRefused, match="deploy the same definitions"):
        project.definitions(project.define(metrics=[])).run_task(task.to_json())
    other = replace(task, releases={**task.releases, "polars": "1.0.0"})
    with pytest.raises(TaskRefused, match=r"the task is of polars 1\.0\.0"):
        run(other.to_json())
    on_duckdb = replace(task, engine="duckdb", releases={**task.releases, "duckdb": "1.0.0"})
    with pytest.raises(TaskRefused, match=r"the task is of duckdb 1\.0\.0"):
        run(on_duckdb.to_json())
    for text in ("[", "{}", '{"feature": "spend", "code": "import os"}'):
        with pytest.raises(TaskRefused, match="no task of mlforge"):
            run(text)
    with pytest.raises(VersionConflict, match="has ended"):
        run(task.to_json())  # what it names is gone since the version was published


class Nobody(Runner):
    name = "nobody"

    def run(self, tasks: Sequence[BuildTask], here: RunHere) -> Iterable[TaskResult]:
        raise RunnerUnavailable("nobody is there")


def test_where_nobody_is_there_a_build_fails_or_goes_on_alone_as_it_was_told(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path)
    history(project)
    with pytest.raises(RunnerUnavailable, match=r"nobody is there; or .*fallback="):
        project.definitions(runner=Nobody(), distribute_above=0).refresh("spend", options=WHOLE)
    result = project.definitions(runner=Nobody(), distribute_above=0, fallback="local").refresh(
        "spend", options=WHOLE
    )

    assert result.version == "1.0.0"
    assert result.warnings == (
        "done by this process alone, without the runner 'nobody': nobody is there",
    )
    assert files_of(project.store) == files_of(_with_tiny_parts(project, tmp_path))  # type: ignore[arg-type]


class Placeless(LocalStore):
    """A store with no place for tasks."""

    task_files = Store.task_files  # type: ignore[assignment]


def test_a_store_without_a_place_for_tasks_refuses_them_or_is_built_alone(tmp_path: Path) -> None:
    project = Project(tmp_path)
    history(project)
    project.store = Placeless(tmp_path / "placeless")
    options: Any = {"runner": Scattered(), "distribute_above": 0}
    with pytest.raises(UnsupportedStore, match="runner='local'"):
        project.definitions(**options).refresh("spend", options=WHOLE)

    alone = project.definitions(fallback="local", **options).refresh("spend")
    assert alone.rows == 200
    [warning] = alone.warnings
    assert "without the runner 'scattered'" in warning


def test_a_build_of_no_more_events_than_the_bound_is_not_shared(tmp_path: Path) -> None:
    project = Project(tmp_path)
    history(project)

    assert project.definitions(runner=Nobody(), distribute_above=200).refresh("spend").rows == 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runner": "spork"}, "Definitions: runner"),
        ({"distribute_above": -1}, "below 0"),
        ({"fallback": "cloud"}, "Definitions: fallback"),
    ],
)
def test_settings_of_a_runner_are_checked(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        Project(tmp_path).definitions(**options)


def test_a_plan_shows_the_tasks_of_a_full_build_and_none_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path)
    history(project)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mlforge.build.full.rows_at_once", lambda spec: 50)
    (tmp_path / "definitions.py").write_text(
        "from mlforge import Definitions, feature\n"
        "from mlforge.store import LocalStore\n"
        "from mlforge.metrics import Rolling\n"
        "@feature(keys=['user_id'], source='events', timestamp='at', name='spend',\n"
        "         metrics=[Rolling('2d', {'amount': 'sum'})])\n"
        "def spend(df):\n    return df.select('user_id', 'at', 'amount')\n"
        "definitions = Definitions(store=LocalStore('store'), features=[spend])\n"
    )

    assert cli.main(["plan", "--tasks", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    tasks, [group] = planned["tasks"]["spend"], planned["intake"]["spend"]
    assert cli.main(["plan", "--tasks"]) == 0
    shown = capsys.readouterr().out

    assert len(tasks) == 4
    assert sum(task["rows"] for task in tasks) == 200
    assert (tasks[0]["start"], tasks[-1]["end"]) == (None, None)
    assert [task["end"] is None for task in tasks] == [False, False, False, True]
    assert all(task["bytes"] > 0 and task["events"] >= task["rows"] for task in tasks)
    assert "2 of 4" in shown
    assert (group["first"], group["last"], group["files"]) == ("days0.parquet", "days7.parquet", 8)
    assert f"{group['bytes']:,}" in shown
    assert cli.main(["build"]) == 0
    project.drop("later", rows((1, 41, 1.0)))
    capsys.readouterr()
    assert cli.main(["plan", "--tasks", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"] == {"spend": []}
