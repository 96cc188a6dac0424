"""Real data, where it lies beside the checkout: half a million invoice lines through the real worker,
and other public sets file by file; what comes out is the oracle's."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from redis import Redis

from mlforge import Definitions, Feature, feature, get_online_features, get_training_data
from mlforge.core.values import from_us
from mlforge.metrics import Rolling
from mlforge.store import LocalStore
from tests.support import oracle
from tests.support.judged import metrics_of
from tests.support.paths import DATA
from tests.support.workers import Shop, eventually, write
from worker.service.embedded_redis import EmbeddedServer

RETAIL = DATA / "online_retail"
ENGINES = ("polars", "duckdb")
INSTANT = pl.Datetime("us", "UTC")
HOUR = 3_600_000_000
DAY = 24 * HOUR


def present(folder: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not folder.is_dir(), reason=f"no {folder.name} beside the checkout")


class Judge:
    """The oracle over the events of some entities; to stay quick it is shown no events that lie far off."""

    def __init__(self, judged: oracle.Feature, events: pl.DataFrame) -> None:
        self.feature = judged
        self.reach = 2 * DAY + 2 * max(m.window + m.offset for m in judged.metrics)
        plain = events.with_columns(pl.col(judged.time).to_physical()).sort(judged.time)
        rows: dict[oracle.Entity, list[oracle.Row]] = defaultdict(list)
        for row in plain.iter_rows(named=True):
            rows[oracle.entity_of(judged, row)].append(row)
        self.events = {entity: oracle.clean(judged, kept) for entity, kept in rows.items()}
        self.known: dict[tuple[oracle.Entity, int], dict[str, oracle.Cell]] = {}

    def value(self, entity: oracle.Entity, t: int) -> dict[str, oracle.Cell]:
        if (entity, t) not in self.known:
            rows, time = self.events[entity].rows, itemgetter(self.feature.time)
            near = slice(
                bisect_left(rows, t - self.reach, key=time), bisect_right(rows, t + DAY, key=time)
            )
            shown = oracle.Events(rows[near])
            self.known[entity, t] = oracle.value(self.feature, shown, entity, t)
        return self.known[entity, t]

    def points(self, entity: oracle.Entity) -> list[int]:
        """The instants of an entity's stored rows."""
        step = self.feature.interval
        times = {row[self.feature.time] for row in self.events[entity].rows}
        return sorted({t if step is None else oracle.floor(t, step) + step for t in times})

    def check(self, entity: oracle.Entity, t: int, found: Mapping[str, Any]) -> int:
        """Compare the answers at a point; returns how many."""
        cells = self.value(entity, t)
        for name, cell in cells.items():
            assert oracle.close(found[name], cell.value, cell.magnitude), (
                entity,
                from_us(t),
                name,
                found[name],
                cell,
            )
        return len(cells)

    def instants(self, entity: oracle.Entity, draw: random.Random, count: int) -> list[int]:
        """Instants of an entity's events, and beside them, and anywhere."""
        times = [row[self.feature.time] for row in self.events[entity].rows]
        window = max(metric.window for metric in self.feature.metrics)
        beside = [0, 1, -1, window, window + 1, DAY // 2]
        return [draw.choice(times) + draw.choice(beside) for _ in range(count)]


def judge_of(built: Feature, events: pl.DataFrame) -> Judge:
    spec = built.spec
    return Judge(
        oracle.Feature(
            keys=spec.keys,
            columns=tuple(events.columns),
            timestamp=spec.timestamp,
            interval=spec.interval.us if spec.interval else None,
            metrics=metrics_of(built.spec),
        ),
        events,
    )


def of_entities(frame: pl.DataFrame, entities: Iterable[oracle.Entity], keys: Iterable[str]) -> Any:
    names = list(keys)
    wanted = pl.DataFrame(list(entities), schema={k: frame.schema[k] for k in names}, orient="row")
    return frame.join(wanted, on=names, how="semi")


def check_training(judge: Judge, name: str, store: LocalStore, engine: str, per_entity: int) -> int:
    """Compare training values at random instants of the judge's entities."""
    keys, time, draw = judge.feature.keys, judge.feature.time, random.Random(per_entity)
    points = [(e, t) for e in judge.events for t in judge.instants(e, draw, per_entity)]
    draw.shuffle(points)
    spine = pl.DataFrame(
        [(*entity, from_us(t)) for entity, t in points],
        schema=[*keys, (time, INSTANT)],
        orient="row",
    )
    found = get_training_data(spine, features=[name], store=store, engine=engine)
    found = found.rename({column: column.removeprefix(f"{name}__") for column in found.columns})
    return sum(
        judge.check(entity, t, row)
        for (entity, t), row in zip(points, found.iter_rows(named=True), strict=True)
    )


# -- online_retail, through the real worker

DEFINITIONS = """
import polars as pl

from mlforge import Definitions, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore


def spend(df):
    return df.select("customer_id", "invoice_ts", total=pl.col("quantity") * pl.col("unit_price"))


def sales(df):
    return df.select(
        "stock_code", "invoice_ts", "quantity", total=pl.col("quantity") * pl.col("unit_price")
    )


SPEND = dict(
    keys=["customer_id"],
    source="invoices/",
    timestamp="invoice_ts",
    metrics=[Rolling("30d", {"total": ["sum", "mean", "count"]})],
)
SALES = dict(
    keys=["stock_code"],
    source="invoices/",
    timestamp="invoice_ts",
    interval="1d",
    metrics=[Rolling(["1d", "7d", "28d"], {"quantity": ["sum"], "total": ["sum", "mean", "count"]})],
)

defs = Definitions(
    store=LocalStore("feature_store"),
    features=[
        feature(**settings, engine=engine, name=f"{function.__name__}_{engine}")(function)
        for function, settings in ((spend, SPEND), (sales, SALES))
        for engine in ("polars", "duckdb")
    ],
    name="retail",
)
"""
KINDS = ("spend", "sales")
NAMES = [f"{kind}_{engine}" for kind in KINDS for engine in ENGINES]


@dataclass
class Retail(Shop):
    """The shop of the data set."""

    def __post_init__(self) -> None:
        (self.folder / "definitions.py").write_text(DEFINITIONS)
        (self.folder / "invoices").mkdir()

    def has_taken(self, count: int) -> bool:
        """Whether every feature has published and pushed so many files."""
        tickets = self.project.work_queue.read(NAMES)
        if any(ticket.behind or not ticket.served for ticket in tickets):
            assert not any(ticket.failures for ticket in tickets), tickets
            return False
        return all(
            (latest := self.store.latest(name)) and len(latest.sources) == count for name in NAMES
        )


# How many months are dropped together.
DROPS = {"by the quarter": (1, 3, 4, 4, 1), "by the month": (1,) * 13}


@pytest.fixture(scope="module", params=DROPS)
def retail(
    request: pytest.FixtureRequest,
    server: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Retail]:
    """All months, dropped into the folder that a real watcher and real workers serve."""
    Redis.from_url(server.url).flushall()
    made = Retail(tmp_path_factory.mktemp("retail"), server.url)
    try:
        for command in ("watch", "worker", "worker"):
            made.start(command)
        months = iter(sorted(RETAIL.glob("*.parquet")))
        for count, drop in zip(accumulate(DROPS[request.param]), DROPS[request.param], strict=True):
            for month in islice(months, drop):
                write(made.folder / "invoices" / month.name, month.read_bytes())
            eventually(partial(made.has_taken, count), within=120, every=0.05)
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def lines() -> pl.DataFrame:
    """All invoice lines, with what the features make of them."""
    return pl.read_parquet(RETAIL / "*.parquet").with_columns(
        pl.col("invoice_ts").dt.replace_time_zone("UTC"),
        total=pl.col("quantity") * pl.col("unit_price"),
    )


def a_sample(lines: pl.DataFrame, key: str, draw: random.Random) -> list[oracle.Entity]:
    """Two with the most lines, two with the most lines in one minute, and any others: 30."""
    sizes = lines.drop_nulls(key).group_by(key).len().sort("len", key, descending=True)
    ties = lines.drop_nulls(key).group_by(key, "invoice_ts").len().sort("len", key, descending=True)
    chosen = dict.fromkeys([*sizes[key].head(2), *ties[key].unique(maintain_order=True).head(2)])
    others = sorted(set(sizes[key]) - set(chosen))
    return [(entity,) for entity in (*chosen, *draw.sample(others, 30 - len(chosen)))]


def retail_judge(retail: Retail, kind: str, lines: pl.DataFrame, draw: random.Random) -> Judge:
    built = retail.project.definitions.feature(f"{kind}_polars")
    columns = [*built.spec.keys, "invoice_ts", "quantity", "total"]
    entities = a_sample(lines, built.spec.keys[0], draw)
    return judge_of(built, of_entities(lines.select(columns), entities, built.spec.keys))


@pytest.mark.slow
@present(RETAIL)
@pytest.mark.parametrize("kind", KINDS)
def test_a_year_of_invoices_through_the_worker_gives_the_oracles_values_everywhere(
    retail: Retail, lines: pl.DataFrame, kind: str, record_property: Callable[[str, object], None]
) -> None:
    draw = random.Random(2011)
    judge = retail_judge(retail, kind, lines, draw)
    [key] = judge.feature.keys
    counts: Counter[str] = Counter()

    points = {(entity, t) for entity in judge.events for t in judge.points(entity)}
    watermark = int(lines.drop_nulls(key)["invoice_ts"].to_physical().max())  # type: ignore[arg-type]
    step = judge.feature.interval
    as_of = watermark if step is None else oracle.floor(watermark, step) + step
    reach = max(metric.window for metric in judge.feature.metrics)
    live = lines.drop_nulls(key).filter(
        pl.col("invoice_ts")
        .to_physical()
        .is_between(as_of - reach, as_of, closed="both" if step is None else "left")
    )[key]

    for engine in ENGINES:
        name = f"{kind}_{engine}"
        assert len(retail.versions(name)) >= 5, "one version a drop, or more"
        latest = retail.store.latest(name)
        assert latest is not None
        assert (latest.engine, latest.rowwise) == (engine, True)
        nulls = lines[key].null_count()
        assert latest.dropped == ({"null_key": nulls} if nulls else {}), "nobody's lines count"

        stored = of_entities(retail.store.read(name), judge.events, [key])
        assert stored.height == len(points)
        for row in stored.with_columns(pl.col("invoice_ts").to_physical()).iter_rows(named=True):
            point = ((row[key],), row["invoice_ts"])
            assert point in points
            counts[f"{engine} offline"] += judge.check(*point, row)

        counts[f"{engine} training"] += check_training(judge, name, retail.store, engine, 15)

        books = retail.project.online.books(name)
        assert books is not None
        assert books.target is not None
        assert (books.target.version, books.target.as_of) == (str(latest.version), as_of)
        assert books.rows == live.n_unique()
        answers = get_online_features(
            features=[name],
            entities=[{key: e} for (e,) in judge.events],
            store=retail.project.online,
        )
        for entity, answer in zip(judge.events, answers, strict=True):
            values = {c.removeprefix(f"{name}__"): value for c, value in answer.items()}
            counts[f"{engine} online"] += judge.check(entity, as_of, values)
            assert retail.project.online.exists(name, {key: entity[0]}) == (entity[0] in set(live))
    assert len(judge.events) == 30
    assert min(counts.values()) >= 90
    record_property("values compared", dict(counts))
    print(kind, dict(counts))  # noqa: T201 - shown with -s


# -- other sets, file by file


@dataclass(frozen=True)
class Set:
    """A feature of a data set, and how its events are made without it."""

    folder: str
    settings: Mapping[str, Any]
    function: Callable[[pl.DataFrame], pl.DataFrame]
    dropped: Mapping[str, int]
    files: int | None = None


def readings(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("series", "ts", "value")


def departures(df: pl.DataFrame) -> pl.DataFrame:
    late = (pl.col("dep_delay") > 15).cast(pl.Int8)
    return df.select("carrier", "origin", "dep_ts", "dep_delay", "distance", late=late)


def purchases(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "ts", price=pl.col("purchase_price"), product=pl.col("product_id"))


def drivers(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("driver_id", "event_timestamp", "conv_rate", "avg_daily_trips")


SETS = {
    "nab": Set(
        "nab",
        {
            "keys": ["series"],
            "timestamp": "ts",
            "interval": "1h",
            "metrics": [Rolling(["1h", "24h"], {"value": ["mean", "std", "max", "count"]})],
        },
        readings,
        {},
        files=12,  # with the restated hour and the hour that a clock change took
    ),
    "pnwflights14": Set(
        "pnwflights14",
        {
            "keys": ["carrier", "origin"],
            "timestamp": "dep_ts",
            "metrics": [
                Rolling("2d", {"dep_delay": ["mean", "max"], "late": ["sum", "count"]}),
                Rolling("1d", {"distance": ["sum"]}, closed="left", offset="1h"),
            ],
        },
        departures,
        {"null_time": 857},
    ),
    "chronon_quickstart": Set(
        "chronon_quickstart/purchases",
        {
            "keys": ["user_id"],
            "timestamp": "ts",
            "metrics": [
                Rolling(["3d", "14d", "30d"], {"price": ["sum", "mean", "std", "median"]}),
                Rolling("30d", {"product": ["min", "max", "count"]}, closed="right"),
            ],
        },
        purchases,
        {},
    ),
    "feast_driver_stats": Set(
        "feast_driver_stats",
        {
            "keys": ["driver_id"],
            "timestamp": "event_timestamp",
            "metrics": [
                Rolling(["6h", "1d"], {"conv_rate": ["mean", "min"], "avg_daily_trips": ["sum"]})
            ],
        },
        drivers,
        {},
    ),
}


def drop(source: Path, into: Path) -> None:
    into.parent.mkdir(parents=True, exist_ok=True)
    write(into, source.read_bytes())


QUICK = [("chronon_quickstart", "polars"), *(("feast_driver_stats", each) for each in ENGINES)]


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        pytest.param(name, engine, marks=(present(DATA / SETS[name].folder), *marks))
        for name in SETS
        for engine in ENGINES
        for marks in [() if (name, engine) in QUICK else (pytest.mark.slow,)]
    ],
)
def test_a_set_taken_in_file_by_file_is_the_set_built_at_once_and_the_oracles(
    name: str, engine: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    chosen = SETS[name]
    built = feature(**chosen.settings, source="drops", name="f")(chosen.function)
    origin = DATA / chosen.folder
    files = sorted(origin.rglob("*.parquet"))[: chosen.files]
    grown, whole = (
        Definitions(LocalStore(tmp_path / store), [built], engine=engine, root=tmp_path)
        for store in ("grown", "whole")
    )
    modes: Counter[str] = Counter()
    for file in files:
        drop(file, tmp_path / "drops" / file.relative_to(origin))
        result = grown.build()["f"]
        assert (result.changed, result.quarantined, result.files_read) == (True, (), 1)
        modes[result.mode] += 1
    assert modes["incremental"], modes
    whole.build()

    table = whole.store.read("f")
    again = grown.store.read("f")
    assert_frame_equal(again, table, check_exact=False, rel_tol=1e-9, abs_tol=1e-6)
    ours, theirs = grown.store.read_metadata("f"), whole.store.read_metadata("f")
    assert (ours.rows_hash, ours.columns) == (theirs.rows_hash, theirs.columns)
    assert ours.dropped == theirs.dropped == dict(chosen.dropped)

    draw = random.Random(name)
    keys, time = built.spec.keys, str(built.spec.timestamp)
    events = pl.concat(
        chosen.function(pl.read_parquet(file)).with_columns(
            pl.col(time).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        )
        for file in files
    ).drop_nulls([*keys, time])
    entities = sorted(set(events.select(keys).iter_rows()))
    entities = draw.sample(entities, min(8, len(entities)))
    judge = judge_of(built, of_entities(events, entities, keys))
    assert len(judge.events) == len(entities)
    compared = 0
    stored = of_entities(again, entities, keys).with_columns(pl.col(time).to_physical())
    assert stored.height == sum(len(judge.points(entity)) for entity in entities)
    for row in stored.sample(min(120, stored.height), seed=14).iter_rows(named=True):
        compared += judge.check(tuple(row[key] for key in keys), row[time], row)
    assert isinstance(grown.store, LocalStore)
    compared += check_training(judge, "f", grown.store, engine, 12)
    assert compared > 300
    record_property("values compared", compared)
    print(name, engine, compared, dict(modes))  # noqa: T201 - shown with -s
