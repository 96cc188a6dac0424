"""The index of entities: what few of them have is read without the history, and means the same whatever comes, goes or changes."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs
import pytest
from polars.testing import assert_frame_equal

from mlforge import Feature
from mlforge.core.forgotten import Entity, Forgotten
from mlforge.engines import engine_named
from mlforge.engines.base import POINT
from mlforge.engines.events import Events, events_of
from mlforge.engines.tiles import by_entity, totals
from mlforge.maintenance.forgetting import publish_without
from mlforge.maintenance.operations import compact, tidy
from mlforge.metrics import Rolling, ToDate
from mlforge.store import LocalStore, ObjectStore, mapped_rows
from mlforge.store.entity_index import EntityIndex, Run
from mlforge.store.local.packs import Packing
from mlforge.store.scan import EventScan
from tests.support import kernels
from tests.support.objects import MemoryObjects
from tests.support.projects import Project, at, rows, rows_to_push

VALUES = ["count_distinct", "mode", "top_3", "p90", "last_3"]
METRICS = [
    Rolling(["all", "2d"], {"amount": [*VALUES, "sum"]}),
    Rolling("all", {"amount": ["median", "last_2"]}, where="ok"),
    ToDate("1mo", {"amount": "count_distinct"}),
]
USERS = 12


def with_ok(df: pl.DataFrame) -> pl.DataFrame:
    return df.with_columns(ok=pl.col("amount") % 2 > 0)


def some(first: float, last: float, by: float = 1.0) -> pl.DataFrame:
    """Users with an event every quarter of a day, whose amounts are nearly all different."""
    days = [first + n / 4 for n in range(int((last - first) * 4))]
    return rows(*((user, day, by + day * user / 8) for day in days for user in range(USERS)))


@pytest.fixture(autouse=True)
def indexed() -> Iterator[None]:
    with kernels.forced(tiled=True, indexed=True):
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A history that is indexed, and a drop."""
    project = Project(tmp_path_factory.mktemp("built") / "p")
    with kernels.forced(tiled=True, indexed=True):
        project.drop("a", some(0, 8))
        project.build(define(project))
        project.drop("b", rows((1, 8.1, 3.0), (77, 8.2, 1.0)))
        project.build(define(project))
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """The same in a folder of the test's own."""
    return built.copied(tmp_path / "p")


def define(project: Project, **settings: Any) -> Feature:
    return project.define(with_ok, **{"metrics": METRICS, **settings})


def events(project: Project) -> Events:
    return events_of(project.store, project.store.resolve("spend"))


def index(project: Project) -> EntityIndex | None:
    found = events(project).by_entity
    assert found is not None
    return found.stored


def missing(project: Project) -> int:
    """How many events are in no run of the index."""
    found, others = index(project), list(events(project).partials)
    for run in found.runs if found is not None else ():
        _, others = run.beside(others)
    return sum(partial.rows for partial in others)


def stored(project: Project) -> list[Path]:
    assert isinstance(project.store, LocalStore)
    return sorted((project.store.path / "spend" / "_tiles").glob("*.arrow"))


POINTS = pl.DataFrame(
    [(user, at(day)) for user in (1, 2, 77, 99) for day in (-1, 0.5, 4, 8.15, 40)],
    schema={"user_id": pl.Int64, POINT: pl.Datetime("us", "UTC")},
    orient="row",
)


def check(project: Project) -> None:
    """The values are those of the files, in another order of rows at most, which no aggregation sees."""
    engine, known = engine_named(project.engine), events(project)
    values = engine.values(known, POINTS)
    assert values.equals(engine.values(replace(known, by_entity=None), POINTS))


def drops(project: Project) -> Iterator[str]:
    """What happens to the source, step by step."""
    project.drop("a", some(0, 8))
    yield "history"
    project.drop("b", rows((1, 8.1, 3.0), (77, 8.2, 1.0)))
    yield "a drop, one of its entities new"
    project.drop("c", rows((2, 1.1, 100.0), (78, 0.5, 7.0)))
    yield "late events"
    project.drop("copy", rows((1, 8.1, 3.0), (77, 8.2, 1.0)))
    yield "a file once more"
    project.drop("b", rows((1, 8.1, 5.0), (77, 8.2, 1.0)))
    yield "an amended file"
    project.drop("d", some(8.3, 13))
    yield "much that is new"
    (project.events / "c.parquet").unlink()
    yield "late events gone"
    project.drop("a", some(0, 8, 2.0))
    yield "the history amended"
    project.drop("e", rows((1, 14, 3.0)))
    yield "a drop behind that"


SHAPES: dict[str, dict[str, Any]] = {
    "continuous": {},
    "aligned": {"interval": "12h"},
    "closed left": {"metrics": [Rolling(["all", "2d"], {"amount": VALUES}, closed="left")]},
}
TRIED = [
    *((shape, "polars") for shape in ("continuous", "aligned", "closed left")),
    ("continuous", "duckdb"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "engine"), TRIED)
def test_any_sequence_of_drops_gives_the_rows_of_a_rebuild(
    shape: str, engine: str, tmp_path: Path
) -> None:
    project, used = Project(tmp_path / "p", engine), 0
    for number, step in enumerate(drops(project)):
        project.build(define(project, **SHAPES[shape]))
        stores = (
            project.store,
            project.rebuilt(tmp_path / f"{number}", define(project, **SHAPES[shape])),
        )
        first, second = (store.resolve("spend").rows_hash for store in stores)
        assert first == second, step
        known, fresh = (store.read("spend") for store in stores)
        sums = cs.contains("__sum__")  # whose last bits depend on what is evaluated together
        assert known.drop(sums).equals(fresh.drop(sums)), step
        assert_frame_equal(known.select(sums), fresh.select(sums), rel_tol=1e-9)
        check(project)
        used += index(project) is not None
    assert used == number + 1


def test_a_drop_and_its_push_read_no_file_of_the_history(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "_settled", lambda _: int(at(7).timestamp() * 1_000_000))
    project.build(define(project), full=True)
    [history] = (task.file for task in events(project).tasks if task.rows > 100)
    read: list[str] = []
    scan = EventScan.scan_tasks

    def watched(self: Any, tasks: Any, *arguments: Any) -> Any:
        read.extend(task.file for task in tasks)
        return scan(self, tasks, *arguments)

    monkeypatch.setattr(EventScan, "scan_tasks", watched)
    project.drop("c", rows((1, 8.3, 3.0), (5, 8.4, 1.0)))
    project.build(define(project))
    assert sorted(rows_to_push(project, 1, 5, 99)["user_id"]) == [1, 5]
    assert read
    assert history not in read


@pytest.mark.slow
def test_an_index_is_made_once_and_grows_by_runs_of_what_came(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = index(project)
    assert first is not None
    history = first.runs[0]
    assert [run.rows for run in first.runs] == [8 * 4 * USERS]
    monkeypatch.setattr(by_entity, "AT_ONCE", 1_000)
    monkeypatch.setattr(by_entity, "OVERDUE", 32)
    sizes = []
    for day in range(8, 13):
        project.drop(f"{day}", some(day + 0.5, day + 1.5))
        with monkeypatch.context() as patch:
            if day == 8:
                patch.setattr(Run, "frames", None)  # nothing of the history is read
            project.build(define(project))
        check(project)
        assert missing(project) == 0
        grown = index(project)
        assert grown is not None
        sizes.append([run.rows for run in grown.runs])
        assert (grown.runs[0] == history) is (len(sizes) < 2), sizes
    # A drop of 48 events is a run, with the two events before it; two of them come to a quarter of the history.
    assert sizes[0] == [384, 50]
    assert all(len(each) <= 3 for each in sizes)


def test_what_came_since_is_written_behind_the_push_and_by_a_refresh_where_nothing_did_so(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_entity, "AT_ONCE", 1_000)
    monkeypatch.setattr(by_entity, "STALE", 32)
    monkeypatch.setattr(by_entity, "OVERDUE", 8)

    assert missing(project) == 2
    for day, left, then in ((8, 38, 0), (9, 36, 0)):
        project.drop(f"{day}", some(day + 0.5, day + 1.25))
        project.build(define(project))
        assert missing(project) == left
        tidy(project.store, "spend")
        assert missing(project) == then
        check(project)
    project.drop("20", some(20, 21))
    project.build(define(project))
    project.drop("30", some(30, 30.5))
    project.build(define(project))
    assert missing(project) == 0
    check(project)


def test_without_windows_that_need_it_there_is_no_index(tmp_path: Path) -> None:
    for name, metrics in {
        "merged": Rolling("all", {"amount": ["sum", "last"]}),
        "finite": Rolling("400d", {"amount": VALUES}),
    }.items():
        project = Project(tmp_path / name)
        project.drop("a", some(0, 8))
        project.build(define(project, metrics=[metrics]))
        assert stored(project) == []


def _damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _overwritten(path: Path) -> None:
    path.write_bytes(b"x" * 50)


@pytest.mark.parametrize(
    "harm", [Path.unlink, _damaged, pytest.param(_overwritten, marks=pytest.mark.slow)]
)
def test_an_index_that_is_damaged_or_gone_counts_as_none_and_is_made_anew(
    project: Project, harm: Callable[[Path], object]
) -> None:
    looked_up = events(project)
    assert looked_up.by_entity is not None
    assert looked_up.by_entity.stored is not None
    [path] = stored(project)
    expected = engine_named("polars").values(replace(looked_up, by_entity=None), POINTS)
    harm(path)
    assert index(project) is None
    if not path.exists():  # a reader who had looked it up
        assert engine_named("polars").values(looked_up, POINTS).equals(expected)
    assert engine_named("polars").values(events(project), POINTS).equals(expected)
    project.drop("c", rows((1, 8.3, 3.0)))
    project.build(define(project))
    assert index(project) is not None
    check(project)


def test_where_files_cannot_be_mapped_the_events_are_read(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: str) -> Iterator[Any]:
        yield from ()
        raise OSError(errno.ENODEV, "No such device", path)

    monkeypatch.setattr(mapped_rows, "mapped_batches", refused)
    monkeypatch.setattr(by_entity, "AT_ONCE", 1_000)
    project.drop("c", some(8.3, 13))
    project.build(define(project))
    made = index(project)
    assert made is not None
    assert made.rows > 500
    check(project)


@pytest.mark.slow
def test_a_reader_of_an_index_reads_on_while_another_takes_its_place(tmp_path: Path) -> None:
    project = Project(tmp_path / "p").on(LocalStore(tmp_path / "p/store", Packing(grace_s=600)))
    project.drop("a", some(0, 8))
    project.build(define(project))
    before = events(project)
    expected = engine_named("polars").values(before, POINTS)
    project.drop("b", some(8.3, 13))
    project.build(define(project))
    assert len(stored(project)) == 2
    assert engine_named("polars").values(before, POINTS).equals(expected)
    hasty = project.on(LocalStore(tmp_path / "p/store", Packing(grace_s=0)))
    hasty.drop("c", some(13, 24))
    hasty.build(define(hasty))
    assert len(stored(project)) == 1
    check(project)


@pytest.mark.slow
def test_a_compaction_leaves_the_index_and_what_goes_takes_it_along(tmp_path: Path) -> None:
    project = Project(tmp_path / "p").on(
        LocalStore(tmp_path / "p/store", Packing(small_rows=1_000, at_least=3, grace_s=0))
    )
    project.drop("a", some(0, 8))
    project.build(define(project))
    for day in range(3):
        project.drop(f"{day}", rows((1, 9.0 + day, 3.0)))
        project.build(define(project))
    compact(project.store, project.store.resolve("spend"))
    check(project)
    project.drop("last", rows((1, 20, 3.0)))
    project.build(define(project))
    assert index(project) is not None
    check(project)


@pytest.mark.parametrize("place", [pytest.param("folder", marks=pytest.mark.slow), "bucket"])
def test_rows_of_a_forgotten_entity_are_in_no_index(tmp_path: Path, place: str) -> None:
    project = Project(tmp_path / "p")
    if place == "bucket":
        objects = MemoryObjects()
        project = project.on(ObjectStore("s3://memory/store", tmp_path / "c", objects=objects))
    project.drop("a", some(0, 8))
    project.build(define(project))
    project.drop("b", rows((2, 8.1, 1.0)))
    project.build(define(project))
    assert index(project) is not None
    entity = Entity("user_id", "1")
    project.store.write_forgotten(Forgotten(salt="5a17").with_entities([entity]))
    before = project.store.resolve("spend")
    publish_without(project.store, "spend", engine_named("polars"))  # and a kill behind it
    values = engine_named("polars").values(events(project), POINTS)
    assert values.filter(POINTS["user_id"] == 1)["amount__count_distinct__all"].to_list() == [0] * 5
    check(project)
    gone = {p.hash for p in before.partials} - {
        p.hash for p in project.store.resolve("spend").partials
    }
    project.store.scrub("spend", gone)
    files = [path for path in tmp_path.rglob("*.arrow") if path.is_file()]
    for path in files:
        made = Run(str(path), "", 0, (), 0).frames()
        assert 1 not in pl.concat(made)["user_id"]


@pytest.mark.slow
def test_a_machine_with_an_empty_cache_makes_an_index_of_its_own(tmp_path: Path) -> None:
    objects, project = MemoryObjects(), Project(tmp_path / "p")
    first, second = (
        project.on(ObjectStore("s3://memory/store", tmp_path / name, objects=objects))
        for name in ("first", "second")
    )
    project.drop("a", some(0, 8))
    first.build(define(first))
    assert index(first) is not None
    assert index(second) is None
    project.drop("b", rows((1, 8.1, 3.0), (77, 8.2, 1.0)))
    second.build(define(second))
    for each in (first, second):
        assert index(each) is not None
        check(each)
