"""Totals: windows over all time read no old event, and mean the same whatever comes, goes or changes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mlforge import get_training_data
from mlforge.build.result import Options
from mlforge.build.rows import Layout
from mlforge.core.aggregations import AGGREGATIONS, aggregation
from mlforge.core.forgotten import Entity, Forgotten
from mlforge.core.values import TimeRange, Version, to_us
from mlforge.engines import engine_named
from mlforge.engines.base import POINT
from mlforge.engines.evaluation import active_entities
from mlforge.engines.events import Events, events_of
from mlforge.engines.tiles import held, totals
from mlforge.engines.tiles.build import build_tiles
from mlforge.engines.views import AsOfView
from mlforge.maintenance import operations
from mlforge.maintenance.forgetting import publish_without
from mlforge.maintenance.operations import compact, prune, tidy
from mlforge.maintenance.retention import UNATTENDED
from mlforge.metrics import Rolling
from mlforge.store import LocalStore, ObjectStore
from mlforge.store.local.packs import Packing
from mlforge.store.scan import EventScan
from tests.support import kernels
from tests.support.objects import MemoryObjects
from tests.support.projects import Project, at, rows, rows_to_push

NAMES = list(AGGREGATIONS)
BESIDE = Rolling("2d", {"amount": ["sum", "var", "median", "last"]})
METRICS = [
    Rolling("all", {"amount": NAMES}),
    BESIDE,
    Rolling("all", {"amount": ["sum", "first", "last_time"]}, offset="2d"),
    Rolling("all", {"amount": "sum"}, where="ok"),
]
CLOSED_OUT = [Rolling(["all", "2d"], {"amount": NAMES}, closed="left")]


def with_ok(df: pl.DataFrame) -> pl.DataFrame:
    return df.with_columns(ok=pl.col("amount") > 2.0)


def some(first: int, last: float, by: float = 1.0) -> pl.DataFrame:
    """Two users, each with an event every quarter of a day."""
    days = [first + n / 4 for n in range(int((last - first) * 4))]
    return rows(*((user, day, by + day * user / 8) for day in days for user in (1, 2)))


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    """Totals of few events, up to two and a half days before the newest one."""
    with kernels.forced(tiled=True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(totals, "_settled", lambda newest: newest - 60 * 3_600_000_000)
        patch.setattr(held, "MOST_HELD", 25)
        yield


SHAPES: dict[str, dict[str, Any]] = {
    "continuous": {"metrics": METRICS},
    "closed left": {"metrics": CLOSED_OUT},
    "aligned": {"metrics": METRICS, "interval": "12h"},
    "without keys": {"metrics": METRICS, "keys": []},
}
UNLIKE = [(shape, "polars") for shape in ("continuous", "closed left", "without keys")]
TRIED = [("aligned", "polars"), ("continuous", "duckdb"), *UNLIKE]


def drops(project: Project) -> Iterator[str]:
    """What happens to the source, step by step."""
    project.drop("a", some(0, 8))
    yield "history"
    project.drop("b", rows((1, 8.1, 3.0), (3, 8.2, 1.0)))
    yield "a drop of new events"
    project.drop("late", rows((2, 1.1, 100.0), (4, 0.5, 7.0)))
    yield "late events, one of an entity never seen"
    project.drop("c", rows((2, 9, 3.0), (4, 9, 1.0)))
    yield "new events after late ones"
    project.drop("b", rows((1, 8.1, 5.0), (3, 8.2, 1.0)))
    yield "an amended file"
    (project.events / "late.parquet").unlink()
    yield "late events gone"
    project.drop("d", rows((1, 9.5, 3.0), (3, 9.5, 1.0)))
    yield "new events after that"
    project.drop("a", some(0, 8, 2.0))
    yield "the history amended"


def test_rows_of_a_range_are_there_also_where_all_windows_end_before_it(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.drop("a", some(0, 8))
    project.build(project.define(metrics=[Rolling("1d", {"amount": "sum"}, offset="3d")]))
    events, engine = (
        events_of(project.store, project.store.resolve("spend")),
        engine_named("polars"),
    )
    rows_of_all = engine.rows(events)
    expected = rows_of_all.filter(pl.col("at").is_between(at(4), at(5)))
    assert_frame_equal(engine.rows(events, TimeRange(to_us(at(4)), to_us(at(5)))), expected)


def test_rows_of_a_range_that_totals_serve_in_part_are_there_once_each(tmp_path: Path) -> None:
    project = Project(tmp_path)
    spend = project.define(metrics=[Rolling("all", {"amount": "sum"}, closed="left")])
    project.drop("a", some(0, 8))
    project.build(spend)
    tidy(project.store, "spend")
    events = events_of(project.store, project.store.resolve("spend"))
    assert events.totals is not None
    assert events.totals.since == to_us(at(5.25)), "there is an event at that instant"
    engine, ever = engine_named("polars"), TimeRange(0, to_us(at(9)))
    expected = engine.rows(events.with_totals(None), ever)
    assert_frame_equal(engine.rows(events, ever), expected)


@pytest.mark.parametrize("key", ["value", "until"])
def test_a_key_may_be_called_as_what_totals_hold_was(key: str, tmp_path: Path) -> None:
    def keyed(df: pl.DataFrame) -> pl.DataFrame:
        return df.select(pl.col("user_id").alias(key), "at", "amount")

    project = Project(tmp_path)
    spend = project.define(keyed, keys=[key], metrics=[Rolling("all", {"amount": NAMES})])
    project.drop("a", some(0, 8))
    project.build(spend)
    tidy(project.store, "spend")
    project.drop("b", rows((1, 8.1, 3.0), (3, 8.2, 1.0)))
    project.build(spend)
    assert totals.Totals.find(
        events_of(project.store, project.store.resolve("spend")), project.store
    )
    fresh = project.rebuilt(tmp_path / "fresh", spend)
    assert_near(project.store.read("spend"), fresh.read("spend"), key)


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "engine"), TRIED)
def test_any_sequence_of_drops_gives_the_rows_of_a_rebuild(
    shape: str, engine: str, tmp_path: Path
) -> None:
    project = Project(tmp_path / "p", engine)
    spine = pl.DataFrame(
        {"user_id": [1, 2, 3, 4, 9] * 3, "at": [at(d) for d in (1.3, 8.15, 9.6) for _ in range(5)]}
    )
    used = 0
    for number, step in enumerate(drops(project)):
        project.build(project.define(with_ok, **SHAPES[shape]))
        fresh = project.rebuilt(tmp_path / f"{number}", project.define(with_ok, **SHAPES[shape]))
        manifest = project.store.resolve("spend")
        assert manifest.rows_hash == fresh.resolve("spend").rows_hash
        assert_near(project.store.read("spend"), fresh.read("spend"), step)
        answers = [get_training_data(spine, ["spend"], store) for store in (project.store, fresh)]
        assert_near(*answers, step)
        events = events_of(project.store, manifest)
        used += events.totals is not None and bool(events.totals.serve(manifest.as_of(10**18) or 0))
    assert used >= 5


def assert_near(known: pl.DataFrame, fresh: pl.DataFrame, step: str) -> None:
    assert known.schema == fresh.schema, step
    for left, right in zip(known.to_dicts(), fresh.to_dicts(), strict=True):
        for name, value in left.items():
            near = isinstance(value, float) and isinstance(right[name], float)
            same = abs(value - right[name]) <= 1e-9 * 200 if near else value == right[name]
            assert same, (step, name, left, right)


def test_a_new_drop_and_its_push_read_no_event_before_the_totals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path / "p")
    feature = project.define(metrics=[Rolling(["all", "2d"], {"amount": NAMES})])
    monkeypatch.setattr(held, "MOST_HELD", 1_000)
    monkeypatch.setattr(totals, "_settled", lambda _: int(at(77).timestamp() * 1_000_000))
    project.drop("a", some(0, 80))
    project.build(feature)
    project.drop("b", rows((1, 81, 3.0), (3, 81, 1.0)))
    before: list[int] = []
    scan = EventScan.scan

    def watched(self: Events, columns: Any = None, times: Any = None, among: Any = None) -> Any:
        if sum(partial.rows for partial in self.partials) > 100:
            before.append(times.start if times is not None else -1)
        return scan(self, columns, times, among)

    monkeypatch.setattr(EventScan, "scan", watched)
    project.build(feature)
    assert sorted(rows_to_push(project, 1, 3, 77)["user_id"]) == [1, 3]
    assert before
    assert min(before) >= int(at(77).timestamp() * 1_000_000)


def test_totals_that_are_damaged_or_gone_count_as_none(tmp_path: Path) -> None:
    project = Project(tmp_path / "p")
    feature = project.define(metrics=[Rolling("all", {"amount": ["sum", "count"]})])
    project.drop("a", some(0, 8))
    project.build(feature)
    manifest = project.store.resolve("spend")
    [tiles] = (project.store.path / "spend" / "_tiles").glob("*.parquet")
    assert events_of(project.store, manifest).totals is not None
    tiles.write_bytes(tiles.read_bytes()[:-9] + b"x" * 9)
    assert events_of(project.store, manifest).totals is None
    tiles.unlink()
    project.drop("b", rows((1, 8.1, 1.0)))
    project.build(feature)
    assert project.store.read("spend")["amount__count__all"][-1] == 33


def test_a_reader_who_has_looked_totals_up_reads_those_while_others_take_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path / "p").on(LocalStore(tmp_path / "p/store", Packing(grace_s=600)))
    feature = project.define(metrics=[Rolling("all", {"amount": ["sum", "count", "median"]})])
    project.drop("a", some(0, 8))
    project.build(feature)
    first = project.store.resolve("spend")
    points = pl.DataFrame({"user_id": [1, 2], POINT: [first.as_of(10**18)] * 2})
    engine = engine_named("polars")
    looked_up = {name: events_of(project.store, first) for name in ("notes", "nothing")}
    expected = engine.values(looked_up["notes"].with_totals(None), points)
    assert looked_up["notes"].totals is not None
    [before] = _stored(project)

    monkeypatch.setattr(totals, "_settled", lambda newest: newest - 3_600_000_000)
    project.drop("b", some(8, 16))
    project.build(feature)
    for events in looked_up.values():
        assert engine.values(events, points).equals(expected)
    assert before in _stored(project)
    assert len(_stored(project)) == 2

    later = project.on(LocalStore(tmp_path / "p/store", Packing(grace_s=0)))
    later.drop("c", some(16, 24))
    later.build(feature)
    assert len(_stored(project)) == 1


def test_what_came_is_added_behind_the_push_and_by_a_refresh_a_month_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "_OVERDUE_US", 31 * 24 * 3_600_000_000)
    project = Project(tmp_path / "p")
    feature = project.define(metrics=[Rolling("all", {"amount": ["sum", "count", "p90"]})])
    until: list[int] = []

    def check() -> None:
        manifest = project.store.resolve("spend")
        known = events_of(project.store, manifest)
        assert known.totals is not None
        until.append(known.totals.until)
        points = pl.DataFrame({"user_id": [1, 2], POINT: [manifest.as_of(10**18)] * 2})
        engine = engine_named("polars")
        expected = engine.values(known.with_totals(None), points)
        assert_frame_equal(engine.values(known, points), expected, rel_tol=1e-9)

    for first, last in ((0, 8), (8, 12)):
        project.drop(f"{first}", some(first, last))
        project.build(feature)
        check()
    tidy(project.store, "spend")
    check()
    tidy(project.store, "spend")
    check()
    project.drop("later", some(60, 61))
    project.build(feature)
    check()
    assert until[0] == until[1] < until[2] == until[3] < until[4]


def test_totals_of_a_release_that_did_not_name_them_by_content_are_used_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path / "p").on(LocalStore(tmp_path / "p/store", Packing(grace_s=600)))
    feature = project.define(metrics=[Rolling("all", {"amount": ["sum", "count"]})])
    project.drop("a", some(0, 8))
    project.build(feature)
    [path] = _stored(project)
    former = path.rename(path.with_name(path.name.replace(path.suffixes[0], "")))
    os.utime(former, (1e9, 1e9))
    events = events_of(project.store, project.store.resolve("spend"))
    assert events.totals is not None
    assert events.totals.file == str(former)

    monkeypatch.setattr(totals, "_settled", lambda newest: newest - 3_600_000_000)
    project.drop("b", some(8, 16))
    project.build(feature)
    events = events_of(project.store, project.store.resolve("spend"))
    assert events.totals is not None
    assert events.totals.file != str(former)
    assert former.exists()
    assert project.store.read("spend")["amount__count__all"][-1] == 64


def test_a_compaction_leaves_totals_and_the_next_drop_makes_none_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient, hasty = (
        Project(tmp_path / f"{grace_s}").on(
            LocalStore(tmp_path / "store", Packing(at_least=3, grace_s=grace_s))
        )
        for grace_s in (600, 0)
    )
    monkeypatch.setattr(totals, "_settled", lambda _: int(at(7).timestamp() * 1_000_000))
    feature = patient.define(metrics=[Rolling("all", {"amount": ["sum", "count"]})])
    patient.drop("a", some(0, 8))
    patient.build(feature)
    [before] = _stored(patient)
    monkeypatch.setattr(totals, "notes_of", None)  # without it none are made
    for number in range(3):
        patient.drop(f"{number}", rows((1, 12 + number, 3.0)))
        patient.build(feature)
    compact(patient.store, patient.store.resolve("spend"))
    patient.drop("last", rows((1, 20, 3.0)))
    patient.build(feature)
    assert len(_stored(patient)) == 2
    compact(hasty.store, hasty.store.resolve("spend"))
    assert not before.exists()
    patient.drop("later", rows((1, 21, 3.0)))
    patient.build(feature)
    assert len(_stored(patient)) == 1
    assert events_of(patient.store, patient.store.resolve("spend")).totals is not None
    assert patient.store.read("spend")["amount__count__all"][-1] == 37


def test_files_that_the_definition_no_longer_needs_go_with_a_prune_and_beneath_no_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path / "store", Packing(grace_s=0))
    project = Project(tmp_path / "p").on(store)
    project.drop("a", some(0, 8))
    ranked = {"amount": ["sum", "p50", "last"]}
    project.build(project.define(metrics=[Rolling("all", ranked)], interval="12h"))
    spine = pl.DataFrame({"user_id": [1], "at": [at(9)]})
    values = get_training_data(spine, [("spend", "1.0.0")], store)
    project.build(project.define(metrics=[Rolling("2d", {"amount": "sum"})]))

    def files_left() -> list[Path]:
        prune(store, ["spend"], UNATTENDED)
        return [*(tmp_path / "store" / "spend" / "_tiles").iterdir()]

    assert len(files_left()) >= 2, "what was served a moment ago may be in a push"
    monkeypatch.setattr(operations, "_STILL_READ_US", 0)
    with store.lease("spend", Version(1, 0, 0)):
        assert len(files_left()) >= 2
    assert files_left() == []
    assert get_training_data(spine, [("spend", "1.0.0")], store).equals(values)
    project.build(project.define(metrics=[Rolling("all", ranked)], interval="12h"))
    made = files_left()
    assert made, "those of the served version stay"


def test_an_entity_whose_first_event_is_where_totals_and_windows_end_has_no_value_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "_settled", lambda newest: newest)
    project = Project(tmp_path / "p")
    feature = project.define(metrics=[Rolling("all", {"amount": "count"}, closed="left")])
    project.drop("a", some(0, 8))
    project.drop("b", rows((3, 8.0, 1.0)))
    project.build(feature)
    then = int(at(8).timestamp() * 1_000_000)
    view = AsOfView(events_of(project.store, project.store.resolve("spend")), then)
    known = view.events.totals
    assert known is not None
    assert known.until == then
    assert sorted(active_entities(view.events, then)["user_id"]) == [1, 2]


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_totals_with_rows_that_were_forgotten_since_count_as_none_wherever_they_still_lie(
    tmp_path: Path, place: str
) -> None:
    project = Project(tmp_path / "p")
    other = project
    if place == "bucket":
        objects = MemoryObjects()
        project, other = (
            project.on(ObjectStore("s3://memory/store", tmp_path / name, objects=objects))
            for name in ("first", "second")
        )
    feature = project.define(metrics=[Rolling("all", {"amount": ["sum", "count"]})])
    project.drop("a", some(0, 8))
    project.build(feature)
    project.drop("b", rows((2, 8.1, 1.0)))
    other.build(feature)
    for each in (project, other):
        assert events_of(each.store, each.store.resolve("spend")).totals is not None
    entity = Entity("user_id", "1")
    project.store.write_forgotten(Forgotten(salt="5a17").with_entities([entity]))
    publish_without(project.store, "spend", engine_named("polars"))  # and a kill behind it
    spine = pl.DataFrame({"user_id": [1, 2], "at": [at(9), at(9)]})
    for each in (project, other):
        answer = get_training_data(spine, ["spend"], store=each.store)
        assert answer["spend__amount__count__all"].to_list() == [0, 33]


def _stored(project: Project) -> list[Path]:
    assert isinstance(project.store, LocalStore)
    return sorted((project.store.path / "spend" / "_tiles").glob("*.parquet"))


def test_totals_that_it_does_not_pay_to_hold_are_noted_and_not_made_anew_by_each_drop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "GAIN", 1_000)
    project, written = Project(tmp_path / "p"), []

    def counted(*arguments: Any) -> Any:
        written.append(1)
        return build_tiles(*arguments)

    monkeypatch.setattr(totals, "build_tiles", counted)
    feature = project.define(metrics=[Rolling("all", {"amount": ["mode", "p90"]})])
    monkeypatch.setattr(totals, "_settled", lambda _: int(at(7).timestamp() * 1_000_000))
    project.drop("a", some(0, 8))
    project.build(feature)
    assert events_of(project.store, project.store.resolve("spend")).totals is None
    project.drop("b", rows((1, 8.1, 1.0)))
    project.build(feature)
    assert written == [1]
    assert project.store.read("spend")["amount__mode__all"][-1] == 1.0


MERGEABLE = [name for name in NAMES if aggregation(name).kind.parts]
CARRIED = [
    Rolling("all", {"amount": MERGEABLE}),
    BESIDE,
    Rolling("all", {"amount": ["sum", "var", "first", "last_time"]}, offset="2d"),
    Rolling("all", {"amount": "sum"}, where="ok"),
]
CARRIED_SHAPES: dict[str, dict[str, Any]] = {
    "continuous": {"metrics": CARRIED},
    "closed left": {"metrics": [Rolling("all", {"amount": MERGEABLE}, closed="left")]},
    "aligned": {"metrics": CARRIED, "interval": "12h"},
    "without keys": {"metrics": CARRIED, "keys": []},
}

CARRIED_BY = [
    ("aligned", "polars"),
    *(pytest.param(*each, marks=pytest.mark.slow) for each in [("continuous", "duckdb"), *UNLIKE]),
]


@pytest.mark.parametrize(("shape", "engine"), CARRIED_BY)
def test_a_full_build_holds_a_range_of_time_at_a_time_and_carries_what_came_before(
    shape: str, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, lines = Project(tmp_path / "p", engine), _lines(monkeypatch, engine)
    for day in range(60):
        project.drop(f"{day:02}", some(day, day + 1, (-1) ** day * 1e3 / (day + 1)))
    feature = project.define(with_ok, **CARRIED_SHAPES[shape])
    whole = project.build(feature)
    held, expected = max(lines), project.store.read("spend")
    lines.clear()
    options = Options(full=True, layout=Layout(chunk_rows=40))
    other = project.on(type(project.store)(tmp_path / "other"))
    built = other.definitions(feature).refresh("spend", options=options)
    assert (built.rows, built.mode) == (whole.rows, "full")
    assert_near(other.store.read("spend"), expected, shape)
    assert max(lines) < held / 3
    assert sum(lines) < 12 * held  # what came before is not read anew for each range


@pytest.mark.parametrize(("at_once", "held"), [(60, [64]), (16, [32, 32])])
def test_a_full_build_takes_all_of_time_at_once_where_windows_over_all_of_it_do_not_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int, held: list[int]
) -> None:
    """Of all entities, or of the buckets into which these are dealt."""
    project, lines = Project(tmp_path / "p"), _lines(monkeypatch, "polars")
    for day in range(8):
        project.drop(f"{day:02}", some(day, day + 1))
    feature = project.define(metrics=[Rolling("all", {"amount": ["sum", "median"]})])
    options = Options(layout=Layout(chunk_rows=at_once))
    project.definitions(feature).refresh("spend", options=options)
    assert lines == held


def _lines(monkeypatch: pytest.MonkeyPatch, engine: str) -> list[int]:
    """The rows of each timeline that an engine evaluates."""
    kind, heights = type(engine_named(engine)), []
    aggregate = kind.aggregate

    def counted(
        self: Any, line: pl.DataFrame, context: Any, points: pl.DataFrame | None = None
    ) -> pl.DataFrame:
        heights.append(line.height)
        return aggregate(self, line, context, points)

    monkeypatch.setattr(kind, "aggregate", counted)
    return heights
