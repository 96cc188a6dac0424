"""Sets of files with many events are made once and read instead of them; without them all comes out the same."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mlforge import Definitions, Feature, get_training_data
from mlforge.core.values import BEGINNING, END, TimeRange
from mlforge.engines.events import events_of
from mlforge.engines.tiles import sets
from mlforge.engines.tiles.sets import COUNTS, ENDS
from mlforge.metrics import Rolling, ToDate
from mlforge.online import RedisStore, batches
from mlforge.online.prefetch import read_ahead
from mlforge.store import LocalStore
from mlforge.store.local.packs import Packing
from tests.support.projects import Project, at, rows
from tests.support.tiled import (  # noqa: F401 - fixtures
    DAMAGE,
    DAYS,
    USERS,
    built,
    daily,
    files_read,
    flipped,
    of_events,
    own_copy,
    tiled,
    training,
)

A_DAY = 24
NUMBERS = ["count_distinct", "mode", "top_2", "median", "p90", "p99_9", "first_2", "last_3"]
TEXTS = ["count_distinct", "mode", "top_3", "last_2"]
METRICS = [
    Rolling(["2d", "5d"], {"amount": [*NUMBERS, "sum", "std", "last"], "city": TEXTS}),
    Rolling("3d", {"amount": ["mode", "p90", "last_2"], "city": "count_distinct"}, offset="1d", where="ok"),
    ToDate("1w", {"amount": ["count_distinct", "median"]}),
]  # fmt: skip


def events(day: int, seed: int = 0) -> pl.DataFrame:
    """Few amounts and cities; zeros of both signs, nulls, and several events at an instant."""
    draw = random.Random(f"{day} {seed}")
    amounts = [None, 0.0, -0.0, 1.5, 1.5, 2.25, 7.0]
    each = [
        (user, day + draw.randrange(12) / 12, draw.choice(amounts))
        for user in range(USERS)
        for _ in range(A_DAY)
    ]
    frame = rows(*each)
    return frame.with_columns(
        city=pl.Series([draw.choice(["Bonn", "Köln", None, "Ulm"]) for _ in each]),
        ok=pl.Series([draw.choice([True, True, False, None]) for _ in each]),
    )


def aligned(project: Project, **changes: Any) -> Feature:
    return project.define(lambda df: df, **{"interval": "1d", "metrics": METRICS, **changes})


def stored(project: Project) -> dict[str, int]:
    """The sets that are at rest, and when each was written."""
    folder = project.root / "store/spend/_tiles"
    files = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    kinds = {name: name.rpartition("-")[2].partition(".")[0] for name in files}
    return {name: when for name, when in files.items() if len(kinds[name]) == 18}


def check(project: Project) -> None:
    assert_frame_equal(training(project), of_events(project), rel_tol=1e-12, abs_tol=1e-12)


def test_values_are_those_of_the_events_and_no_file_of_them_is_read(
    project: Project, read: list[Path]
) -> None:
    expected = of_events(project)
    assert len(stored(project)) == DAYS
    assert read
    read.clear()
    found = training(project)
    assert read == []
    assert_frame_equal(found, expected, rel_tol=1e-12, abs_tol=1e-12)
    assert found["spend__amount__count_distinct__5d"].max() == 4, "both zeros are one value"
    assert found["spend__city__top_3__5d"].list.len().max() == 3


def test_a_drop_reads_no_event_but_its_own_and_makes_its_own_sets(
    project: Project, read: list[Path]
) -> None:
    before = stored(project)
    project.drop("new", events(DAYS))
    read.clear()
    result = project.definitions(aligned(project)).refresh("spend")
    assert result.mode == "incremental"
    [own] = set(read)
    after = stored(project)
    assert len(after) == DAYS + 1
    assert before.items() <= after.items()
    assert own.stem in "".join(after.keys() - before.keys())
    check(project)
    afresh = project.rebuilt(project.root / "afresh", aligned(project))
    assert_frame_equal(project.store.read("spend"), afresh.read("spend"), rel_tol=1e-12)


@pytest.mark.parametrize("at_once", [1, 50_000])
def test_a_push_is_made_of_sets_and_tiles_alone_whatever_fits_into_memory(
    at_once: int,
    project: Project,
    redis_url: str,
    read: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    online = RedisStore.from_url(redis_url)
    definitions = project.definitions(aligned(project), online_store=online)
    monkeypatch.setattr(batches, "ENTITIES_HELD", at_once)
    read.clear()
    assert definitions.push("spend").written == USERS
    assert read == []
    rows_online = online.read_batch("spend", [{"user_id": user} for user in range(USERS)])
    spine = pl.DataFrame({"user_id": range(USERS), "at": [at(DAYS)] * USERS})
    expected = get_training_data(spine, ["spend"], project.store).drop("user_id", "at")
    for row, wanted in zip(rows_online, expected.to_dicts(), strict=True):
        assert row is not None
        for name, value in wanted.items():
            assert row[name.removeprefix("spend__")] == pytest.approx(value), name
    assert read_ahead(project.store, project.store.read_metadata("spend")) == 0
    definitions.close()


def test_a_feature_of_sets_alone_reads_no_events_either(
    project: Project, read: list[Path], redis_url: str
) -> None:
    alone = aligned(project, metrics=[Rolling("3d", {"city": ["count_distinct", "mode"]})])
    definitions: Definitions = project.definitions(
        alone, online_store=RedisStore.from_url(redis_url)
    )
    definitions.build()
    read.clear()
    assert definitions.push("spend").written == USERS
    assert read == []
    check(project)
    definitions.close()


OFTEN = ("flipped", "gone")  # all the others are shown for tiles, which are files of the same kind


@pytest.mark.parametrize(
    "damage",
    [*OFTEN, *(pytest.param(n, marks=pytest.mark.slow) for n in DAMAGE if n not in OFTEN)],
)
@pytest.mark.parametrize("every", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_damaged_sets_are_as_good_as_none_and_made_anew(
    damage: str, every: int, project: Project
) -> None:
    folder = project.root / "store/spend/_tiles"
    for name in sorted(stored(project))[::every]:
        DAMAGE[damage](folder / name)
    check(project)
    project.build(aligned(project), version="2.0.0", full=True)
    assert len(stored(project)) == DAYS
    assert min((folder / name).stat().st_size for name in stored(project)) > 1_000
    check(project)


def test_of_a_file_with_a_set_that_is_not_small_none_is_kept_which_is_found_out_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "GAIN", 3)
    project = Project(tmp_path / "p")
    project.store = LocalStore(project.root / "store", Packing(at_least=1_000, grace_s=0))
    for day in range(DAYS):
        frame = events(day)
        if day != 3:  # amounts that are all different, but in a single file
            frame = frame.with_columns(amount=pl.int_range(pl.len()).cast(pl.Float64) + day / 7)
        project.drop(f"d{day:02d}", frame)
    metrics = [Rolling(["2d", "5d"], {"amount": ["p90", "mode"], "city": TEXTS})]
    project.build(aligned(project, metrics=metrics))
    manifest = project.store.read_metadata("spend")
    seen = events_of(project.store, manifest)
    assert set(seen.sets.parts) == {("amount", COUNTS), ("city", COUNTS), ("city", ENDS)}
    assert seen.sets.stored(seen, TimeRange(BEGINNING, END)) == {}
    assert len(stored(project)) == DAYS
    check(project)
    asked: list[object] = []
    monkeypatch.setattr(sets, "_are_small", lambda *found: asked.append(found))
    project.build(aligned(project, metrics=metrics), version="2.0.0", full=True)
    assert asked == []


def test_files_that_come_go_change_or_count_twice(project: Project) -> None:
    project.drop("copy", events(3))
    project.build(aligned(project))
    assert len(stored(project)) == DAYS, "of the same bytes there is one"
    check(project)
    project.drop("late", events(4, seed=1))
    project.drop("d06", events(6, seed=2))
    (project.events / "d08.parquet").unlink()
    project.definitions(aligned(project)).refresh("spend")
    check(project)


def test_sets_of_a_pack_stand_for_all_of_it_or_not_at_all(tmp_path: Path) -> None:
    project = daily(tmp_path / "p", events, aligned, at_least=2)
    assert len(stored(project)) == 1
    project.drop("d03", events(3, seed=7))
    project.build(aligned(project))
    check(project)


def test_another_k_or_interval_makes_other_sets(project: Project) -> None:
    before = stored(project)
    project.build(aligned(project, metrics=[Rolling("2d", {"amount": ["last_3", "p50"]})]))
    assert before.keys().isdisjoint(stored(project))
    between = stored(project)
    project.build(aligned(project, metrics=[Rolling("2d", {"amount": ["last_5", "p10"]})]))
    assert between.keys().isdisjoint(stored(project))
    check(project)
    project.build(aligned(project, interval="12h"))
    check(project)


def test_without_sets_they_are_made_anew_as_far_as_a_drop_needs_them(project: Project) -> None:
    shutil.rmtree(project.root / "store/spend/_tiles")
    project.drop("new", events(DAYS))
    project.build(aligned(project))
    assert 0 < len(stored(project)) < DAYS
    check(project)
