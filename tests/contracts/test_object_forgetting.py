"""`forget` in a bucket: no object of it, no file of a cache and no key of Redis holds a forgotten entity's rows."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest
from redis import Redis

from mlforge import Definitions
from mlforge.core import failpoints
from mlforge.core.forgotten import Entity, Forgotten
from mlforge.core.values import Version
from mlforge.errors import IntegrityError, StoreBusy
from mlforge.maintenance.operations import pin, prune, verify
from mlforge.maintenance.retention import Retention
from mlforge.online import RedisStore
from mlforge.registry.forgetting import entities_of, forget
from mlforge.store import ObjectStore
from mlforge.store.objects import keys
from mlforge.store.objects.bucket import Bucket
from mlforge.store.objects.objects import Objects
from tests.support.object_servers import BUCKET, moto, seaweed
from tests.support.objects import MemoryObjects
from tests.support.projects import Project, rows

ANN, BOB, CLEO = 7_203_984_651, 1, 2


class Killed(BaseException):
    """The end of a process in the midst of its work."""


class Shop:
    """A store in a bucket, machines that work on it, and the files that feed it."""

    def __init__(self, objects: Objects, root: Path, open_: Callable[[Path], ObjectStore]) -> None:
        self.objects, self.root, self._open = objects, root, open_
        self.project = Project(root / "project")
        self.files = 0

    def machine(self, name: str) -> ObjectStore:
        return self._open(self.root / "caches" / name)

    def definitions(self, machine: str = "first", **options: object) -> Definitions:
        return self.project.on(self.machine(machine)).definitions(**options)

    def drop(self, *events: tuple[int, float, float]) -> None:
        self.files += 1
        self.project.drop(str(self.files), rows(*events))

    def held(self, value: int) -> list[str]:
        """Objects and files of caches whose bytes, or whose values where they are compressed, hold a value."""
        contents = {e.key: self.objects.read(e.key) for e in self.objects.entries("")}
        named = {key: blob.data for key, blob in contents.items() if blob is not None}
        files = (path for path in (self.root / "caches").rglob("*") if path.is_file())
        named |= {str(path): path.read_bytes() for path in files}
        return sorted(name for name, data in named.items() if _holds(name, data, value))


def _holds(name: str, data: bytes, value: int) -> bool:
    if name.endswith(".parquet"):
        data += str(pl.read_parquet(io.BytesIO(data)).rows()).encode()
    return str(value).encode() in data or value.to_bytes(8, "little") in data


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    objects = MemoryObjects()

    def opened(cache: Path) -> ObjectStore:
        return ObjectStore("s3://memory/store", cache, objects=MemoryObjects(objects.stored))

    return Shop(objects, tmp_path, opened)


@pytest.fixture(params=["seaweed", "moto"])
def served_shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """A shop on a real server."""
    url = f"s3://{BUCKET}/shop"
    running = seaweed(tmp_path / "server") if request.param == "seaweed" else moto()
    with running as server:

        def opened(cache: Path) -> ObjectStore:
            return ObjectStore(url, cache, server.options)

        yield Shop(Bucket(url, server.options), tmp_path, opened)


def filled(shop: Shop, **options: object) -> Definitions:
    """Versions with Ann's rows, some of them from before her first, on two machines."""
    shop.drop((BOB, 0, 1.0))
    definitions = shop.definitions(**options)
    definitions.build()
    for day in (1, 2, 3):
        shop.drop((BOB, day, 1.0), (ANN, day, 2.0), (CLEO, day, 3.0))
        definitions.build(online=definitions.online_store is not None)
    for number in range(2):
        shop.drop((CLEO, 4 + number, 1.0))
        shop.definitions("second", **options).build()
    shop.machine("second").read("spend", "1.0.2")
    return definitions


def forget_ann(shop: Shop, machine: str = "first", **options: object) -> None:
    definitions = shop.definitions(machine, **options)
    outcome = forget(definitions, entities_of(definitions.store, [f"user_id={ANN}"]))
    assert outcome.failures == {}


def judged(shop: Shop) -> None:
    """Nothing holds Ann's rows, also once all machines have worked, and all else is as a store without them."""
    assert [name for name in shop.held(ANN) if "/caches/" not in name] == []
    for machine in ("first", "second"):
        shop.definitions(machine).build()
    assert shop.held(ANN) == []
    store = shop.machine("third")
    assert str(store.versions("spend")[0]) == "1.0.0"
    assert verify(store, ["spend"]) == []
    for path in shop.project.events.glob("*.parquet"):
        pl.read_parquet(path).filter(pl.col("user_id") != ANN).write_parquet(path)
    fresh = shop.project.rebuilt(shop.root / f"fresh-{shop.files}")
    assert store.read("spend").equals(fresh.read("spend"))
    assert store.resolve("spend").rows_hash == fresh.resolve("spend").rows_hash


def test_every_byte_of_an_entity_leaves_the_bucket_all_caches_and_redis(
    shop: Shop, redis_url: str
) -> None:
    online = RedisStore.from_url(redis_url, prefix=shop.root.name)
    definitions = filled(shop, online_store=online)
    pin(definitions.store, "spend", "1.0.1")
    shop.objects.put("spend/_parts/left.parquet", (shop.project.events / "2.parquet").read_bytes())
    assert len(shop.held(ANN)) > 10
    forget_ann(shop, online_store=online)
    left = [name for name in shop.held(ANN) if "/caches/second/" not in name]
    assert left == []
    with Redis.from_url(redis_url) as client:
        held = [
            k for k in client.scan_iter(f"{shop.root.name}*") if str(ANN).encode() in client.dump(k)
        ]
    assert held == []
    assert shop.machine("third").list_versions("spend") == ["1.0.0", "1.0.6"]
    judged(shop)
    prune(shop.machine("second"), ["spend"], Retention(newest=1))
    online.close()


STEPS = ["forgotten.written", "publish.renamed", "scrub.deleted"]
MORE_STEPS = [
    *("publish.staged", "publish.pointed", "forget.rewritten"),
    *("remove.hidden", "forget.removed", "partials.scrubbed"),
]


@pytest.mark.parametrize("machine", ["first", pytest.param("second", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "step", [*STEPS, *(pytest.param(step, marks=pytest.mark.slow) for step in MORE_STEPS)]
)
def test_a_forgetting_that_is_killed_at_any_step_is_ended_by_the_same_command(
    shop: Shop, step: str, machine: str
) -> None:
    filled(shop)
    reached = []

    def die() -> None:
        reached.append(step)
        raise Killed

    failpoints.arm(step, die)
    try:
        with suppress(Killed):
            forget_ann(shop)
    finally:
        failpoints.disarm()
    assert reached
    shop.drop((ANN, 5, 1.0), (BOB, 6, 1.0))
    shop.definitions("second").build()  # another machine goes on meanwhile
    forget_ann(shop, machine)
    judged(shop)


def test_a_process_that_is_killed_before_every_feature_was_told_is_made_up_for(shop: Shop) -> None:
    filled(shop)
    store = shop.machine("first")
    objects = store._objects
    assert isinstance(objects, MemoryObjects)

    def die(deed: str, key: str) -> None:
        if deed == "replace" and key == "spend/_latest.json":
            raise Killed

    objects.before = die
    forgotten = Forgotten("5a17").with_entities([Entity("user_id", str(ANN))])
    with pytest.raises(Killed):
        store.write_forgotten(forgotten)
    forget_ann(shop)
    judged(shop)


def test_a_publisher_that_began_before_an_entity_was_forgotten_serves_nothing_of_it(
    shop: Shop,
) -> None:
    filled(shop)
    shop.drop((ANN, 5, 1.0), (BOB, 6, 1.0))
    late = shop.definitions("second")

    def meanwhile() -> None:
        failpoints.disarm()
        forget_ann(shop)

    failpoints.arm("publish.staged", meanwhile)
    try:
        late.build()  # it is refused, and begins anew
    finally:
        failpoints.disarm()
    assert ANN not in shop.machine("third").read("spend")["user_id"]
    forget_ann(shop)  # what the late publisher had written by then goes, too
    judged(shop)


def test_what_a_late_publisher_left_unserved_is_served_by_nobody(shop: Shop) -> None:
    filled(shop)
    shop.drop((ANN, 5, 1.0))
    second = shop.definitions("second")

    def die() -> None:
        raise Killed

    failpoints.arm("publish.renamed", die)
    try:
        with pytest.raises(Killed):
            second.build()
    finally:
        failpoints.disarm()
    store = shop.machine("first")
    store.write_forgotten(Forgotten("5a17").with_entities([Entity("user_id", str(ANN))]))
    versions = store.list_versions("spend")
    with shop.machine("third").lock("spend"):
        pass
    assert shop.machine("third").list_versions("spend") == versions
    forget_ann(shop)
    judged(shop)


def test_forgetting_costs_a_drop_nothing(shop: Shop) -> None:
    filled(shop)
    forget_ann(shop)
    definitions = shop.definitions("first")
    definitions.build()
    objects = definitions.store._objects  # type: ignore[attr-defined]
    objects.requests.clear()
    assert definitions.refresh("spend").reason == "unchanged"
    assert len(objects.requests) <= 2


def test_two_that_forget_at_once_lose_nobody_and_another_salt_is_refused(shop: Shop) -> None:
    filled(shop)
    first, second = shop.machine("first"), shop.machine("second")
    base = Forgotten("5a17")
    first.write_forgotten(base.with_entities([Entity("user_id", "1")]))
    objects = first._objects
    assert isinstance(objects, MemoryObjects)
    others = iter([base.with_entities([Entity("user_id", "2")])])

    def overtake(deed: str, key: str) -> None:
        if deed == "replace" and key.endswith("forgotten.json"):
            for other in others:
                second.write_forgotten(other)

    objects.before = overtake
    first.write_forgotten(base.with_entities([Entity("user_id", "3")]))
    for store in (first, second, shop.machine("third")):
        assert [n for n in range(5) if store.forgotten().holds("user_id", str(n))] == [1, 2, 3]
        with store.lock("spend"):
            assert store.forgotten().holds("user_id", "3")
    with pytest.raises(StoreBusy, match="run the same command again"):
        second.write_forgotten(Forgotten("00").with_entities([Entity("user_id", "4")]))
    shop.objects.put("_metadata/forgotten.json", b"{")
    with pytest.raises(IntegrityError, match=r"forgotten\.json"):
        shop.machine("fourth").forgotten()


@pytest.mark.slow
def test_every_byte_of_an_entity_leaves_a_real_server(served_shop: Shop) -> None:
    filled(served_shop)
    assert len(served_shop.held(ANN)) > 10
    forget_ann(served_shop)
    shutil.rmtree(served_shop.root / "caches" / "third", ignore_errors=True)
    judged(served_shop)


def test_a_version_that_cannot_be_read_goes_as_it_may_hold_an_entity(shop: Shop) -> None:
    definitions = shop.definitions()
    for number in range(2):
        shop.drop((BOB, number, 1.0), (ANN, number, 1.0))
        definitions.build()
    shop.objects.put(keys.meta("spend", Version(1, 0, 0)), b"{")
    other = shop.definitions("second")

    assert forget(other, entities_of(other.store, [f"user_id={ANN}"])).failures == {}
    assert [str(version) for version in shop.machine("third").versions("spend")] == ["1.0.2"]
    assert not [name for name in shop.held(ANN) if "/caches/first/" not in name]
