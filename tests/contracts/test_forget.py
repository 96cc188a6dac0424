"""`mlforge forget`: every byte of an entity's rows leaves store and Redis, and no later drop brings one back."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from redis import Redis

from mlforge import Definitions, get_training_data
from mlforge.cli import main
from mlforge.core.forgotten import Entity, Forgotten
from mlforge.definitions.loader import load
from mlforge.errors import StoreBusy, StoreError
from mlforge.maintenance.operations import pin, prune, verify
from mlforge.maintenance.retention import Retention
from mlforge.maintenance.sampling import ALL
from mlforge.online import RedisStore
from mlforge.online.redis import own_files
from mlforge.profiles.table import profile_version
from mlforge.registry import forgetting as registry_forgetting
from mlforge.registry.forgetting import entities_of, forget
from mlforge.store.records import ExportNote
from mlforge.training_sets.making import training_set
from tests.support.servers import running
from tests.support.workers import eventually
from worker.project import scope_of
from worker.service.embedded_redis import EmbeddedServer
from worker.state.event_log import EventLog

ANN, NUMBER = "ann-of-arles", 7_203_984_651
START = datetime(2025, 1, 1, tzinfo=UTC)

DEFINITIONS = """
import polars as pl
import mlforge.validators as v
from mlforge import Definitions, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore

RULES = {"user_id": [v.unique()]}
WINDOWS = [Rolling("7d", {"amount": ["sum", "count"]}), Rolling("all", {"user_id": ["last", "mode"]})]

@feature(keys=["user_id"], source="events/", timestamp="at", metrics=WINDOWS[:1], validators=RULES)
def spend(df):
    return df.select("user_id", "at", "amount", "shop")

@feature(keys=["user_id"], source="events/", timestamp="at", metrics=WINDOWS[:1], interval="1d")
def daily(df):
    return df

@feature(keys=["shop"], source="events/", timestamp="at", metrics=WINDOWS)
def shops(df, cities):
    return df.join(cities, on="shop")

@feature(keys=["user_id"], source=spend, timestamp="at", metrics=[Rolling("7d", {"amount__sum__7d": "max"})])
def peaks(df):
    return df

@feature(keys=["user_id"], source="users/")
def profile(df):
    return df.with_columns(rank=pl.col("age").rank())

@feature(keys=[], source="events/", timestamp="at", metrics=[Rolling("all", {"user_id": ["last"]})], incremental=False)
def whole(df):
    return df

defs = Definitions(LocalStore("store"), [spend, daily, shops, peaks, profile, whole], name="shop", engine="ENGINE")
"""


@pytest.fixture(params=["polars", pytest.param("duckdb", marks=pytest.mark.slow)])
def definitions(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    redis_url: str,
) -> Iterator[Definitions]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("MLFORGE_DEFINITIONS", "MLFORGE_PROFILE", "REDIS_URL_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REDIS_URL", redis_url)
    text = DEFINITIONS.replace("ENGINE", request.param)
    text = text.replace(
        'source="events/", timestamp="at", metrics=WINDOWS)',
        'source="events/", timestamp="at", metrics=WINDOWS, tables={"cities": "cities.parquet"})',
    )
    Path("definitions.py").write_text(text)
    for folder in ("events", "users"):
        Path(folder).mkdir()
    pl.DataFrame({"shop": ["a", "b"], "city": ["Ulm", "Aix"]}).write_parquet("cities.parquet")
    definitions = load(None, here=tmp_path)
    definitions.loaded_from = None  # functions run here, not in processes of their own
    definitions.online_store = RedisStore.from_url(redis_url)
    yield definitions
    definitions.close()


def drop(file: str, *rows: tuple[str | int, int, float], shop: str = "a") -> None:
    frame = {
        "user_id": [row[0] for row in rows],
        "at": [START + timedelta(hours=row[1]) for row in rows],
        "amount": [row[2] for row in rows],
        "shop": [shop] * len(rows),
    }
    pl.DataFrame(frame).write_parquet(f"events/{file}.parquet")


def users(*names: str | int) -> None:
    frame = {"user_id": list(names), "age": [20 + n for n in range(len(names))]}
    pl.DataFrame(frame).write_parquet("users/all.parquet")


def held_in_store(value: str | int) -> list[str]:
    """The files of the store whose bytes or, where they are compressed, whose values hold a value."""
    needles = [str(value).encode()]
    needles += [struct.pack("<q", value)] if isinstance(value, int) else []
    held = []
    for path in sorted(Path("store").rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        if path.suffix == ".parquet":
            data += str(pl.read_parquet(path, glob=False).rows()).encode()
            data += str(pl.read_parquet_metadata(path)).encode()
        if any(needle in data for needle in needles):
            held.append(str(path))
    return held


def held_in_redis(url: str, value: str | int) -> list[bytes]:
    with Redis.from_url(url) as client:
        return [key for key in client.scan_iter() if str(value).encode() in client.dump(key)]


def keys_in_redis(url: str) -> dict[str, int]:
    with Redis.from_url(url) as client:
        names = ("spend", "daily", "shops", "peaks", "profile", "whole")
        return {name: len(list(client.scan_iter(f"mlforge:{name}:*"))) for name in names}


def store_reason(definitions: Definitions) -> str:
    """The reason why a file is set aside, as the books have it."""
    return definitions.store.books("spend").quarantine["bad.parquet"].reason


def audited(definitions: Definitions) -> None:
    """Hold every feature against its raw files, all of their entities."""
    for name in definitions.features:
        found = definitions.audit(name, ALL)
        assert (found.mismatches, found.first) == (0, ()), name


def tables(definitions: Definitions) -> dict[str, tuple[str, pl.DataFrame]]:
    store = definitions.store
    names = definitions.features
    return {name: (store.resolve(name).rows_hash, store.read(name)) for name in names}


def assert_as_if_never(definitions: Definitions, value: str | int) -> None:
    """Each table is what a store gives that is built from the sources without the entity's rows."""
    for path in (*Path("events").glob("*.parquet"), *Path("users").glob("*.parquet")):
        rows = pl.read_parquet(path)
        rows.filter(pl.col("user_id") != value).write_parquet(path)
    fresh = definitions.placed(type(definitions.store)("fresh"), None, None).located_at(Path.cwd())
    fresh.build()
    for name, (rows_hash, table) in tables(definitions).items():
        if name != "profile":  # its function has ranked all rows
            assert (name, rows_hash) == (name, fresh.store.resolve(name).rows_hash)
            assert table.equals(fresh.store.read(name)), name


@pytest.mark.parametrize("value", [pytest.param(ANN, marks=pytest.mark.slow), NUMBER])
def test_every_byte_of_an_entity_goes_and_none_comes_back(
    definitions: Definitions,
    redis_url: str,
    value: str | int,
) -> None:
    others: list[str | int] = ["bob", "cleo"] if isinstance(value, str) else [1, 2]
    drop("a", (others[0], 0, 1.0), (value, 1, 2.0), (others[1], 30, 3.0))
    users(others[0], value, others[1])
    definitions.build()
    drop("b", (others[0], 2, 1.5))
    drop("c", (value, 40, 2.5), shop="b")
    definitions.build(online=True)
    drop("bad", (value, 41, 1.0), (value, 42, 1.0), (others[1], 43, 5.0))
    definitions.build(online=True)
    assert str(value) in store_reason(definitions)
    log = EventLog(Redis.from_url(redis_url), scope_of(definitions))
    for text in (f"amount fails ({value})", "amount fails (10)"):
        log.write("quarantined", "spend", files=[{"reason": text}])
    store = definitions.store
    first = str(store.versions("spend")[0])
    pin(store, "spend", first)
    spine = pl.DataFrame({"user_id": [value], "at": [START + timedelta(days=2)]})
    training_set(spine, ["spend"], store, "train")
    lake, gone = (f"delta:{Path(name).absolute()}" for name in ("lake", "gone"))
    Path("lake").mkdir()
    note = ExportNote(str(store.versions("spend")[-1]), 0)
    with store.lock("spend"):
        books = store.books("spend")
        store.write_books("spend", replace(books, exports={lake: note, gone: note}))
    profile_version(store, store.resolve("profile"))
    audited(definitions)
    assert held_in_store(value)
    before = keys_in_redis(redis_url)

    entities = entities_of(store, [f"user_id={value}"])
    outcome = forget(definitions, entities, redis_url)
    assert outcome.failures == {}
    spend = outcome.features["spend"]
    assert (spend.files, spend.rows) == (("a.parquet", "c.parquet"), 2)
    assert (spend.together, outcome.features["whole"].together) == (False, True)
    assert spend.scrubbed.sets == (str(Path("train").absolute()),)
    assert spend.scrubbed.exports == (lake,)
    assert first in spend.scrubbed.versions
    assert held_in_store(value) == []
    assert held_in_redis(redis_url, value) == []
    after = keys_in_redis(redis_url)
    assert {
        name: before[name] - after[name] for name in ("spend", "daily", "peaks", "profile")
    } == dict.fromkeys(("spend", "daily", "peaks", "profile"), 1)
    assert verify(store, definitions.features) == []
    again = forget(definitions, entities)
    assert [each.version for each in again.features.values()] == [None] * 6
    named = again.features["spend"].scrubbed  # again, as a killed run may have named none
    assert (named.sets, named.exports) == (spend.scrubbed.sets, spend.scrubbed.exports)
    assert [entry.details["files"] for entry in log.recent()] == [[{"reason": "amount fails (10)"}]]
    assert "(forgotten)" in store_reason(definitions)
    assert {name: each.changed for name, each in definitions.build().items()}["spend"]
    assert not store.books("spend").quarantine
    versions = {name: store.versions(name) for name in definitions.features}

    # Nothing that happens to the sources brings a row back, or makes a version where nothing else changed.
    definitions.build()
    assert {name: store.versions(name) for name in definitions.features} == versions
    audited(definitions)
    Path("events/a.parquet").rename("events/renamed.parquet")
    definitions.build()
    drop("d", (value, 50, 1.0), (others[1], 41, 7.0))
    drop("c", (value, 40, 2.5), (others[0], 3, 1.0), shop="b")
    definitions.build(online=False)
    definitions.build(full=True)
    for name in ("profile", "spend"):
        prune(store, [name], Retention(newest=1))
    assert held_in_store(value) == []
    values = get_training_data(spine, ["spend"], store)
    assert values["spend__amount__count__7d"].to_list() == [0]
    assert_as_if_never(definitions, value)


def held_in_files(folder: Path, value: str) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files if value.encode() in path.read_bytes()]


@pytest.mark.slow
def test_the_servers_own_files_lose_an_entity_too(
    definitions: Definitions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedServer(tmp_path / "redis") as server, Redis.from_url(server.url) as client:
        client.config_set("rdbcompression", "no")  # else its files would hide what they hold
        client.config_set("save", "3600 1")
        definitions.online_store = RedisStore.from_url(server.url)
        drop("a", ("bob", 0, 1.0), (ANN, 1, 2.0))
        users("bob", ANN)
        definitions.build(online=True)
        client.bgrewriteaof()
        eventually(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
        client.save()
        drop("b", (ANN, 2, 1.0))
        definitions.build(online=True)
        held = held_in_files(tmp_path / "redis", ANN)
        assert "dump.rdb" in held
        assert any(name.endswith("base.rdb") for name in held)
        assert any(name.endswith("incr.aof") for name in held)

        outcome = forget(definitions, entities_of(definitions.store, [f"user_id={ANN}"]))
        assert (outcome.failures, outcome.left) == ({}, [])
        eventually(lambda: not held_in_files(tmp_path / "redis", ANN))
        assert RedisStore.from_url(server.url).features()

        # A second server holds the event log; one that lets nobody rewrite its files is named.
        client.acl_setuser("few", enabled=True, passwords=["+p"], keys=["*"], channels=["*"], commands=["-@dangerous"], categories=["+@all", "-@admin"])  # fmt: skip
        definitions.online_store = RedisStore(
            port=int(server.url.rpartition(":")[2][:-2]), username="few", password="p"
        )
        again = forget(definitions, [], server.url)
        [left] = again.left
        assert "does not let us rewrite them" in left
        monkeypatch.setattr(own_files, "_is_idle_by", lambda *_: False)
        definitions.online_store = RedisStore.from_url(server.url)
        [left] = forget(definitions, [], server.url).left
        assert "did not write its append-only file anew" in left


def test_a_server_that_began_with_a_snapshot_writes_it_anew_though_it_takes_none(
    tmp_path: Path,
) -> None:
    with running(data_dir=tmp_path, persist=True) as server, Redis(port=server.port) as client:
        client.config_set("rdbcompression", "no")
        client.set("row", ANN)
        client.save()
    with running(data_dir=tmp_path, persist=True) as server, Redis(port=server.port) as client:
        client.config_set("save", "")
        client.delete("row")
        assert held_in_files(tmp_path, ANN)
        assert RedisStore(port=server.port).rewrite_own_files() == []
        assert not held_in_files(tmp_path, ANN)


def test_replicas_which_keep_files_of_their_own_are_named() -> None:
    with running() as primary, Redis(port=primary.port) as client:
        assert RedisStore(port=primary.port).rewrite_own_files() == []
        with running(config={"replicaof": f"127.0.0.1 {primary.port}"}):
            eventually(lambda: client.info("replication")["connected_slaves"] == 1)
            [left] = RedisStore(port=primary.port).rewrite_own_files()
            assert "has 1 replica, which may hold deleted rows" in left
            client.acl_setuser("few", enabled=True, passwords=["+p"], keys=["*"], categories=["+@all"], commands=["-config"])  # fmt: skip
            few = RedisStore(port=primary.port, username="few", password="p")
            named, refused = few.rewrite_own_files()
            assert "has 1 replica" in named
            assert "does not let us rewrite them" in refused


def test_a_forgetting_that_is_killed_before_it_deletes_brings_no_row_back(
    definitions: Definitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("ann", "bob", "cleo")
    for file in range(8):
        drop(str(file), *((name, file * 3 + n, 1.0) for n, name in enumerate(names)))
    definitions.build(["spend"])
    store = definitions.store
    assert forget(definitions, entities_of(store, ["user_id=ann"])).failures == {}
    with monkeypatch.context() as patched:
        patched.setattr(registry_forgetting, "scrub", _killed)
        with pytest.raises(KeyboardInterrupt):
            forget(definitions, entities_of(store, ["user_id=bob"]))
    drop("last", ("bob", 90, 1.0), ("cleo", 91, 1.0))
    for file in range(8):
        Path(f"events/{file}.parquet").rename(f"events/renamed-{file}.parquet")
    definitions.build(["spend"])
    assert store.read("spend")["user_id"].unique().to_list() == ["cleo"]
    assert forget(definitions, entities_of(store, ["user_id=bob"])).failures == {}
    assert held_in_store("bob") == []


def test_a_version_of_events_that_are_gone_goes_as_it_may_have_held_an_entity(
    definitions: Definitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop("a", ("bob", 0, 1.0), ("ann", 1, 1.0))
    definitions.build(["spend"])
    [lost] = Path("store/spend/_partials").iterdir()
    drop("a", ("bob", 0, 1.0))
    drop("b", ("cleo", 2, 1.0))
    definitions.build(["spend"])
    lost.unlink()

    store = definitions.store
    entities = entities_of(store, ["user_id=ann"])
    with monkeypatch.context() as patched:
        patched.setattr(registry_forgetting, "scrub", _full)
        assert "spend" in forget(definitions, entities).failures
    assert store.forgotten().unfinished == {"spend"}
    with store.lease("spend", store.versions("spend")[0]):
        forget(definitions, entities)
    assert store.forgotten().unfinished == {"spend"}, "somebody reads it"
    outcome = forget(definitions, entities)

    assert store.forgotten().unfinished == set()
    assert outcome.features["spend"].scrubbed.versions == ("1.0.0",)
    assert list(map(str, store.versions("spend"))) == ["1.0.1"]


def test_a_version_that_cannot_be_read_goes_as_it_may_hold_an_entity(
    definitions: Definitions,
) -> None:
    drop("a", ("bob", 0, 1.0), ("ann", 1, 1.0))
    definitions.build(["spend"])
    drop("b", ("cleo", 2, 1.0))
    definitions.build(["spend"])
    Path("store/spend/1.0.0/.meta.json").write_text("{")

    outcome = forget(definitions, entities_of(definitions.store, ["user_id=ann"]))

    assert outcome.failures == {}
    assert outcome.features["spend"].scrubbed.versions == ("1.0.0", "1.0.1")
    assert list(map(str, definitions.store.versions("spend"))) == ["1.0.2"]
    assert held_in_store("ann") == []


def test_forgetting_keeps_no_connection_to_the_server_of_the_event_log(
    definitions: Definitions, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[RedisStore] = []
    closed: list[RedisStore] = []

    def counted(url: str) -> RedisStore:
        opened.append(RedisStore.from_url(url))
        return opened[-1]

    def noted(server: RedisStore) -> None:
        closed.append(server)

    monkeypatch.setattr(registry_forgetting, "online_store_at", counted)
    monkeypatch.setattr(RedisStore, "close", noted)
    drop("first", ("ann", 1, 1.0))
    definitions.build(["spend"])

    assert forget(definitions, entities_of(definitions.store, ["user_id=ann"]), redis_url)

    assert len(opened) == 1
    assert closed == opened


def _full(*_: object) -> None:
    raise StoreError("the disk is full")


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_no_feature_could_hold_is_refused(
    capsys: pytest.CaptureFixture[str], definitions: Definitions
) -> None:
    drop("a", (1, 0, 1.0))
    users(1)
    definitions.build()
    versions = definitions.store.versions("spend")
    for text, told in (
        ("user=7", "no feature of the store has a column 'user'; did you mean 'user_id'?"),
        ("user_id", "'user_id' names no entity; write key=value, as in user_id=7"),
        ("=7", "names no entity"),
        ("user_id=ann", "user_id is Int64, and 'ann' is no whole number"),
        ("user_id=07", "no whole number"),
        (f"user_id={2**63}", "no whole number"),
        ("amount=1.0", "no number such as 7 or 7.5"),
    ):
        assert main(["forget", text, "--yes"]) == 1
        assert told in capsys.readouterr().err
    assert not Path("store/_metadata/forgotten.json").exists()
    # Nothing holds it: it is left out of what comes.
    assert main(["forget", "user_id=7", "--yes"]) == 0
    assert definitions.store.versions("spend") == versions
    drop("b", (7, 1, 1.0), (1, 2, 1.0))
    definitions.build()
    assert definitions.store.read("spend")["user_id"].to_list() == [1, 1]
    assert definitions.store.resolve("spend").dropped == {"forgotten": 1}
    text = Path("store/_metadata/forgotten.json").read_text()
    salt = json.loads(text)["salt"]
    assert len(bytes.fromhex(salt)) == 16, "the hash of a value is another in each store"
    assert main(["forget", "user_id=8", "--yes"]) == 0
    store = definitions.store
    assert store.forgotten().salt == salt
    store.write_forgotten(Forgotten(salt).with_entities([Entity("user_id", "9")]))
    assert [n for n in range(11) if store.forgotten().holds("user_id", str(n))] == [7, 8, 9]
    with pytest.raises(StoreBusy, match="run the same command again"):
        store.write_forgotten(Forgotten("00").with_entities([Entity("user_id", "10")]))
