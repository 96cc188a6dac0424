"""Tiles of files with many events are made once and read instead of them; without them all comes out the same."""

from __future__ import annotations

import os
import random
import shutil
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mlforge import Definitions, Feature, get_online_features, get_training_data
from mlforge.build.result import Options
from mlforge.compilers.base import TIME
from mlforge.core.aggregation_kinds import KINDS
from mlforge.engines.events import cache_tiles
from mlforge.engines.tiles import ahead, as_filed, build, cache
from mlforge.engines.tiles.cache import TileCache
from mlforge.errors import StoreError
from mlforge.maintenance.operations import prune, tidy, verify
from mlforge.maintenance.retention import Retention
from mlforge.metrics import Rolling
from mlforge.online import RedisStore, batches
from mlforge.online.prefetch import read_ahead
from mlforge.store import LocalStore
from mlforge.store.file_tasks import TileWrite
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

AGGREGATIONS = [name for name, kind in KINDS.items() if kind.parts]


def events(day: int, amount: float = 0.125) -> pl.DataFrame:
    each = [
        (user, day + n / 8, amount * (n + 1) * (user + 1))
        for user in range(USERS)
        for n in range(8)
    ]
    return rows(*each, (0, day + 0.9, None))


def aligned(project: Project, *more: str, **changes: Any) -> Feature:
    metrics = [Rolling(["2d", "5d"], {"amount": [*AGGREGATIONS, *more]})]
    return project.define(**{"interval": "1d", "metrics": metrics, **changes})


def laid(project: Project) -> dict[str, int]:
    """The tiles that are at rest, and when each was written."""
    folder = project.root / "store/spend/_tiles"
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def rows_laid(project: Project) -> list[pl.DataFrame]:
    """The tiles of each file, in an order of their own."""
    paths = sorted((project.root / "store/spend/_tiles").iterdir())
    return [pl.read_parquet(path).sort("user_id", TIME) for path in paths]


def partials(project: Project) -> list[Path]:
    return sorted((project.root / "store/spend/_partials").iterdir())


def check(project: Project) -> None:
    """Training data must be what the events give; on Polars, where sums are exact, to the last bit of them."""
    found, expected = training(project), of_events(project)
    assert_frame_equal(found, expected, rel_tol=1e-12, abs_tol=1e-9)
    if project.engine == "polars":
        sums = [name for name in found.columns if "__sum__" in name]
        assert found.select(sums).equals(expected.select(sums))


def test_values_are_those_of_the_events_and_no_file_of_them_is_read(
    project: Project, read: list[Path]
) -> None:
    expected = of_events(project)
    assert len(laid(project)) == DAYS
    assert read
    read.clear()
    found = training(project)
    assert read == []
    assert_frame_equal(found, expected, rel_tol=1e-12)


def test_a_drop_makes_its_own_tiles_and_leaves_those_that_are_there(project: Project) -> None:
    before = laid(project)
    project.drop("late", events(4, amount=3.0))
    project.build(aligned(project))
    after = laid(project)
    assert len(after) == DAYS + 1
    assert before.items() <= after.items()
    check(project)


@pytest.fixture
def online(project: Project, redis_url: str) -> Iterator[Definitions]:
    made = project.definitions(aligned(project), online_store=RedisStore.from_url(redis_url))
    yield made
    made.close()


@pytest.mark.parametrize("at_once", [1, 2, 50_000])
def test_a_push_is_made_of_tiles_alone_whatever_fits_into_memory(
    at_once: int,
    project: Project,
    online: Definitions,
    read: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "ENTITIES_HELD", at_once)
    assert online.push("spend").written == USERS
    assert read == []
    project.drop("new", events(DAYS, amount=5.0).filter(user_id=1))
    online.refresh("spend")
    pushed = online.push("spend")
    # The windows of the others have lost events meanwhile.
    assert (pushed.written, pushed.deleted) == (USERS, 0)
    assert online.online_store is not None
    answers = get_online_features(
        ["spend"], [{"user_id": user} for user in range(5)], online.online_store
    )
    spine = pl.DataFrame({"user_id": range(5), "at": [at(DAYS + 1)] * 5})
    expected = get_training_data(spine, ["spend"], project.store).drop("at")
    assert pl.DataFrame(answers, schema=expected.schema).equals(expected)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("every", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_damaged_tiles_are_as_good_as_none(damage: str, every: int, project: Project) -> None:
    expected = of_events(project)
    for path in list((project.root / "store/spend/_tiles").iterdir())[::every]:
        DAMAGE[damage](path)
    assert_frame_equal(training(project), expected, rel_tol=1e-12)
    assert verify(project.store, ["spend"]) == []


def test_deleted_tiles_are_made_anew_as_far_as_a_drop_needs_them(project: Project) -> None:
    shutil.rmtree(project.root / "store/spend/_tiles")
    project.drop("new", events(DAYS))
    project.build(aligned(project))
    assert len(laid(project)) == 1 + 5  # its own, and those of the longest window before
    check(project)


def test_thin_files_are_told_apart_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "DENSE", 7)
    project.drop("thin", rows((1, DAYS + 0.5, 1.0), (2, DAYS + 0.6, 2.0)))
    project.build(aligned(project))
    assert len(laid(project)) == DAYS + 1
    check(project)
    asked: list[object] = []
    monkeypatch.setattr(build, "dense", lambda *found: asked.append(found))
    project.build(aligned(project), version="2.0.0", full=True)
    assert asked == []


@pytest.mark.parametrize("at_once", [1, 2_000_000])
def test_which_tiles_are_at_rest_shows_neither_in_the_bytes_of_a_full_build_nor_in_what_it_reads(
    at_once: int, project: Project, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(as_filed, "_AT_ONCE", at_once)
    monkeypatch.setattr(cache, "_AT_ONCE", at_once)
    versions = iter(range(2, 9))

    def content_hash() -> str | None:
        read.clear()
        project.build(aligned(project), version=f"{next(versions)}.0.0", full=True)
        return project.store.read_metadata("spend").content_hash

    content_hash()
    assert read == []
    draw = random.Random(1)
    for day in (3, 7):  # and the day after, of which there are events in other files, too
        late = ((n % USERS, day + draw.uniform(0, 2), draw.uniform(0, 9)) for n in range(40))
        project.drop(f"late{day}", rows(*late))
    before = content_hash()
    assert content_hash() == before
    assert len(set(read)) == 2 * 3
    monkeypatch.setattr(TileCache, "write", lambda *_: None)
    for every in (3, 2, 1):
        for name in sorted(laid(project))[::every]:
            (project.root / "store/spend/_tiles" / name).unlink()
        assert content_hash() == before


def test_values_of_tiles_have_the_same_bytes_with_each_engine(project: Project) -> None:
    hashes = set()
    for number, engine in enumerate(("polars", "duckdb"), 2):
        project.engine = engine
        project.build(aligned(project), version=f"{number}.0.0", full=True)
        hashes.add(project.store.read_metadata("spend").content_hash)
    assert len(hashes) == 1


def test_damaged_tiles_are_made_anew_by_the_next_build_that_needs_them(project: Project) -> None:
    folder = project.root / "store/spend/_tiles"
    [first, *_, last] = sorted(folder.iterdir())
    first.write_bytes(b"")
    last.write_bytes(flipped(last.read_bytes()))
    project.build(aligned(project), version="2.0.0", full=True)
    assert len(laid(project)) == DAYS
    assert min(path.stat().st_size for path in folder.iterdir()) > 1_000
    check(project)


def test_damaged_events_get_no_tiles_and_what_mends_them_mends_the_values(project: Project) -> None:
    expected = training(project)
    shutil.rmtree(project.root / "store/spend/_tiles")
    damaged = partials(project)[0]
    content = damaged.read_bytes()
    place = content.index(struct.pack("<d", 0.25))
    damaged.write_bytes(content[:place] + struct.pack("<d", 1e6) + content[place + 8 :])
    project.drop("new", events(DAYS))
    project.build(aligned(project), version="2.0.0")
    assert len(verify(project.store, ["spend"])) > 0
    project.build(aligned(project), version="3.0.0", full=True)
    assert verify(project.store, ["spend"]) == []
    assert len(laid(project)) == DAYS + 1
    check(project)
    known = pl.col("at") < at(DAYS)
    assert_frame_equal(training(project).filter(known), expected.filter(known), rel_tol=1e-12)


def test_tiles_of_other_bytes_under_the_same_name_are_not_used(project: Project) -> None:
    [first, second, *_] = partials(project)
    first.write_bytes(second.read_bytes())
    check(project)


@pytest.mark.parametrize(
    "amounts",
    [[0.0], *(pytest.param(rest, marks=pytest.mark.slow) for rest in ([None], []))],
    ids=str,
)
def test_a_file_of_nothing_goes_with_values_of_any_size(
    amounts: list[float | None], project: Project
) -> None:
    for size in (1e18, 1e-30, 1e280, 1e290):
        project.drop("size", events(3, amount=size))
        project.drop("nothing", rows(*((1, 4.0 + n / 8, x) for n, x in enumerate(amounts * 9))))
        for path in project.events.glob("d*.parquet"):
            path.unlink()
        project.definitions(aligned(project)).refresh("spend")
        check(project)


@pytest.mark.parametrize(
    "sizes",
    [
        (1e160, 1.0),
        (1e-170, 1e-180),
        pytest.param((1e160, 1e160), marks=pytest.mark.slow),
        pytest.param((1e200, 0.0), marks=pytest.mark.slow),
    ],
)
def test_squares_that_no_float_holds_are_left_to_the_events(
    sizes: tuple[float, float], project: Project
) -> None:
    for day, size in enumerate(sizes):
        project.drop(f"d{day:02d}", events(day, amount=size))
    project.build(aligned(project))
    check(project)


def test_sums_of_files_whose_values_differ_in_size_stay_exact(project: Project) -> None:
    project.drop("fine", events(3, amount=1e-9))
    project.drop("large", events(4, amount=1e9))
    project.build(aligned(project))
    check(project)
    project.drop("too far apart", events(5, amount=1e-200))
    project.build(aligned(project))
    check(project)


@pytest.mark.parametrize(("size", "alone"), [(1e3, True), (1e12, False)])
def test_a_push_holds_events_a_few_at_a_time_where_some_metric_needs_them(
    size: float, alone: bool, project: Project, read: list[Path], online: Definitions
) -> None:
    project.drop(f"d{DAYS - 1}", events(DAYS - 1, amount=size))
    online.refresh("spend")
    read.clear()
    assert online.push("spend").written == USERS
    assert (read == []) is alone
    check(project)


def test_medians_are_made_of_events_beside_tiles(project: Project, redis_url: str) -> None:
    defs = project.definitions(
        aligned(project, "median"), online_store=RedisStore.from_url(redis_url)
    )
    defs.build(online=True)
    check(project)
    assert defs.push("spend").written == 0
    defs.close()


def test_tiles_of_another_interval_go_and_old_versions_do_without(project: Project) -> None:
    before, old = laid(project), training(project)
    project.build(aligned(project, interval="12h"))
    after = laid(project)
    assert len(after) == DAYS
    assert not before.keys() & after.keys()
    check(project)
    assert_frame_equal(training(project, "1.0.0"), old, rel_tol=1e-12)


def test_tiles_of_another_kind_are_left_to_who_has_looked_them_up(project: Project) -> None:
    patient = project.on(LocalStore(project.store.path, Packing(at_least=1_000, grace_s=600)))
    before = grown_old(project)
    patient.build(aligned(patient, interval="12h"))
    assert before < laid(project).keys()
    grown_old(project)
    project.drop("new", events(DAYS))
    patient.build(aligned(patient, interval="12h"))
    assert not before & laid(project).keys()
    check(patient)


def grown_old(project: Project) -> set[str]:
    """The tiles that are at rest, which from now on seem to have been for a quarter of an hour."""
    then = time.time() - 900
    for path in (project.root / "store/spend/_tiles").iterdir():
        os.utime(path, (then, then))
    return set(laid(project))


@pytest.mark.parametrize(
    ("narrow", "other"),
    [
        (pl.Int8, pl.Int32),
        pytest.param(pl.UInt8, pl.Int16, marks=pytest.mark.slow),
        pytest.param(pl.Int32, pl.UInt32, marks=pytest.mark.slow),
    ],
)
def test_tiles_of_keys_of_another_width_are_not_used(
    narrow: pl.DataType, other: pl.DataType, tmp_path: Path, project: Project
) -> None:
    """Whatever the order of drops: the key's dtype follows the files, wider and narrower."""

    def of(day: int, dtype: pl.DataType) -> pl.DataFrame:
        return events(day).with_columns(pl.col("user_id").cast(dtype))

    mixed = Project(tmp_path / "mixed", project.engine)
    first = mixed.drop("a", of(0, narrow))
    for day, dtype in enumerate([narrow, other, pl.Int64], 1):
        mixed.drop(f"d{day}", of(day, dtype))
        mixed.build(aligned(mixed))
    (mixed.events / "d3.parquet").unlink()
    first.unlink()
    mixed.build(aligned(mixed))
    table, afresh = mixed.store.read("spend"), mixed.rebuilt(tmp_path / "afresh", aligned(mixed))
    assert_frame_equal(table, afresh.read("spend"), rel_tol=1e-12, abs_tol=1e-9)
    check(mixed)


def test_the_order_of_columns_and_metrics_does_not_matter_to_tiles(
    project: Project, tmp_path: Path
) -> None:
    """Keys before and after the timestamp, and tiles that were made for metrics in another order."""

    def define(*columns: str) -> Feature:
        metrics = [Rolling("2d", {column: ["sum", "min", "count"]}) for column in columns]
        return aligned(
            other,
            keys=["user_id", "shop"],
            metrics=metrics,
            function=lambda df: df.select(pl.all()),
        )

    def of(day: int) -> pl.DataFrame:
        made = events(day).with_columns(shop=pl.col("user_id") % 2, fee=pl.lit(1.5))
        return made.select("fee", "at", "user_id", "amount", "shop")

    other = Project(tmp_path / "other", project.engine)
    for day in range(3):
        other.drop(f"d{day}", of(day))
    other.build(define("amount", "fee"))
    other.drop("d3", of(3).reverse().select("shop", "amount", "user_id", "at", "fee"))
    other.build(define("fee", "amount"))
    found, store = (
        other.store.read("spend"),
        other.rebuilt(tmp_path / "afresh", define("fee", "amount")),
    )
    assert_frame_equal(found, store.read("spend"), rel_tol=1e-12, abs_tol=1e-9)


def test_a_metric_that_the_tiles_have_not_makes_others(project: Project) -> None:
    narrow = aligned(project, metrics=[Rolling("2d", {"amount": "sum"})])
    project.build(narrow)
    kinds = {name.rpartition("-")[2] for name in laid(project)}
    project.build(aligned(project))
    assert kinds.isdisjoint(name.rpartition("-")[2] for name in laid(project))
    check(project)


def test_tiles_go_with_their_files(project: Project) -> None:
    (project.events / "d00.parquet").unlink()
    project.build(aligned(project))
    assert len(laid(project)) == DAYS
    prune(project.store, ["spend"], Retention(newest=1))
    assert len(laid(project)) == DAYS - 1
    tidy(project.store, "spend")
    check(project)


def test_tiles_of_a_pack_stand_for_all_of_it_or_not_at_all(tmp_path: Path) -> None:
    project = daily(tmp_path / "p", events, aligned, at_least=2)
    assert len(laid(project)) == 1
    project.drop("d03", events(3, amount=7.0))
    project.build(aligned(project))
    check(project)
    project.drop("d03", events(3))
    project.build(aligned(project))
    check(project)


@pytest.fixture(name="of_files")
def built_of_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files of events of which tiles were to be built, rather than of their rows in memory."""
    files: list[str] = []
    original = LocalStore.is_whole

    def asked(store: LocalStore, name: str, file: str) -> bool:
        files.append(file)
        return original(store, name, file)

    monkeypatch.setattr(LocalStore, "is_whole", asked)
    return files


@pytest.mark.parametrize("most", [64_000_000, 3_000, -1])
def test_tiles_of_packs_are_the_same_whether_built_while_these_are_written_or_later(
    most: int, tmp_path: Path, of_files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "_MOST_BYTES", most)
    project = Project(tmp_path / "p")
    packing = Packing(at_least=2, pack_rows=60, grace_s=0)
    project.store = LocalStore(project.root / "store", packing)
    for day in range(DAYS):
        project.drop(f"d{day:02d}", events(day))
    project.build(aligned(project))
    before = rows_laid(project)
    assert len(before) == DAYS / 2
    assert len(of_files) == {64_000_000: 0, -1: DAYS / 2}.get(most, len(of_files))
    shutil.rmtree(project.root / "store/spend/_tiles")
    with project.store.lock("spend"):
        cache_tiles(project.store, project.store.read_metadata("spend"), None)
    for tiles, others in zip(rows_laid(project), before, strict=True):
        assert tiles.equals(others, null_equal=True)
    check(project)


def test_tiles_that_were_built_before_the_schema_was_known_are_of_it_or_built_anew(
    tmp_path: Path, of_files: list[str]
) -> None:
    project = Project(tmp_path / "p")
    project.store = LocalStore(project.root / "store", Packing(at_least=2, grace_s=0))
    for day in range(4):
        amount = pl.col("amount") if day < 2 else pl.col("amount").cast(pl.Int64)
        project.drop(f"d{day}", events(day, amount=8.0).with_columns(amount))
    project.build(aligned(project))
    assert (len(laid(project)), len(of_files)) == (2, 1)
    check(project)


def test_a_pack_of_which_a_file_counts_twice_has_tiles(tmp_path: Path) -> None:
    project = Project(tmp_path / "p")
    project.store = LocalStore(project.root / "store", Packing(at_least=2, grace_s=0))
    for name in ("d0", "d1", "d2", "copy"):
        project.drop(name, events(int(name[1]) if name != "copy" else 1))
    project.build(aligned(project))
    assert len(laid(project)) == 1
    check(project)


def test_a_file_that_counts_twice_has_tiles_that_count_twice(project: Project) -> None:
    project.drop("copy", events(3))
    project.build(aligned(project))
    assert len(laid(project)) == DAYS
    check(project)


def test_a_plan_makes_no_tiles(project: Project) -> None:
    before = laid(project)
    project.drop("new", events(DAYS))
    project.definitions(aligned(project)).refresh("spend", options=Options(publish=False))
    assert laid(project) == before


def test_nothing_is_read_ahead_that_has_tiles(project: Project) -> None:
    manifest = project.store.read_metadata("spend")
    assert read_ahead(project.store, manifest) == 0
    shutil.rmtree(project.root / "store/spend/_tiles")
    assert read_ahead(project.store, manifest) > 0


def test_nothing_is_read_ahead_of_a_pack_that_has_tiles(tmp_path: Path) -> None:
    project = daily(tmp_path / "p", events, aligned, at_least=2)
    assert len(laid(project)) == 1
    assert read_ahead(project.store, project.store.read_metadata("spend")) == 0


def test_tiles_elsewhere_are_neither_read_nor_written(project: Project, tmp_path: Path) -> None:
    folder = project.root / "store/spend/_tiles"
    folder.rename(tmp_path / "away")
    folder.symlink_to(tmp_path / "away")
    with pytest.raises(StoreError, match="is a link"):
        training(project)
    with pytest.raises(StoreError, match="is a link"):
        project.store.write_tiles(
            "spend", "kind", [TileWrite(str(partials(project)[0]), rows(), {})]
        )
