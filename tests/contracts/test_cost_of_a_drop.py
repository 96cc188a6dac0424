"""The work of one small drop, counted: more of it would be felt at every drop."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import Definitions
from mlforge.online import RedisStore
from mlforge.store.local.paths import DATA
from tests.support.projects import Project, rows

WARM = 3
DROPS = 4
# By kind of work, the most of it that a drop may make; plans above all are what its CPU time goes to.
MOST = {"threads": 0, "syncs": 11, "listings": 16, "plans": 44}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A feature with a few files of history."""
    project = Project(tmp_path / "p")
    for day in range(5):
        project.drop(f"d{day}", rows((1, day, 1.0), (2, day + 0.5, 2.0), (day, day, 3.0)))
    return project


@pytest.fixture
def definitions(project: Project, online: RedisStore) -> Iterator[Definitions]:
    definitions = project.definitions(online_store=online)
    definitions.build(online=True)
    yield definitions
    definitions.close()


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each kind of work was done since it was last cleared."""
    counted: Counter[str] = Counter()

    def count(owner: Any, name: str, kind: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def counting(*arguments: Any, **options: Any) -> Any:
            counted[kind] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, counting)

    count(threading.Thread, "start", "threads")
    count(os, "fsync", "syncs")
    count(os, "scandir", "listings")
    count(pl.LazyFrame, "collect", "plans")
    count(pl.LazyFrame, "_collect_eager", "plans")
    count(pl, "collect_all", "plans")
    return counted


def drop(project: Project, definitions: Definitions, day: int) -> None:
    project.drop(f"drop{day}", rows((1, day, 1.0), (3, day + 0.25, 2.0)))
    result = definitions.refresh("spend")
    assert result.mode == "incremental"
    assert definitions.push("spend", diff=result.diff).written >= 2


def test_a_drop_does_no_more_work_than_it_must(
    project: Project, definitions: Definitions, work: Counter[str]
) -> None:
    for day in range(5, 5 + WARM):
        drop(project, definitions, day)
    work.clear()
    for day in range(5 + WARM, 5 + WARM + DROPS):
        drop(project, definitions, day)
    a_drop = {kind: number / DROPS for kind, number in work.items()}
    assert {kind: number for kind, number in a_drop.items() if number > MOST[kind]} == {}, a_drop


def test_rows_that_this_process_wrote_last_are_read_from_memory_and_what_is_written_is_the_same(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last drop's rows lie among those of the drop before; a copy of the project has nothing in memory."""
    project.build()
    project.drop("late", rows((1, 5, 1.0), (3, 5.5, 2.0)))
    project.build()
    other = project.copied(tmp_path / "other")
    versions, served = [], []
    for each in (project, other):
        each.drop("later", rows((2, 5.2, 4.0), (3, 5.7, 8.0)))
        read = parts_read(each, monkeypatch)
        versions.append(each.store.latest("spend"))
        served.append(len(read))
    assert served == [0, 1]
    assert versions[0] is not None
    assert versions[1] is not None
    hashes = [[part.hash for part in version.parts] for version in versions if version]
    assert hashes[0] == hashes[1]


def parts_read(project: Project, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The reads of a table's files that a refresh makes."""
    read, scan = list[Any](), pl.scan_parquet

    def noting(source: Any, **options: Any) -> pl.LazyFrame:
        paths = [Path(path) for path in (source if isinstance(source, list) else [source])]
        if any(DATA in path.parts for path in paths):
            read.append(paths)
        return scan(source, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pl, "scan_parquet", noting)
        assert project.build().mode == "incremental"
    return read
