"""A push takes the events that the refresh before it gathered for the same entities and instants, and writes what it would have anyway."""

from __future__ import annotations

import json
import pickle
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from redis import Redis

from mlforge import Definitions
from mlforge.build import gathering, refresh
from mlforge.build.result import BuildResult, Options
from mlforge.core import clock, failpoints
from mlforge.core.values import PRECISION
from mlforge.engines.duckdb_engine import DuckDBEngine
from mlforge.engines.polars_engine import PolarsEngine
from mlforge.engines.tiles import totals
from mlforge.errors import DataError
from mlforge.frames.encoding import json_rows
from mlforge.metrics import Rolling
from mlforge.online import RedisStore, batches
from mlforge.online import ahead as ahead_of_pushes
from mlforge.online.ahead import DiffAhead
from mlforge.online.prefetch import read_ahead
from mlforge.store.scan import event_scan
from tests.support import kernels
from tests.support.projects import Project, at, rows

DAYS = 12
AGGREGATIONS = ["sum", "count", "mean", "std", "median", "min", "last"]
METRICS = [Rolling(["2d", "7d"], {"amount": AGGREGATIONS}, offset="1d")]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a version of the usual metrics, which is pushed nowhere."""
    project = Project(tmp_path_factory.mktemp("built") / "project")
    for day in range(DAYS):
        events = [(day % 3, day, 1.0 + day), (day % 5, day + 0.5, 1e-9), (9 + day, day, 1e12 / 3)]
        project.drop(f"d{day:02d}", rows(*events))
    with clock.fixed(_us(DAYS + 60)):
        project.build(project.define(metrics=METRICS))
    return project


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url, decode_responses=True) as client:
        client.flushdb()
        yield client


def test_scans_of_the_same_events_are_known_to_be_that_whichever_way_they_came(
    built: Project,
) -> None:
    manifest = built.store.read_metadata("spend")
    whole, listed = (
        event_scan(built.store, manifest, partials) for partials in (None, manifest.partials[::-1])
    )
    assert whole.content == listed.content
    assert whole.content != event_scan(built.store, manifest, manifest.partials[1:]).content


class Side:
    """A project with stores of its own, which reads ahead or does not; `of_files`: events are gathered once from files, too."""

    def __init__(self, project: Project, url: str, prefix: str, reads_ahead: bool) -> None:
        self.project, self.reads_ahead, self.of_files = project, reads_ahead, False
        self.online = RedisStore.from_url(url, prefix=prefix)
        self.prefix = prefix
        self.definitions: Definitions

    def begin(self, **changes: Any) -> None:
        feature = self.project.define(**{"metrics": METRICS, **changes})
        self.definitions = self.project.definitions(feature, online_store=self.online)
        self.definitions.build(online=True)

    def refresh(self, cost_share: float = 0.3) -> Any:
        if self.reads_ahead:
            read_ahead(self.project.store, self.project.store.read_metadata("spend"))
        with pytest.MonkeyPatch.context() as patch:
            if not self.of_files:
                patch.setattr(gathering, "FEW", 0)
            return self.definitions.refresh("spend", options=Options(cost_share=cost_share))

    def rows_online(self, client: Redis) -> dict[str, str]:
        keys = sorted(client.keys(f"{self.prefix}:spend:*"))
        return {key.split(":", 1)[1]: client.get(key) for key in keys}


@pytest.fixture
def sides(built: Project, redis_url: str, tmp_path: Path) -> Iterator[tuple[Side, Side]]:
    """One that reads ahead and one that does not, of the same files."""
    both = [
        Side(built.copied(tmp_path / name), redis_url, name, name == "ahead")
        for name in ("ahead", "plain")
    ]
    yield both[0], both[1]
    for side in both:
        side.online.close()


@pytest.fixture
def gathers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What pushes have gathered themselves."""
    noted: list[Any] = []
    gather = batches.gather

    def noting(*arguments: Any, **options: Any) -> Any:
        noted.append(arguments)
        return gather(*arguments, **options)

    monkeypatch.setattr(batches, "gather", noting)
    return noted


DROPS: dict[str, Callable[[Project], Any]] = {
    "newer": lambda p: p.drop("n", rows((0, DAYS, 5.0), (77, DAYS + 0.3, 7.0), (1, DAYS + 4, 2.0))),
    "late": lambda p: p.drop("n", rows((0, DAYS - 4.7, 5.0), (78, DAYS - 3, 7.0))),
    "late and newer": lambda p: p.drop("n", rows((0, 0.2, 5.0), (4, DAYS + 2, 2.0))),
    "amended": lambda p: p.drop(f"d{DAYS - 1:02d}", rows((1, DAYS - 1, 50.0), (3, DAYS, 1.0))),
    "removed": lambda p: (p.events / f"d{DAYS - 2:02d}.parquet").unlink(),
}


def drops_with(*default: str) -> list[Any]:
    """Every kind of drop; the default run takes the named ones."""
    return [
        drop if drop in default else pytest.param(drop, marks=pytest.mark.slow) for drop in DROPS
    ]


@pytest.mark.parametrize("seams", ["few at once", "no seams", "of files"])
@pytest.mark.parametrize("drop", DROPS)
def test_a_push_writes_from_gathered_events_what_it_would_write_from_its_own(
    sides: tuple[Side, Side], gathers: list[Any], client: Redis, drop: str, seams: str
) -> None:
    ahead, plain = sides
    ahead.of_files = seams == "of files"
    ahead.reads_ahead = not ahead.of_files
    small = kernels.forced(
        lasting=True, general=True, points=True, events_at_once=3, small_pushes=True
    )
    with small if seams == "few at once" else nullcontext(), clock.fixed(_us(DAYS + 60)):
        for side in sides:
            side.begin()
        gathers.clear()
        results = []
        for side in sides:
            DROPS[drop](side.project)
            built = side.refresh()
            results.append((built, side.definitions.push("spend", diff=built.diff)))
            if side is ahead:
                assert built.diff.gathered is not None
                assert not gathers
        (first, pushed), (second, other) = results
        assert first.mode == second.mode == "incremental"
        assert first.manifest.content_hash == second.manifest.content_hash
        assert (pushed.written, pushed.deleted) == (other.written, other.deleted)
        assert ahead.rows_online(client) == plain.rows_online(client)
        assert ahead.online.books("spend").rows == plain.online.books("spend").rows


def test_a_refresh_of_another_process_is_pushed_as_one_of_this_is(
    sides: tuple[Side, Side], client: Redis
) -> None:
    with clock.fixed(_us(DAYS + 60)):
        for side in sides:
            side.reads_ahead = True
            side.begin()
            DROPS["newer"](side.project)
            built = side.refresh()
            assert isinstance(built.diff, DiffAhead)
            if side is sides[0]:
                built = pickle.loads(pickle.dumps(built))
                assert built.diff.gathered is not None
            side.definitions.push("spend", diff=built.diff)
            DROPS["late"](side.project)
            [built] = side.definitions.build(online=True).values()
            assert (built.mode, built.diff.gathered) == ("incremental", None), "it is pushed by now"
    assert sides[0].rows_online(client) == sides[1].rows_online(client)


def a_change(project: Project, chance: random.Random, number: int) -> None:
    """A file that comes, late or newest, or that is written over, or goes."""
    files = sorted(project.events.glob("*.parquet"))
    kind = chance.choice(["new", "new", "new", "late", "again", "gone"])
    last = DAYS + number
    if kind == "gone":
        chance.choice(files).unlink()
        return
    day = last if kind == "new" else chance.uniform(0, last)
    times = [day + chance.choice([0, 0, 0.25, 1, -0.5]) for _ in range(chance.randint(1, 6))]
    events = [
        (chance.randint(0, 8), time, chance.choice([None, 0.1, -7e11, 3.0])) for time in times
    ]
    name = chance.choice(files).stem if kind == "again" else f"n{number}"
    project.drop(name, rows(*events))


@pytest.mark.parametrize(
    "number",
    [1, *(pytest.param(number, marks=pytest.mark.slow) for number in range(2, 8))],
)
@pytest.mark.parametrize("engine", ["polars", pytest.param("duckdb", marks=pytest.mark.slow)])
def test_any_history_has_the_same_parts_and_rows_online_with_gathered_events_as_without(
    sides: tuple[Side, Side], client: Redis, number: int, engine: str
) -> None:
    chance = random.Random(number)
    windows = chance.sample(["12h", "2d", "7d", "9d", "all"], 2)
    closed = chance.choice(["both", "left", "right", "none"])
    metrics = [
        Rolling(
            windows, {"amount": AGGREGATIONS}, offset=chance.choice(["0s", "1d"]), closed=closed
        )
    ]
    seams = {
        name: chance.random() < 0.5 for name in ("general", "points", "lasting", "small_pushes")
    }
    gathered = 0
    with (
        kernels.forced(**seams, events_at_once=chance.choice([None, 3])),
        clock.fixed(_us(DAYS + 60)),
    ):
        for side in sides:
            side.begin(metrics=metrics, engine=engine)
        for step in range(8):
            made = []
            for side in sides:
                a_change(side.project, random.Random(100 * number + step), step)
                built = side.refresh(cost_share=99)
                side.definitions.push("spend", diff=built.diff)
                made.append(built)
            ours, theirs = made
            assert ours.changed == theirs.changed
            gathered += bool(ours.diff and ours.diff.gathered)
            if ours.changed:
                assert ours.manifest.content_hash == theirs.manifest.content_hash
            assert_alike(sides[0].rows_online(client), sides[1].rows_online(client))
    assert gathered >= 2


def assert_alike(one: dict[str, str], other: dict[str, str]) -> None:
    """The same rows, and the same values but for the last bits, which depend on the order in which floats were added."""
    assert one.keys() == other.keys()
    for key in one:
        values, others = (_numbers(json.loads(rows[key])) for rows in (one, other))
        magnitude = max(map(abs, values.values()), default=0)
        assert values == pytest.approx(others, rel=PRECISION, abs=PRECISION * magnitude), key


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    """The values that are there, those of lists one by one."""
    listed = {name: value if isinstance(value, list) else [value] for name, value in row.items()}
    return {
        f"{name} {place}": value
        for name, values in listed.items()
        for place, value in enumerate(values)
        if value is not None
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"online_clock": "wall"},
        {"interval": "1d"},
        {"metrics": []},
    ],
    ids=["by the clock", "aligned", "no metrics"],
)
def test_other_features_and_their_pushes_gather_each_for_themselves(
    sides: tuple[Side, Side], client: Redis, changes: dict[str, Any]
) -> None:
    ahead, plain = sides
    with clock.fixed(_us(DAYS + 60)):
        for side in sides:
            side.begin(**changes)
            DROPS["newer"](side.project)
            built = side.refresh()
            assert built.diff.gathered is None
            side.definitions.push("spend", diff=built.diff)
    assert ahead.rows_online(client) == plain.rows_online(client)


def test_windows_over_all_time_share_their_events_where_no_totals_stand_for_them(
    sides: tuple[Side, Side], client: Redis
) -> None:
    with clock.fixed(_us(DAYS + 60)):
        for side in sides:
            side.begin(metrics=[Rolling(["2d", "all"], {"amount": ["sum", "count"]})])
            DROPS["newer"](side.project)
            built = side.refresh()
            assert (built.diff.gathered is not None) is (side is sides[0])
            side.definitions.push("spend", diff=built.diff)
    assert sides[0].rows_online(client) == sides[1].rows_online(client)


@pytest.mark.parametrize(
    ("least", "passes"), [(1e-3, 1), (1e-30, 2)], ids=["sums are exact", "sums are rounded"]
)
def test_sums_of_floats_are_evaluated_in_one_pass_with_those_online_where_no_bit_tells_it(
    sides: tuple[Side, Side],
    client: Redis,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    least: float,
    passes: int,
) -> None:
    evaluated: list[int] = []
    aggregate = PolarsEngine.aggregate

    def counted(engine: PolarsEngine, line: pl.DataFrame, *others: Any, **by: Any) -> pl.DataFrame:
        evaluated.append(line.height)
        return aggregate(engine, line, *others, **by)

    monkeypatch.setattr(PolarsEngine, "aggregate", counted)
    versions = []
    with clock.fixed(_us(DAYS + 60)):
        for side in sides:
            side.project = Project(tmp_path / side.prefix / "other")
            events = ((n % 4, n / 7, least if n == 30 else 0.1 * n) for n in range(7 * DAYS))
            side.project.drop("a", rows(*events))
            side.begin(metrics=[Rolling(["2d", "7d"], {"amount": ["sum", "mean", "count"]})])
            side.project.drop(
                "n", rows((1, DAYS + 0.1, 1 / 3), (3, DAYS + 0.05, least), (5, 12, 0.7))
            )
            evaluated.clear()
            built = side.refresh()
            side.definitions.push("spend", diff=built.diff)
            assert built.mode == "incremental"
            if side is sides[0]:
                assert len(evaluated) == passes
            versions.append(built.manifest.content_hash)
    assert versions[0] == versions[1]
    assert sides[0].rows_online(client) == sides[1].rows_online(client)


def refreshed(side: Side, is_shared: bool, monkeypatch: pytest.MonkeyPatch) -> BuildResult:
    """A refresh that gathers for the push, or one that leaves each to gather for itself."""
    with monkeypatch.context() as patch:
        if not is_shared:
            patch.setattr(refresh, "gathered_once", lambda *_: None)
        return side.refresh()


@pytest.mark.parametrize("drop", drops_with("newer", "late and newer"))
def test_totals_of_older_events_are_read_once_with_the_newer_events_beside_them(
    sides: tuple[Side, Side], client: Redis, drop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    with kernels.forced(tiled=True), clock.fixed(_us(DAYS + 60)):
        monkeypatch.setattr(totals, "_settled", lambda _: _us(DAYS - 5))
        for side, is_shared in zip(sides, (True, False), strict=True):
            side.reads_ahead, side.of_files = False, True
            side.begin(metrics=[Rolling(["all", "2d"], {"amount": AGGREGATIONS})])
            DROPS[drop](side.project)
            built = refreshed(side, is_shared, monkeypatch)
            gathered = built.diff.gathered
            # The last of these has an event before the totals' end that is not in them.
            assert (gathered is not None) is (is_shared and drop != "late and newer")
            assert gathered is None or gathered.totals is not None
            results.append((built, side.definitions.push("spend", diff=built.diff)))
    (first, pushed), (second, other) = results
    assert first.mode == second.mode == "incremental"
    assert first.manifest.content_hash == second.manifest.content_hash
    assert (pushed.written, pushed.deleted) == (other.written, other.deleted)
    assert_alike(sides[0].rows_online(client), sides[1].rows_online(client))
    assert sides[0].online.books("spend").rows == sides[1].online.books("spend").rows


@pytest.mark.parametrize("drop", drops_with("removed"))
def test_what_windows_over_all_time_see_is_looked_up_once_in_the_index_of_entities(
    sides: tuple[Side, Side], client: Redis, drop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    aggregations = ["count_distinct", "mode", "top_3", "p90", "last_3", "count"]
    results = []
    with kernels.forced(tiled=True, indexed=True), clock.fixed(_us(DAYS + 60)):
        for side, is_shared in zip(sides, (True, False), strict=True):
            side.reads_ahead = False
            side.begin(metrics=[Rolling(["all", "2d"], {"amount": aggregations})])
            DROPS[drop](side.project)
            built = refreshed(side, is_shared, monkeypatch)
            gathered = built.diff.gathered
            assert (gathered is not None and gathered.online is not None) is is_shared
            results.append((built, side.definitions.push("spend", diff=built.diff)))
    (first, pushed), (second, other) = results
    assert first.mode == second.mode == "incremental"
    tables = (side.project.store.read("spend") for side in sides)
    assert_frame_equal(*tables, rel_tol=PRECISION)
    assert (pushed.written, pushed.deleted) == (other.written, other.deleted)
    assert_alike(*(side.rows_online(client) for side in sides))


def test_a_sum_that_fits_no_dtype_at_the_instant_of_the_push_alone_ends_only_that(
    sides: tuple[Side, Side],
) -> None:
    large = 4 * 10**18
    with clock.fixed(_us(DAYS + 60)):
        for side in sides:
            for day, amount in ((11.1, -large), (11.5, large), (12, large)):
                side.project.drop(f"n{day}", rows((50, day, amount)))
            metrics = [Rolling("1d", {"amount": "sum"})]
            whole = side.project.define(
                lambda df: df.with_columns(pl.col("amount").cast(pl.Int64)), metrics=metrics
            )
            side.definitions = side.project.definitions(whole, online_store=side.online)
            side.definitions.build(online=True)
            side.project.drop("n", rows((50, 12.05, large), (51, 12.3, 1.0)))
            built = side.refresh()
            assert built.mode == "incremental"
            with pytest.raises(DataError, match="amount__sum__1d does not fit into Int64"):
                side.definitions.push("spend", diff=built.diff)


def test_a_drop_far_ahead_of_all_others_is_gathered_twice(
    sides: tuple[Side, Side], client: Redis
) -> None:
    with clock.fixed(_us(DAYS + 60)):
        for side in sides:
            side.begin()
            side.project.drop("n", rows((0, DAYS + 40, 5.0), (1, DAYS + 40.5, 6.0)))
            built = side.refresh()
            assert built.diff.gathered is None
            side.definitions.push("spend", diff=built.diff)
    assert sides[0].rows_online(client) == sides[1].rows_online(client)


def test_events_ahead_of_the_clock_are_not_gathered(
    sides: tuple[Side, Side], client: Redis
) -> None:
    for side in sides:
        with clock.fixed(_us(DAYS)):
            side.begin()
            DROPS["newer"](side.project)
            built = side.refresh()
            assert built.diff.gathered is None
        with clock.fixed(_us(DAYS + 1)):
            side.definitions.push("spend", diff=built.diff)
    assert sides[0].rows_online(client) == sides[1].rows_online(client)


def test_a_push_over_another_version_than_the_served_one_gathers_for_itself(
    sides: tuple[Side, Side], gathers: list[Any], client: Redis
) -> None:
    with clock.fixed(_us(DAYS + 60)):
        for side in sides:
            side.begin()
            for number in range(2):  # of which only the second is pushed
                side.project.drop(f"n{number}", rows((number, DAYS + number, 1.0)))
                built = side.refresh()
            gathers.clear()
            side.definitions.push("spend", diff=built.diff)
            assert gathers
    assert sides[0].rows_online(client) == sides[1].rows_online(client)


def test_events_that_were_gathered_for_other_metrics_are_not_taken(
    sides: tuple[Side, Side], gathers: list[Any], client: Redis
) -> None:
    ahead, plain = sides
    with clock.fixed(_us(DAYS + 60)):
        for side in sides:
            side.begin()
            DROPS["newer"](side.project)
            built = side.refresh()
            gathers.clear()
            gathered = built.diff.gathered
            if side is ahead:
                spec = side.project.define(metrics=[Rolling("3d", {"amount": "max"})]).spec
                now, before = gathered.views
                others = replace(now, events=replace(now.events, spec=spec)), before
                gathered = replace(gathered, views=others)
            side.definitions.push("spend", diff=replace(built.diff, gathered=gathered))
            assert gathers
    assert ahead.rows_online(client) == plain.rows_online(client)


def test_rows_are_evaluated_and_encoded_while_the_version_is_written_and_sent_once_it_is_published(
    sides: tuple[Side, Side], client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool, bool]] = []
    with clock.fixed(_us(DAYS + 60)):
        for side in sides:
            side.begin()
            DROPS["newer"](side.project)
            before = side.rows_online(client)
            evaluated, begun = threading.Event(), ahead_of_pushes.evaluated

            def evaluate(
                *arguments: Any, told: threading.Event = evaluated, of: Any = begun
            ) -> Any:
                batch = of(*arguments)
                told.set()
                return batch

            def look(
                place: str, side: Side = side, before: Any = before, told: Any = evaluated
            ) -> None:
                is_evaluated = side.reads_ahead and told.wait(20)
                seen.append((place, is_evaluated, side.rows_online(client) == before))

            monkeypatch.setattr(ahead_of_pushes, "evaluated", evaluate)
            for place in ("parts.written", "publish.pointed"):
                monkeypatch.setitem(failpoints._armed, place, partial(look, place))
            built = side.refresh()
            monkeypatch.undo()
            if side.reads_ahead:
                monkeypatch.setattr(batches, "evaluated", None)  # the push evaluates nothing
            assert side.definitions.push("spend", diff=built.diff).written > 0
            monkeypatch.undo()
    assert seen == [
        ("parts.written", True, True),
        ("publish.pointed", True, True),
        ("parts.written", False, True),
        ("publish.pointed", False, True),
    ]
    assert sides[0].rows_online(client) == sides[1].rows_online(client)


def test_rows_of_entities_whose_events_changed_are_sent_before_those_that_time_alone_changes(
    sides: tuple[Side, Side],
) -> None:
    ahead, _ = sides
    with clock.fixed(_us(DAYS + 60)):
        ahead.begin()
        DROPS["newer"](ahead.project)
        batch = ahead.refresh().diff.rows.batch.result()
    users = batch.rows["user_id"].to_list()
    assert len(users) > 3
    assert sorted(users[:3]) == [0, 1, 77]
    assert batch.encoded[0].texts[0] == next(
        iter(json_rows(batch.rows.head(1), batch.rows.columns[1:]))
    )


def test_rows_that_were_made_ready_for_another_engine_or_server_are_evaluated_anew(
    sides: tuple[Side, Side], client: Redis, redis_url: str
) -> None:
    ahead, plain = sides
    with clock.fixed(_us(DAYS + 60)):
        for side in sides:
            side.begin()
            DROPS["newer"](side.project)
        built = ahead.refresh()
        assert isinstance(built.diff, DiffAhead)
        gathered, rows_ahead = built.diff.gathered, built.diff.rows
        engine, own = rows_ahead.engine, ahead.definitions.online_store
        assert rows_ahead.of(gathered, engine, own) is not None
        assert rows_ahead.of(gathered, DuckDBEngine(), own) is None
        assert rows_ahead.of(gathered, engine, plain.definitions.online_store) is None
        assert rows_ahead.of(replace(gathered), engine, own) is None
        ahead.definitions.push("spend", engine="duckdb", diff=built.diff)
        plain.definitions.push("spend", diff=plain.refresh().diff)
    assert_alike(ahead.rows_online(client), plain.rows_online(client))


def test_an_error_while_rows_are_made_ready_is_that_of_the_push_and_the_version_is_served(
    sides: tuple[Side, Side], client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead, _ = sides
    with clock.fixed(_us(DAYS + 60)):
        ahead.begin()
        DROPS["newer"](ahead.project)
        before = ahead.rows_online(client)

        def fail(*_: Any) -> Any:
            raise DataError("spend: too large")

        monkeypatch.setattr(ahead_of_pushes, "evaluated", fail)
        built = ahead.refresh()
        monkeypatch.undo()
        assert built.changed
        with pytest.raises(DataError, match="too large"):
            ahead.definitions.push("spend", diff=built.diff)
        assert ahead.rows_online(client) == before
        ahead.definitions.push("spend")
    assert ahead.rows_online(client) != before


def test_nothing_is_gathered_where_no_push_follows_or_there_are_many_events(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead, plain = sides
    with clock.fixed(_us(DAYS + 60)):
        ahead.begin()
        ahead.of_files = True
        for limit in ("FEW", "MOST"):  # the first of events in files, the second of those in memory
            ahead.reads_ahead = limit == "MOST"
            monkeypatch.setattr(gathering, limit, 1)
            ahead.project.drop("n", rows((0, DAYS, 5.0), (77, DAYS + len(limit), 7.0)))
            assert ahead.refresh().diff.gathered is None
            monkeypatch.undo()
        plain.begin()
        plain.reads_ahead = True
        plain.definitions.online_store = None
        DROPS["newer"](plain.project)
        assert plain.refresh().diff.gathered is None


def _us(day: float) -> int:
    return int(at(day).timestamp() * 1_000_000)
