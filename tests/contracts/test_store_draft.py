"""A draft of a store, for plans: it reads as the store does, and the store is not touched."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import Feature
from mlforge.build.result import BuildResult, Options
from mlforge.build.rows import Layout
from mlforge.core.values import Version
from mlforge.errors import StoreError
from mlforge.metrics import Rolling
from mlforge.store import Books, FileStateMap, LocalStore, TablePiece
from mlforge.store.file_tasks import PartialWrite
from mlforge.testing.store_values import FIRST, events, partial_of, publish
from tests.support.projects import Project, identity, rows

SMALL = Options(layout=Layout(part_rows=16), cost_share=1.0)


def traces(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file and folder, with its content and the instant of its last change."""
    return {
        str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in (folder, *folder.rglob("*"))
        if path.exists()
    }


def double(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", pl.col("amount") * 2)


def dropped(project: Project) -> Feature:
    project.drop("new", rows((1, 5.5, 3.0), (2, 6.5, 4.0)))
    return project.define()


def removed(project: Project) -> Feature:
    (project.events / "f1.parquet").unlink()
    return project.define()


def set_aside(project: Project) -> Feature:
    (project.events / "bad.parquet").write_bytes(b"PAR1 not whole PAR1")
    return dropped(project)


def with_other_metrics(project: Project) -> Feature:
    return project.define(metrics=[Rolling(["3d"], {"amount": ["mean"]})])


def with_other_code(project: Project) -> Feature:
    return project.define(double)


def with_nothing_new(project: Project) -> Feature:
    return project.define(identity)


CHANGES = [dropped, removed, set_aside, with_other_metrics, with_other_code, with_nothing_new]


def said(result: BuildResult) -> dict[str, Any]:
    names = (
        "version bump reason details rows changed mode mode_reason rows_changed entities "
        "rows_recomputed rows_dropped held"
    )
    return {name: getattr(result, name) for name in names.split()}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("full", [False, True])
def test_a_plan_says_what_the_build_then_does_and_touches_nothing(
    change: Callable[[Project], Feature], full: bool, tmp_path: Path
) -> None:
    project = Project(tmp_path / "project")
    for number in range(4):
        project.drop(f"f{number}", rows(*((user, number + user / 9, 1.0) for user in range(9))))
    project.definitions().refresh("spend", options=SMALL)
    definitions = project.definitions(change(project))
    before = traces(project.store.path)
    options = Options(layout=SMALL.layout, cost_share=1.0, full=full, publish=False)
    plan = definitions.refresh("spend", options=options)
    assert plan.planned
    assert traces(project.store.path) == before
    built = definitions.refresh(
        "spend", options=Options(SMALL.attended, full=full, layout=SMALL.layout, cost_share=1.0)
    )
    assert said(plan) == said(built)
    if built.manifest is not None and plan.manifest is not None:
        assert plan.manifest.rows_hash == built.manifest.rows_hash


def test_a_plan_of_a_first_build_leaves_no_store_behind(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    project.drop("a", rows((1, 0, 1.0)))
    [plan] = project.definitions().plan().values()
    assert (plan.version, plan.rows, plan.planned) == ("1.0.0", 1, True)
    assert not project.store.path.exists()


def test_a_plan_does_not_wait_for_whoever_writes(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    project.drop("a", rows((1, 0, 1.0)))
    project.build()
    project.drop("b", rows((2, 0, 1.0)))
    with project.store.lock("spend"):
        [plan] = project.definitions().plan().values()
    assert plan.version == "1.0.1"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_plan_works_on_a_store_that_it_may_only_read(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    project.drop("a", rows((1, 0, 1.0)))
    project.build()
    project.drop("b", rows((2, 0, 1.0)))
    folders = [project.store.path, *(p for p in project.store.path.rglob("*") if p.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        [plan] = project.definitions().plan().values()
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert plan.version == "1.0.1"


def test_a_draft_reads_both_stores_and_writes_to_its_own(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    publish(store, FIRST, 1)
    with store.lock("spend"):
        store.write_partials("spend", [PartialWrite(partial_of(events(1), "a1"), events(1))])
    before = traces(store.path)
    with store.draft() as draft, draft.open("spend") as snapshot:
        new = partial_of(events(1, 2), "b2")
        draft.write_partials("spend", [PartialWrite(new, events(1, 2))])
        assert draft.partials("spend") == {"a1", "b2"}
        assert draft.find_partial("spend", "b2") == new
        assert draft.find_partial("spend", "a1") is not None
        assert draft.read("spend").equals(store.read("spend"))
        assert sum(task.rows for task in draft.plan_files("spend", [new, new])) >= 2
        places = draft.locate("spend", ["b2", "a1", "b2"])
        assert [str(store.path) in place.file for place in places] == [False, True, False]
        assert draft.check_partials("spend", ["a1", "b2"]) == {}
        draft.write_books("spend", Books(hold="never"))
        draft.write_file_states("spend", FileStateMap())
        with draft.transaction(snapshot) as tx:
            parts = tx.write_table([TablePiece(events(1, 2), None)])
            second = replace(store.manifest("spend", FIRST), parts=parts, version=Version(1, 0, 1))
            tx.commit(second)
        assert draft.latest("spend") == second
        assert draft.read("spend").equals(events(1, 2))
        assert draft.files("spend", FIRST) == store.files("spend", FIRST)
        assert store.versions("spend") == [FIRST]
        for refused in (
            draft.regenerate_index,
            lambda: draft.serve("spend", FIRST),
            lambda: draft.erase("spend"),
        ):
            with pytest.raises(StoreError, match="a plan cannot"):
                refused()
    assert traces(store.path) == before
    assert not Path(places[0].file).exists()
