"""A process that waits reads ahead; what it has read it does not read again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import mlforge.validators as v
from mlforge.core.forgotten import Entity, Forgotten
from mlforge.engines import POINT, engine_named
from mlforge.engines.evaluation import values_at
from mlforge.engines.events import events_of
from mlforge.frames import polars_schema
from mlforge.frames.polars_schema import of_entities
from mlforge.maintenance.forgetting import publish_without
from mlforge.metrics import Rolling
from mlforge.online.prefetch import read_ahead
from mlforge.store import LocalStore
from mlforge.store.local.packs import Packing
from tests.support import kernels
from tests.support.projects import Project, rows

DAYS = 20


@pytest.fixture(scope="module", params=["alone", "packed"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A version of many files, its partials alone or in packs."""
    project = Project(tmp_path_factory.mktemp("built") / "project")
    at_least = 2 if request.param == "packed" else 1_000
    project.store = LocalStore(project.root / "store", Packing(at_least=at_least))
    for day in range(DAYS + 1):
        project.drop(f"d{day:02d}", rows((day % 3, day, 1.0), (day % 2, day + 0.5, 2.0)))
    project.build()
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """The same in a folder of the test's own."""
    return built.copied(tmp_path / "project")


def values(project: Project, day: float = DAYS, feature: str = "spend") -> pl.DataFrame:
    points = rows(*((user, day, None) for user in range(3))).rename({"at": POINT})
    manifest = project.store.read_metadata(feature)
    events = events_of(project.store, manifest)
    return values_at(engine_named("polars"), events, points.drop("amount"))


def kept(project: Project) -> int:
    """How many rows are in memory."""
    resident = project.store.resident(project.store.read_metadata("spend"))
    tasks = events_of(project.store, project.store.read_metadata("spend")).tasks
    beside = sum({task.file: task.kept.rows.height for task in tasks if task.kept}.values())
    return beside + (0 if resident is None else resident.rows.height)


@pytest.fixture
def files_read(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What polars has been told to scan so far."""
    found: list[Any] = []
    scan = pl.scan_parquet

    def noted(source: Any, **options: Any) -> pl.LazyFrame:
        found.append(source)
        return scan(source, **options)

    monkeypatch.setattr(pl, "scan_parquet", noted)
    return found


def test_what_was_read_ahead_is_not_read_again(project: Project, files_read: list[Any]) -> None:
    expected, long_ago = values(project), values(project, day=9)
    assert files_read
    taken = read_ahead(project.store, project.store.read_metadata("spend"))
    assert 0 < kept(project) < DAYS
    assert kept(project) * 3 <= taken
    files_read.clear()
    assert values(project).equals(expected)
    assert not files_read
    assert values(project, day=9).equals(long_ago)
    assert files_read


def test_a_drop_is_computed_from_memory_as_from_files(
    project: Project, files_read: list[Any]
) -> None:
    read_ahead(project.store, project.store.read_metadata("spend"))
    files_read.clear()
    project.drop("new", rows((0, DAYS + 1, 5.0), (7, DAYS + 1, 7.0)))
    project.build()
    partials = str(project.store.path / "spend" / "_p")
    assert not [path for paths in files_read for path in paths if str(path).startswith(partials)]
    rebuilt = project.rebuilt(project.root / "rebuilt")
    assert project.store.read("spend").equals(rebuilt.read("spend"))


def test_only_what_is_new_is_read_for_the_next_version(
    project: Project, files_read: list[Any]
) -> None:
    read_ahead(project.store, project.store.read_metadata("spend"))
    before = kept(project)
    for day in (DAYS + 1, DAYS + 20):
        project.drop(f"d{day}", rows((0, day, 5.0)))
        project.on(LocalStore(project.store.path)).build()
        files_read.clear()
        read_ahead(project.store, project.store.read_metadata("spend"))
        assert len(files_read) == 1
    assert kept(project) == 1 < before


def test_what_lasts_in_memory_is_read_beside_what_came_and_without_what_went(
    project: Project,
) -> None:
    with kernels.forced(lasting=True):
        read_ahead(project.store, project.store.read_metadata("spend"))
        resident = project.store.resident(project.store.read_metadata("spend"))
        changes: list[Callable[[], Any]] = [
            lambda: project.drop(f"d{DAYS - 2}", rows((1, DAYS - 2, 50.0))),  # amended
            (project.events / f"d{DAYS - 1}.parquet").unlink,
            lambda: project.drop("copy", rows((DAYS % 3, DAYS, 1.0), (DAYS % 2, DAYS + 0.5, 2.0))),
            lambda: project.drop("late", rows((1, DAYS - 2.5, 7.0), (2, DAYS + 1, 9.0))),
        ]
        for number, change in enumerate(changes):
            change()
            project.build()
            served = project.store.read_metadata("spend")
            read_ahead(project.store, served)
            assert project.store.resident(served) is resident
            rebuilt = project.rebuilt(project.root / f"rebuilt{number}")
            assert project.store.read("spend").equals(rebuilt.read("spend"))
            assert values(project).equals(values(project.on(rebuilt)))


def test_rows_of_a_forgotten_entity_leave_memory_with_the_next_version(project: Project) -> None:
    with kernels.forced(lasting=True):
        read_ahead(project.store, project.store.read_metadata("spend"))
        elsewhere = LocalStore(project.store.path)
        elsewhere.write_forgotten(Forgotten(salt="5a").with_entities([Entity("user_id", "1")]))
        publish_without(elsewhere, "spend", engine_named("polars"))
        served = project.store.read_metadata("spend")
        read_ahead(project.store, served)
        resident = project.store.resident(served)
    assert resident is not None
    assert set(resident.rows["user_id"]) == {0, 2}


def test_a_version_without_windows_takes_the_place_of_events_in_memory(project: Project) -> None:
    read_ahead(project.store, project.store.read_metadata("spend"))
    project.build(project.define(metrics=[]))
    assert kept(project) > 0
    assert read_ahead(project.store, project.store.read_metadata("spend")) == 0
    assert kept(project) == 0


def test_features_that_make_the_same_of_the_same_files_share_what_is_in_memory(
    project: Project, files_read: list[Any]
) -> None:
    changes: dict[str, Any] = {
        "alike": {},
        "of_all": {"keys": []},
        "further": {"validators": {"amount": v.greater_than(-1.0)}},
    }
    features = [project.define(name=name, **change) for name, change in changes.items()]
    project.definitions(*features).build()
    read_ahead(project.store, project.store.read_metadata("spend"))
    resident = project.store.resident(project.store.read_metadata("spend"))
    shared = {name: project.store.resident(project.store.read_metadata(name)) for name in changes}
    assert shared["alike"] is resident is not None
    assert shared["of_all"] is shared["further"] is None
    expected = values(project)
    files_read.clear()
    assert values(project, feature="alike").equals(expected)
    assert not files_read
    project.drop("new", rows((0, DAYS, 5.0), (7, DAYS, 7.0)))
    project.definitions(*features).build()
    expected = values(project.on(LocalStore(project.store.path)), feature="alike")
    assert values(project, feature="alike").equals(expected)


def test_events_that_an_earlier_feature_keeps_are_kept_once(
    project: Project, files_read: list[Any]
) -> None:
    spans = {"spend": ["7d"], "shorter": ["2d"], "longer": ["14d"]}
    features = [
        project.define(name=name, metrics=[Rolling(windows, {"amount": ["max"]})])
        for name, windows in spans.items()
    ]

    def taken(room: int = 1_000) -> dict[str, int]:
        manifests = {name: project.store.read_metadata(name) for name in spans}
        return {name: read_ahead(project.store, each, room) for name, each in manifests.items()}

    def in_memory() -> list[Any]:
        return [project.store.resident(project.store.read_metadata(name)) for name in spans]

    project.definitions(*features).build()
    values_kept = taken()
    assert [count > 0 for count in values_kept.values()] == [True, False, True]
    first, second, third = in_memory()
    assert first is second is not third
    assert taken(room=max(values_kept.values())) == values_kept, "it is shared still"
    files_read.clear()
    for name in spans:
        values(project, feature=name)
    assert not files_read
    project.drop("new", rows((0, DAYS, 5.0), (7, DAYS, 7.0)))
    (project.events / "d19.parquet").unlink()
    project.definitions(*features).build()
    for attempt in ("before reading ahead", "after it"):
        for name in spans:
            expected = values(project.on(LocalStore(project.store.path)), feature=name)
            assert values(project, feature=name).equals(expected), (name, attempt)
        taken()


def test_what_takes_more_room_than_there_is_is_not_kept(project: Project) -> None:
    manifest = project.store.read_metadata("spend")
    taken = read_ahead(project.store, manifest)
    assert read_ahead(project.store, manifest, taken) == taken
    assert kept(project) > 0
    assert read_ahead(project.store, manifest, taken - 1) == 0
    assert kept(project) == 0


@pytest.mark.parametrize("changes", [{"metrics": []}, {"metrics": [], "timestamp": None}])
def test_features_without_windows_keep_nothing(tmp_path: Path, changes: dict[str, Any]) -> None:
    project = Project(tmp_path / "project")
    project.drop("a", rows((1, 1, 1.0)))
    project.build(project.define(**changes))
    assert read_ahead(project.store, project.store.read_metadata("spend")) == 0


KEYS: dict[str, list[Any]] = {
    **{name: [1, 2, None, 100] for name in ("Int8", "Int64", "UInt8", "UInt64")},
    "String": ["a", "", None, "ä|x"],
    "Boolean": [True, False, None, True],
    "Date": [date(2026, 1, 1), date(1900, 2, 3), None, date(2026, 1, 2)],
}


@pytest.mark.parametrize("listed", [0, 10])
@pytest.mark.parametrize("dtype", KEYS)
@pytest.mark.parametrize("keys", [["k"], ["k", "l"]])
def test_the_rows_of_some_entities_are_those_that_a_join_finds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtype: str, keys: list[str], listed: int
) -> None:
    monkeypatch.setattr(polars_schema, "_LISTED", listed)
    known = [value for value in KEYS[dtype] if value is not None]
    events = pl.DataFrame(
        {"k": known * 4, "l": [each // 3 for each in range(12)], "x": range(12)},
        schema_overrides={"k": getattr(pl, dtype)},
    )
    path = tmp_path / "events.parquet"
    events.write_parquet(path, row_group_size=2)
    entities = pl.DataFrame(
        {"k": KEYS[dtype][:3] * 2, "l": [0, 0, 0, 1, 2, 2]}, schema=events.select("k", "l").schema
    )
    for asked in (entities, entities.head(1), entities.clear()):
        expected = events.join(asked.select(keys), on=keys, how="semi")
        for found in (pl.scan_parquet(path), events.lazy()):
            assert of_entities(found, asked, keys).collect().sort("x").equals(expected)
    assert of_entities(events.lazy(), None, keys).collect().equals(events)
