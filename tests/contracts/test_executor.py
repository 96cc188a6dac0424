"""Executors: what they do with an order, and what the process that builds reads from an answer."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mlforge.build.orders import Answer, Order
from mlforge.build.result import Options
from mlforge.build.rows import Layout
from mlforge.build.runner import Origin
from mlforge.build.tasks import tasks_at_once
from mlforge.core import failpoints, machine
from mlforge.definitions.loader import load
from mlforge.definitions.registry import Definitions
from mlforge.definitions.tasks import parsed_task
from mlforge.errors import (
    DataError,
    DefinitionError,
    MlforgeError,
    SourceUnavailable,
    StoreUnavailable,
    TaskFailed,
    TaskRefused,
)
from mlforge.runners import executor
from mlforge.store import LocalStore
from mlforge.store.objects.objects import NoAnswer
from mlforge.training_sets.by_tasks.set_tasks import JoinTask
from tests.support.projects import rows
from tests.support.threads import Threads

OPTIONS = Options(layout=Layout(chunk_rows=40))
TEXT = """
from mlforge import Definitions, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore
from tests.support.threads import Threads


@feature(keys=["user_id"], source="drops/", timestamp="at", metrics=[Rolling("7d", {"amount": ["sum", "std"]})])
def spend(df):
    return df


defs = Definitions(LocalStore("store"), [spend], runner=Threads(), distribute_above=0)
"""


@pytest.fixture(autouse=True)
def _nothing_loaded() -> Iterator[None]:
    executor._loaded.clear()
    yield
    executor._loaded.clear()
    failpoints.disarm()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project of six weeks, a file each, which is built by five tasks or more."""
    (tmp_path / "drops").mkdir()
    for week in range(6):
        events = [(n % 3, week * 7 + n / 3, (n + 1) / 7 + week**5 / 3) for n in range(20)]
        rows(*events).write_parquet(tmp_path / "drops" / f"w{week}.parquet")
    (tmp_path / "definitions.py").write_text(TEXT)
    return tmp_path


def changed(folder: Path, before: str, after: str) -> Definitions:
    text = (folder / "definitions.py").read_text()
    assert before in text
    (folder / "definitions.py").write_text(text.replace(before, after))
    return load(None, here=folder)


def parts(folder: Path, store: str) -> list[tuple[str, str]]:
    manifest = LocalStore(folder / store).read_metadata("spend")
    return [(part.file, part.hash) for part in manifest.parts]


def orders_of(definitions: Definitions) -> list[str]:
    """The orders of a build that got no further."""
    runner = definitions.runner
    assert isinstance(runner, Threads)
    failpoints.arm("task.written", fail)
    with pytest.raises(TaskFailed):
        definitions.refresh("spend", options=OPTIONS)
    failpoints.disarm()
    assert len(runner.orders) >= 3
    return runner.orders


def fail() -> None:
    raise RuntimeError("the disk is on fire")


@pytest.mark.parametrize("twice", [False, True], ids=["once", "with a twin"])
def test_executors_load_the_project_themselves_and_write_the_bytes_of_home(
    folder: Path, twice: bool
) -> None:
    changed(folder, "Threads(), ", "'local', ").refresh("spend", options=OPTIONS)
    away = changed(folder, "'local', ", f"Threads(twice={twice}), ")
    away = changed(folder, '"store"', '"away"')
    away.refresh("spend", options=OPTIONS)

    assert len(away.runner.orders) >= 3  # type: ignore[union-attr]
    assert all("def spend" not in order for order in away.runner.orders)  # type: ignore[union-attr]
    assert parts(folder, "away") == parts(folder, "store")


def test_a_profile_of_the_build_is_that_of_the_executors(folder: Path) -> None:
    (folder / "mlforge.toml").write_text('[profiles.prod]\nstore = "prod_store"\n')

    load(None, here=folder, profile="prod").refresh("spend", options=OPTIONS)

    assert len(parts(folder, "prod_store")) >= 3
    assert not (folder / "store").exists()


def test_one_process_runs_no_more_tasks_at_once_than_it_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work, most, lock = [0], [0], threading.Lock()
    run = Definitions.run_task

    def counted(self: Definitions, task: str) -> str:
        with lock:
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
        try:
            return run(self, task)
        finally:
            with lock:
                at_work[0] -= 1

    monkeypatch.setattr(Definitions, "run_task", counted)
    changed(folder, "Threads()", "Threads(at_once=1)").refresh("spend", options=OPTIONS)

    assert most == [1]


@pytest.mark.parametrize(
    ("memory", "cores", "most"), [(3 << 30, 8, 1), (17 << 30, 8, 4), (64 << 30, 2, 2)]
)
def test_tasks_at_once_follow_from_cores_and_memory(
    monkeypatch: pytest.MonkeyPatch, memory: int, cores: int, most: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)

    assert tasks_at_once(memory) == most


def test_a_container_with_less_memory_than_its_machine_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "_CONTAINER", limit)
    without = machine.memory()
    limit.write_text("max\n")
    unlimited = machine.memory()
    limit.write_text("268435456\n")

    assert without == unlimited > 256 << 20
    assert machine.memory() == 256 << 20


def test_an_executor_of_another_release_refuses_before_it_loads_anything(folder: Path) -> None:
    [first, *_] = orders_of(load(None, here=folder))
    order = Order.from_json(first)
    task = parsed_task(order.task)
    old = replace(task, releases={**task.releases, "mlforge": "0.0.1"}).to_json()
    executor._loaded.clear()
    (folder / "definitions.py").write_text("import nothing_of_this_name")

    answer = Answer.from_json(executor.answered(replace(order, task=old).to_json()))

    with pytest.raises(TaskRefused, match=rf"task is of mlforge 0\.0\.1.*on {answer.host}\)"):
        answer.result_of(task)


@pytest.mark.parametrize("fault", ["gone", "broken", "others"])
def test_an_executor_without_the_definitions_of_the_build_refuses(folder: Path, fault: str) -> None:
    [first, *_] = orders_of(load(None, here=folder))
    executor._loaded.clear()
    file = folder / "definitions.py"
    if fault == "gone":
        file.unlink()
    else:
        file.write_text("1 / 0" if fault == "broken" else TEXT.replace('"7d"', '"8d"'))
    answer = Answer.from_json(executor.answered(first))

    says = "deploy the same definitions" if fault == "others" else "the definitions do not load"
    with pytest.raises(TaskRefused, match=says):
        answer.result_of(parsed_task(Order.from_json(first).task))


def test_definitions_that_change_are_loaded_anew_by_an_executor_that_goes_on(folder: Path) -> None:
    load(None, here=folder).refresh("spend", options=OPTIONS)
    built = changed(folder, '"7d"', '"9d"').refresh("spend", options=OPTIONS)

    assert built.version == "2.0.0"


@pytest.mark.parametrize("edit", ['"8d"', pytest.param("1 / 0", marks=pytest.mark.slow)])
def test_a_build_by_processes_goes_on_as_it_began_where_its_file_is_edited_meanwhile(
    folder: Path, monkeypatch: pytest.MonkeyPatch, edit: str
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 2)
    monkeypatch.setattr(machine, "memory", lambda: 8 << 30)
    changed(folder, "Threads(), ", "'local', ").refresh("spend", options=OPTIONS)
    away = changed(folder, "'local', ", "'local', memory_limit=8 << 30, ")
    away = changed(folder, '"store"', '"away"')
    changed_text = (folder / "definitions.py").read_text().replace('"7d"', edit)
    (folder / "definitions.py").write_text(changed_text)

    away.refresh("spend", options=OPTIONS)

    assert parts(folder, "away") == parts(folder, "store")


def test_a_task_that_fails_is_named_with_the_host_and_its_reason(folder: Path) -> None:
    failpoints.arm("task.written", fail)

    with pytest.raises(
        TaskFailed, match=r"spend: the task [0-9a-f]{12} failed on .*: RuntimeError: the disk"
    ):
        load(None, here=folder).refresh("spend", options=OPTIONS)
    assert LocalStore(folder / "store").versions("spend") == []


def test_an_error_of_mlforge_keeps_its_class(folder: Path) -> None:
    def bad() -> None:
        raise DataError("spend: no such column")

    failpoints.arm("task.written", bad)
    with pytest.raises(DataError, match=r"spend: no such column \(on "):
        load(None, here=folder).refresh("spend", options=OPTIONS)


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (OSError(errno.ENOSPC, "no room"), StoreUnavailable, "^set: the task .* no room"),
        (ConnectionResetError("bye"), StoreUnavailable, "bye"),
        (NoAnswer("s3://shop: cannot read"), StoreUnavailable, "cannot read"),
        (SourceUnavailable("away"), SourceUnavailable, "away"),
        (MemoryError(), TaskFailed, "MemoryError"),
    ],
)
def test_a_place_that_is_away_or_full_is_not_the_tasks_fault_whichever_process_finds_it(
    error: Exception, kind: type[MlforgeError], told: str
) -> None:
    """Else a feature would be given up for it that processes, Dask, Ray or Spark build."""
    answer = Answer.from_json(Answer.of(error, "host").to_json())

    with pytest.raises(kind, match=told) as raised:
        answer.result_of(JoinTask("set", "", "polars", {}, "", "", 0, 1))
    assert type(raised.value) is kind


def test_definitions_that_no_file_holds_are_refused_unless_the_runner_says_where_they_lie(
    folder: Path,
) -> None:
    definitions = load(None, here=folder)
    definitions.loaded_from = None
    with pytest.raises(DefinitionError, match="no file holds these definitions"):
        definitions.refresh("spend", options=OPTIONS)

    definitions = changed(folder, "Threads()", f"Threads(definitions={str(folder)!r})")
    definitions.loaded_from = None
    assert definitions.refresh("spend", options=OPTIONS).version == "1.0.0"


def test_texts_are_json_that_says_all() -> None:
    order = Order("{}", Origin("defs.py", "/srv", "prod"), 3)
    answer = Answer("host", error="ValueError", text="no")

    assert Order.from_json(order.to_json()) == order
    assert Answer.from_json(answer.to_json()) == answer
    assert json.loads(order.to_json())["origin"]["here"] == "/srv"
