"""A store that an earlier release wrote is read, refreshed and pushed as if it were our own.

`tests/support/make_store_before.py` made it, and says how.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from redis import Redis

from mlforge import Definitions, get_online_features, get_training_data
from mlforge.core import clock
from mlforge.core.values import to_us
from mlforge.definitions import loader
from mlforge.maintenance.operations import prune, tidy, verify
from mlforge.maintenance.retention import Retention
from mlforge.online import RedisStore
from mlforge.store import LocalStore
from mlforge.store.local import live_packs
from mlforge.store.local.packs import Packing
from tests.support import kernels
from tests.support.make_store_before import at, events

ARCHIVE = Path(__file__).parent.parent / "data" / "store_before.tar.gz"
NAMES = ("daily", "profile", "spend")
SERVED = {"daily": "1.1.2", "profile": "1.0.1", "spend": "1.0.4"}
SPINE = pl.DataFrame(
    [{"user_id": user, "at": at(day / 2)} for day in range(40) for user in range(6)]
)
INSTANT = pl.Datetime("us", "UTC")
KEYS = [{"user_id": user} for user in range(6)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The project, unpacked where it may be changed."""
    with tarfile.open(ARCHIVE) as packed:
        # Python 3.11.4 and newer know filters.
        packed.extraction_filter = getattr(tarfile, "data_filter", None)
        packed.extractall(tmp_path)
    return tmp_path / "before"


@pytest.fixture(params=["as it comes", "tiled"])
def defs(root: Path, request: pytest.FixtureRequest) -> Iterator[Definitions]:
    with kernels.forced(**kernels.WAYS[request.param]):
        yield loader.load(None, here=root)


ONE_WAY = pytest.mark.parametrize(
    "defs", ["as it comes", pytest.param("tiled", marks=pytest.mark.slow)], indirect=True
)
"""For tests of what lies beside the tiles: those of a drop read and extend these, too."""


def store_of(defs: Definitions) -> LocalStore:
    assert isinstance(defs.store, LocalStore)
    return defs.store


def training(store: LocalStore, name: str, version: str) -> pl.DataFrame:
    return get_training_data(SPINE, [(name, version)], store, timestamp="at")


def rebuilt(defs: Definitions, folder: Path) -> Definitions:
    """The same definitions with a store that today's code builds from the source."""
    fresh = Definitions(
        store=LocalStore(folder),
        features=[defs.feature(name) for name in NAMES],
        root=defs.root,
    )
    fresh.build()
    return fresh


def check_same(found: pl.DataFrame, expected: pl.DataFrame) -> None:
    """Equal, but for the last bits of a mean or deviation, which tiles may round otherwise."""
    assert_frame_equal(found, expected, rel_tol=1e-12, abs_tol=1e-9)


def check_as_rebuilt(defs: Definitions, folder: Path) -> None:
    fresh = rebuilt(defs, folder)
    for name in NAMES:
        ours, theirs = store_of(defs).read_metadata(name), store_of(fresh).read_metadata(name)
        check_same(store_of(defs).read(name), store_of(fresh).read(name))
        assert (ours.code_hash, ours.config_hash) == (theirs.code_hash, theirs.config_hash), name
        asked = [
            get_training_data(SPINE, [name], each.store, timestamp="at") for each in (defs, fresh)
        ]
        check_same(*asked)
    assert verify(defs.store, NAMES) == []


def test_every_version_reads_as_it_did(defs: Definitions, root: Path) -> None:
    store = store_of(defs)
    answers = sorted((root / "expected").iterdir())
    assert len(answers) == 24
    for path in answers:
        name, version, what = path.stem.split("-")
        found = store.read(name, version) if what == "rows" else training(store, name, version)
        check_same(found, pl.read_parquet(path))
    assert {name: str(store.read_metadata(name).version) for name in NAMES} == SERVED
    assert verify(store, NAMES) == []


def test_nothing_is_published_while_nothing_has_changed(defs: Definitions) -> None:
    for name, result in defs.build().items():
        assert (result.changed, result.reason, result.version) == (False, "unchanged", SERVED[name])
        assert result.files_read <= 13, "each source file is hashed once, as its stat is another"


def test_a_store_whose_files_were_seen_computes_nothing_anew(
    defs: Definitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("all that the source gives is stored")

    monkeypatch.setattr(LocalStore, "write_partials", refused)
    assert not any(result.changed for result in defs.build().values())


def test_a_drop_is_taken_in_incrementally(defs: Definitions, root: Path, tmp_path: Path) -> None:
    with clock.fixed(to_us(at(20))):
        events((1, 12.75, 3.0), (5, 13.0, 1.0)).write_parquet(root / "events" / "new.parquet")
        results = defs.build()
    for name in ("daily", "spend"):
        result = results[name]
        assert (result.bump, result.mode, result.rows_changed) == ("patch", "incremental", 2)
        assert result.version == SERVED[name][:-1] + str(int(SERVED[name][-1]) + 1)
    assert not results["profile"].changed
    check_as_rebuilt(defs, tmp_path / "fresh")


@ONE_WAY
def test_a_file_that_is_amended_and_one_that_goes_leave_what_a_rebuild_gives(
    defs: Definitions, root: Path, tmp_path: Path
) -> None:
    events((2, 1.5, 100.0)).write_parquet(root / "events" / "d01.parquet")
    (root / "events" / "d09.parquet").unlink()
    (root / "events" / "bad.parquet").unlink()
    for name, result in defs.build().items():
        assert result.changed == (name != "profile")
        assert not store_of(defs).books(name).quarantine
    check_as_rebuilt(defs, tmp_path / "fresh")


@ONE_WAY
def test_what_it_packed_is_packed_on_and_pruned(
    defs: Definitions, root: Path, tmp_path: Path
) -> None:
    store = LocalStore(root / "store", Packing(at_least=2, grace_s=0))
    ahead = datetime.now(UTC).timestamp() - 3_600
    for path in store.path.rglob("*.parquet"):
        os.utime(path, (ahead, ahead))
    for name in NAMES:
        for _ in range(3):
            tidy(store, name)
        assert list((store.path / name / "_partials").iterdir()) == []
        packs = {path.name for path in (store.path / name / "_packs").glob("*.parquet")}
        told = (store.path / name / "_packs" / live_packs.DOCUMENT).read_text()
        assert packs
        assert all(pack in told for pack in packs), "it told nowhere which packs are live"
    for path in sorted((root / "expected").glob("*-training.parquet")):
        name, version, _ = path.stem.split("-")
        check_same(training(store, name, version), pl.read_parquet(path))
    prune(store, NAMES, Retention(newest=1))
    for name in NAMES:
        needed = {partial.hash for partial in store.read_metadata(name).partials}
        assert store.partials(name) == needed
    check_as_rebuilt(defs, tmp_path / "fresh")


def test_tiles_of_its_kind_give_way_to_ours(root: Path) -> None:
    folder = root / "store" / "daily" / "_tiles"
    before = set(folder.iterdir())
    with kernels.forced(tiled=True):
        defs = loader.load(None, here=root)
        defs.store = LocalStore(root / "store", Packing(grace_s=0))
        events((1, 12.75, 3.0)).write_parquet(root / "events" / "new.parquet")
        defs.build("daily")
    ours = set(folder.iterdir())
    assert before
    assert ours
    assert not before & ours


@pytest.mark.parametrize("missing", ["_tiles", "_packs", "_partials"])
def test_what_is_lost_of_it_is_made_anew(
    missing: str, defs: Definitions, root: Path, tmp_path: Path
) -> None:
    for path in (root / "store").glob(f"*/{missing}/*"):
        path.unlink()
    events((1, 12.75, 3.0)).write_parquet(root / "events" / "new.parquet")
    defs.build()
    assert store_of(defs).list_versions("spend")[-1] == "1.0.5"
    fresh = rebuilt(defs, tmp_path / "fresh")
    for name in NAMES:
        check_same(store_of(defs).read(name), store_of(fresh).read(name))


@pytest.fixture
def pushing(defs: Definitions, redis_url: str) -> Iterator[Definitions]:
    """The definitions with an empty online store, half a day after the last event."""
    pushing = Definitions(
        store=defs.store,
        features=[defs.feature(name) for name in NAMES],
        root=defs.root,
        online_store=RedisStore.from_url(redis_url),
    )
    with clock.fixed(to_us(at(13.5))):
        yield pushing
    pushing.close()


def check_online(defs: Definitions) -> None:
    """Answers from rows online must be those of training at their instant."""
    online = defs.online_store
    assert online is not None
    for name in ("spend", "daily"):
        served = pl.DataFrame(get_online_features([name], KEYS, online))
        books = online.books(name)
        assert books is not None
        assert books.target is not None
        now = pl.lit(books.target.as_of).cast(INSTANT).alias("at")
        spine = pl.DataFrame(KEYS).with_columns(now)
        expected = get_training_data(spine, [name], defs.store, timestamp="at").drop("at")
        check_same(served.select(expected.columns).cast(dict(expected.schema)), expected)


def test_it_is_pushed(pushing: Definitions) -> None:
    for name in NAMES:
        pushing.push(name)
    check_online(pushing)


def take_over(client: Redis, keys: dict[str, Any]) -> None:
    """Have a server hold what the one held that it pushed to, as if it were that one."""
    for key, value in keys.items():
        if isinstance(value, str):
            client.set(key, value)
        elif isinstance(value, list):
            client.sadd(key, *value)
        else:
            client.hset(key, mapping=value)
    told = client.info()
    for name in NAMES:
        evidence = f"{told['evicted_keys']} {told['run_id']}"
        assert client.hset(f"mlforge:{name}", "losses", evidence) == 0, "a field that was there"


def test_rows_that_it_pushed_are_read_and_pushed_on(
    pushing: Definitions, root: Path, redis_url: str
) -> None:
    before = json.loads((root / "online.json").read_text())
    with Redis.from_url(redis_url) as client:
        take_over(client, before["keys"])

    def answers() -> dict[str, Any]:
        online = pushing.online_store
        rows = {name: get_online_features([name], KEYS, online) for name in NAMES}
        return dict(json.loads(json.dumps(rows, default=str)))

    assert answers() == before["answers"]
    # Its books tell no TTL: once, all rows are written anew.
    assert all(pushing.push(name).full for name in NAMES)
    assert answers() == before["answers"]
    assert [pushing.push(name).written for name in NAMES] == [0, 0, 0]

    events((1, 12.75, 3.0)).write_parquet(root / "events" / "new.parquet")
    pushing.build()
    for name in ("spend", "daily"):
        pushed = pushing.push(name)
        assert not pushed.full
        assert 0 < pushed.written <= len(KEYS)
    check_online(pushing)
