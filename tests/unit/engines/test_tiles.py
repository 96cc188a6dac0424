"""Aligned windows over dense events are put together from tiles, and come out as from the events themselves."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge.core.aggregations import AGGREGATIONS, aggregation
from mlforge.core.values import to_us
from mlforge.engines import Engine, engine_named, plan, timeline
from mlforge.engines.tiles import build, cache, places
from mlforge.engines.tiles import merge as merging
from mlforge.engines.tiles.merge import Merge
from mlforge.metrics import Rolling
from mlforge.store.file_tasks import FileScanTask, TileWrite
from tests.support import kernels
from tests.support.judged import History, every
from tests.support.projects import START

HOUR = 3_600_000_000
NOW = to_us(START)
NUMBERS = [name for name in AGGREGATIONS if aggregation(name).kind.parts]
DENSE = 30
"""Events of an entity in an hour, in tests that leave it to mlforge how to evaluate."""


@pytest.fixture(params=["polars", "duckdb"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return engine_named(request.param)


@pytest.fixture
def merged(monkeypatch: pytest.MonkeyPatch) -> list[Merge]:
    """What was made of tiles, at each evaluation that made some."""
    seen: list[Merge] = []

    def watched(*arguments: Any) -> Merge:
        seen.append(merging.merge(*arguments))
        return seen[-1]

    monkeypatch.setattr(plan, "merge", watched)
    return seen


def over_events(merge: Merge) -> list[str]:
    """The aggregations that it leaves to the events."""
    return [metric.aggregation for metric in merge.over_events]


def amounts(draw: random.Random) -> float | None:
    return draw.choice([None, draw.uniform(-99, 99), round(draw.uniform(0, 1), 3)])


def filled(
    history: History, count: int, hours: int, value: Callable[[random.Random], Any] = amounts
) -> History:
    """So many events of two users, over so many hours, with a gap before the last."""
    draw = random.Random(count)
    rows = [
        (draw.randrange(2), NOW + draw.randrange(hours) * HOUR + draw.randrange(HOUR), value(draw))
        for _ in range(count - 1)
    ]
    return history.add(*rows, (1, NOW + 2 * hours * HOUR, value(draw)))


@pytest.mark.parametrize("is_sorted", [True, False])
def test_tiles_in_order_are_the_same_to_the_last_bit_however_events_come_and_are_cut(
    is_sorted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = filled(History(tmp_path, every("3h", "std", "first"), interval="1h"), 5_000, 20)
    events, spec = history.events, history.events.spec
    rows = timeline.of_events(events.scan(spec.needed()), spec).collect().sort("__time")
    if not is_sorted:
        rows = rows.sample(fraction=1, shuffle=True, seed=7)
    dtypes = spec.value_dtypes(events.schema)

    def tiles(some: pl.DataFrame, piece: int) -> pl.DataFrame:
        monkeypatch.setattr(build, "_PIECE", piece)
        made = build.build_tiles(some.lazy(), spec, dtypes, in_order=True).rows.collect()
        return made.sort(*spec.entity, "__time")

    whole = tiles(rows, 10**9)
    assert whole.height == build.build_tiles(rows.lazy(), spec, dtypes).rows.collect().height
    assert all(tiles(rows, piece).equals(whole) for piece in (1, 300, 4_000))
    assert tiles(rows.reverse(), 300).equals(whole)
    years, own = 100 * 366 * 24 * HOUR, pl.col("user") - 7
    before = rows.with_columns(own, pl.col("__time") - years)
    early = tiles(before, 300)
    assert early.equals(whole.with_columns(own, pl.col("^.*time.*$") - years))
    monkeypatch.setattr(places, "_MOST", 0)
    assert tiles(rows, 300).equals(whole)
    assert tiles(before, 300).equals(early)
    monkeypatch.undo()
    monkeypatch.setattr(cache, "_AT_ONCE", 300)
    of_file = cache._in_order(rows.lazy(), rows.height, spec, dtypes).rows.collect()
    assert of_file.select(whole.columns).sort(*spec.entity, "__time").equals(whole)


def moments(hours: int) -> list[tuple[int, int]]:
    return [(user, NOW + n * HOUR // 2) for n in range(-1, 4 * hours + 9) for user in range(3)]


def test_dense_events_are_tiled_and_their_values_stay_to_the_last_bit(
    engine: Engine, tmp_path: Path, merged: list[Merge]
) -> None:
    hours = build.FEWEST // DENSE // 2 + 1
    history = filled(
        History(tmp_path, every("3h", *NUMBERS), every("9h", "sum", offset="2h"), interval="1h"),
        build.FEWEST,
        hours,
    )
    points = history.points(*moments(hours))
    of_tiles = engine.values(history.events, points)
    [merge] = merged
    assert merge.rows.height == 2 * hours + 1
    assert over_events(merge) == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "FEWEST", 1 << 60)
        of_events = engine_named("polars").values(history.events, points)
    assert len(merged) == 1
    exact = pl.exclude("^.*(std|var).*$")
    assert of_tiles.select(exact).equals(of_events.select(exact), null_equal=True)
    for spread in [name for name in of_tiles.columns if "std" in name or "var" in name]:
        assert (of_tiles[spread] - of_events[spread]).abs().max() < 1e-9  # type: ignore[operator]


@pytest.mark.parametrize(("interval", "hours"), [(None, 100), ("1h", build.FEWEST)])
def test_events_that_are_thin_or_not_aligned_are_left_as_they_are(
    interval: str | None, hours: int, tmp_path: Path, merged: list[Merge]
) -> None:
    history = filled(History(tmp_path, every("3h", "sum"), interval=interval), build.FEWEST, hours)
    engine_named("polars").values(history.events, history.points((1, NOW + hours * HOUR)))
    everything = history.points((0, NOW), (1, NOW + 3 * hours * HOUR))
    engine_named("polars").values(history.events, everything)
    assert merged == []


@pytest.fixture
def tiled() -> Iterator[None]:
    with kernels.forced(tiled=True):
        yield


@pytest.mark.usefixtures("tiled")
@pytest.mark.parametrize("events_at_once", [None, 7])
def test_medians_are_made_of_the_events_themselves(
    events_at_once: int | None, engine: Engine, tmp_path: Path, merged: list[Merge]
) -> None:
    history = filled(History(tmp_path, every("2h"), every("6h", "max"), interval="1h"), 60, 8)
    with kernels.forced(events_at_once=events_at_once):
        history.check(engine, *moments(8))
    assert {tuple(over_events(merge)) for merge in merged} == {
        tuple(name for name in AGGREGATIONS if name not in NUMBERS)
    }


@pytest.mark.usefixtures("tiled")
def test_sums_that_no_fixed_point_holds_are_made_of_the_events_themselves(
    engine: Engine, tmp_path: Path, merged: list[Merge]
) -> None:
    history = History(tmp_path, every("2h", *NUMBERS), interval="1h")
    filled(history, 60, 8, lambda draw: draw.choice([None, 1e-200, 3e-200, 1e100, -4e100]))
    history.check(engine, *moments(8))
    assert [over_events(merge) for merge in merged] == [["sum", "mean", "std", "var"]]


@pytest.mark.usefixtures("tiled")
@pytest.mark.parametrize(
    ("digits", "left"), [("9.99", []), ("9" * 33 + ".99", []), ("9" * 36 + ".99", ["sum", "mean"])]
)
def test_decimals_are_tiled_as_far_as_their_sums_are_sure_to_fit(
    digits: str, left: list[str], engine: Engine, tmp_path: Path, merged: list[Merge]
) -> None:
    names = [name for name in NUMBERS if name not in ("std", "var")]
    history = History(tmp_path, Rolling("2h", {"x": names}), interval="1h")
    types = {"user": pl.Int64, "at": pl.Int64, "x": pl.Decimal(38, 2)}
    for sign in ("", "-"):
        history.add(*((1, NOW + n, Decimal(sign + digits)) for n in range(5)), **types)
    with localcontext(prec=80):  # the oracle's
        history.check(engine, (1, NOW + HOUR), (1, NOW + 9 * HOUR))
    assert [over_events(merge) for merge in merged] == [left]


@pytest.mark.usefixtures("tiled")
def test_columns_of_every_kind_share_the_tiles_of_a_feature(engine: Engine, tmp_path: Path) -> None:
    types = {
        "user": pl.Int64,
        "at": pl.Int64,
        "x": pl.Float32,
        "n": pl.UInt64,
        "ok": pl.Boolean,
        "s": pl.String,
        "void": pl.Float64,
        "nil": pl.Null,
    }
    history = History(
        tmp_path,
        Rolling(["1h", "4h"], {"x": NUMBERS, "n": NUMBERS, "void": NUMBERS, "nil": NUMBERS}),
        Rolling(["4h"], {"ok": ["sum", "mean", "max"], "s": ["min", "count"]}, offset="1h"),
        interval="1h",
    )
    draw = random.Random(3)
    for _ in range(3):
        rows = [
            (
                *(draw.randrange(2), NOW + draw.randrange(24) * HOUR // 4),
                *(draw.choice([None, 1.5, -2.5]), draw.choice([None, 0, 1, 2**54])),
                *(draw.choice([None, True, False]), draw.choice([None, "", "é", "a"]), None, None),
            )
            for _ in range(30)
        ]
        history.add(*rows, **types)
    history.check(engine, *moments(4))
    with kernels.forced(events_at_once=9):
        history.check(engine, *moments(4))


@pytest.mark.usefixtures("tiled")
@pytest.mark.parametrize(
    ("names", "value"),
    [(("mean", "size"), "count"), (("len", "tiles"), "sum"), (("least", "greatest"), "std")],
)
def test_no_name_of_a_key_or_column_gets_in_the_way(
    names: tuple[str, str], value: str, engine: Engine, tmp_path: Path
) -> None:
    history = History(tmp_path, Rolling("2h", {value: NUMBERS}), keys=names, interval="1h")
    types = {names[0]: pl.String, names[1]: pl.Date, "at": pl.Int64, value: pl.Float64}
    draw = random.Random(1)
    rows = [
        (draw.choice("ab"), date(2026, 1, draw.randrange(1, 3)), NOW + n * HOUR // 5, float(n))
        for n in range(40)
    ]
    history.add(*rows, **types)
    asked = [(*key, NOW + n * HOUR) for key in {row[:2] for row in rows} for n in range(12)]
    history.check(engine, *asked)


@pytest.mark.parametrize(("cores", "side_by_side"), [(2, True), (200, False)])
def test_many_cores_hold_no_more_events_of_files_in_memory_at_a_time(
    cores: int, side_by_side: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside: list[FileScanTask] = []

    def each_ahead(work: Callable[[FileScanTask], Any], items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            beside.append(item)
            yield work(item)

    monkeypatch.setattr(cache, "CORES", cores)
    monkeypatch.setattr(cache, "each_ahead", each_ahead)
    tasks = [FileScanTask(str(number), (), None, rows=100_000) for number in range(4)]
    writes = cache._writes(tasks, lambda task: TileWrite(task.file, pl.DataFrame(), {}))
    assert [write.of for write in writes] == ["0", "1", "2", "3"]
    assert beside == (tasks if side_by_side else [])
