"""The online store on a Redis Cluster: the contract, and what is its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from mlforge import Definitions, aget_online_features, get_online_features
from mlforge.errors import OnlineError, OwnedElsewhere, StalePush
from mlforge.frames.encoding import key_hash
from mlforge.online import OnlineStore, RedisStore, Target
from mlforge.online.books import Claim, Owner
from mlforge.testing.online_contract import OnlineStoreContract
from mlforge.testing.online_values import NEW, NOON, OLD, books, entities, frame, push
from tests.support.clusters import Cluster, SlotMove
from tests.support.projects import Project, rows

BUCKETS = 64


@pytest.fixture
def store(empty_cluster: Cluster) -> Iterator[RedisStore]:
    store = RedisStore.from_url(empty_cluster.url)
    yield store
    store.close()


@pytest.mark.slow
class TestClusterRedisStore(OnlineStoreContract):
    @pytest.fixture
    def store(self, empty_cluster: Cluster) -> Iterator[OnlineStore]:
        store = RedisStore.from_url(empty_cluster.url)
        yield store
        store.close()


@pytest.mark.slow
class TestClusterRedisStoreWithTtl(OnlineStoreContract):
    @pytest.fixture
    def store(self, empty_cluster: Cluster) -> Iterator[OnlineStore]:
        store = RedisStore.from_url(empty_cluster.url, ttl=7 * 86_400, prefix="team:ml")
        yield store
        store.close()


def books_key(bucket: int) -> str:
    return f"mlforge:{{spend:{bucket}}}"


def row_key(user: int) -> str:
    digest = key_hash({"user_id": user})
    return f"{books_key(int(digest[:2], 16) % BUCKETS)}:{digest}"


def test_rows_and_books_lie_where_they_are_promised(
    store: RedisStore, empty_cluster: Cluster
) -> None:
    push(store, OLD, 1, 2)
    told = {books_key(bucket) for bucket in range(BUCKETS)}
    assert empty_cluster.all_keys() == told | {row_key(1), row_key(2), "mlforge:_features"}
    owner = empty_cluster.owner(row_key(1))
    row = empty_cluster.ask(owner, "GET", row_key(1))
    assert json.loads(row) == {"amount__sum__7d": 1.5, "n": 1}
    assert {empty_cluster.owner(key) for key in told} == {0, 1, 2}
    assert store.drop("spend") == 2
    assert empty_cluster.all_keys() == set()


def test_begin_raises_the_fence_of_every_bucket_before_a_row_is_written(
    store: RedisStore, empty_cluster: Cluster
) -> None:
    push(store, OLD, 1)
    store.begin("spend", NEW)
    for bucket in range(BUCKETS):
        key = books_key(bucket)
        fence = empty_cluster.ask_owner(key, "HGET", key, "fence")
        assert fence == "2 1704110400000000"


def test_a_push_that_one_bucket_knows_nothing_of_does_not_end_well(
    store: RedisStore, empty_cluster: Cluster
) -> None:
    push(store, OLD, *range(500))
    store.begin("spend", NEW)
    store.put("spend", NEW, frame(*range(500), amount=2.0), ["user_id"])
    lost = books_key(17)
    empty_cluster.ask_owner(lost, "DEL", lost)
    with pytest.raises(StalePush, match="push again from the start"):
        store.finish("spend", NEW, books(500))
    found = store.books("spend")
    assert found is not None
    assert (found.target, set(found.pending)) == (None, {NEW})


def test_what_buckets_tell_differently_is_promised_as_the_least_of_it(store: RedisStore) -> None:
    """As while a push is being finished: some buckets are done, others not yet."""
    push(store, OLD, *range(100))
    store.begin("spend", NEW)
    store.put("spend", NEW, frame(*range(100), amount=2.0), ["user_id"])
    whole, some = store._server.evaluate, range(10, 40)  # type: ignore[attr-defined]

    def part(script: str, keys: list[str], arguments: list[str]) -> list[object]:
        return whole(script, [key for key in keys if key in set(map(books_key, some))], arguments)

    store._server.evaluate = part  # type: ignore[attr-defined,method-assign]
    store.finish("spend", NEW, books(100))
    store._server.evaluate = whole  # type: ignore[attr-defined,method-assign]
    found = store.books("spend")
    assert found is not None
    assert (found.target, found.pending) == (OLD, (NEW,))
    [(told, [row])] = store.fetch([("spend", entities(in_bucket(some.start)))])
    assert told is not None
    assert (told.target, told.pending) == (NEW, ())
    assert row is not None
    assert row["amount__sum__7d"] == 2.0
    push(store, NEW, *range(100))
    found = store.books("spend")
    assert found is not None
    assert (found.target, found.pending) == (NEW, ())


def in_bucket(bucket: int) -> int:
    """A user whose row is in the bucket."""
    return next(user for user in range(100_000) if row_key(user).startswith(books_key(bucket)))


def test_a_claim_that_died_halfway_leaves_rows_to_the_owner_before(
    store: RedisStore, empty_cluster: Cluster
) -> None:
    mine, theirs = Target("1.0.0", 1, NOON, store="a"), Target("1.0.0", 1, NOON, store="b")
    store.begin("spend", mine, Claim(Owner("a")))
    store.put("spend", mine, frame(1), ["user_id"])
    store.finish("spend", mine, books(1))
    whole = store._server.evaluate  # type: ignore[attr-defined]

    def dies(script: str, keys: list[str], arguments: list[str]) -> list[object]:
        whole(script, keys[:20], arguments)
        raise OnlineError("killed")

    store._server.evaluate = dies  # type: ignore[attr-defined,method-assign]
    with pytest.raises(OnlineError, match="killed"):
        store.begin("spend", theirs, Claim(Owner("b"), "a", afresh=True))
    store._server.evaluate = whole  # type: ignore[attr-defined,method-assign]
    told = store.books("spend")
    assert told is not None
    assert told.owner is not None
    assert (told.target, told.owner.store) == (None, "a")
    with pytest.raises(OwnedElsewhere):
        store.begin("spend", mine, Claim(Owner("a")))
    begun = store.begin("spend", theirs, Claim(Owner("b"), "a", afresh=True))
    assert begun.owner is not None
    assert begun.owner.store == "b"


def test_books_and_rows_live_their_ttl_in_every_bucket(empty_cluster: Cluster) -> None:
    mortal = RedisStore.from_url(empty_cluster.url, ttl=1_000)
    push(mortal, OLD, *range(200))

    def lives() -> tuple[set[bool], set[bool]]:
        seconds = {
            key: empty_cluster.ask_owner(key, "TTL", key)
            for key in empty_cluster.all_keys() - {"mlforge:_features"}
        }
        told = {490 < seconds[books_key(bucket)] <= 500 for bucket in range(BUCKETS)}
        return told, {990 < s <= 1_000 for key, s in seconds.items() if not key.endswith("}")}

    assert lives() == ({True}, {True})
    for key in empty_cluster.all_keys() - {"mlforge:_features"}:
        empty_cluster.ask_owner(key, "EXPIRE", key, 100)
    assert mortal.renew("spend", OLD) == 200
    assert lives() == ({True}, {True})
    mortal.close()


def test_an_event_loop_reads_what_was_pushed(store: RedisStore) -> None:
    push(store, OLD, *range(50))

    async def read() -> list[dict[str, object]]:
        asked = [
            aget_online_features(["spend"], entities(*range(start, start + 10)), store)
            for start in range(0, 50, 10)
        ]
        return [row for some in await asyncio.gather(*asked) for row in some]

    for _ in range(2):  # a second loop has connections of its own
        found = asyncio.run(read())
        assert [row["user_id"] for row in found] == list(range(50))
        assert {row["spend__n"] for row in found} == {1}


def test_definitions_push_to_a_cluster_that_a_url_names(
    empty_cluster: Cluster, tmp_path: Path
) -> None:
    project = Project(tmp_path / "p")
    project.drop("one", rows((1, 0, 10.0), (2, 1, 1.0)))
    defs: Definitions = project.definitions(online_store=empty_cluster.url)
    defs.build(online=True)
    online = defs.online_store
    assert online is not None
    assert get_online_features(["spend"], entities(1, 3), online) == [
        {
            "user_id": 1,
            "spend__amount__sum__2d": 10.0,
            "spend__amount__count__2d": 1,
            "spend__amount__sum__7d": 10.0,
            "spend__amount__count__7d": 1,
        },
        {
            "user_id": 3,
            "spend__amount__sum__2d": None,
            "spend__amount__count__2d": 0,
            "spend__amount__sum__7d": None,
            "spend__amount__count__7d": 0,
        },
    ]
    project.drop("two", rows((1, 1, 5.0)))
    defs.build(online=True)
    [row] = get_online_features(["spend"], entities(1), online)
    assert row["spend__amount__sum__7d"] == 15.0
    again = defs.push("spend")
    assert (again.written, again.deleted, again.full) == (0, 0, False)
    online.close()


def test_something_else_at_the_list_of_features_is_replaced(
    store: RedisStore, empty_cluster: Cluster
) -> None:
    empty_cluster.ask_owner("mlforge:_features", "SET", "mlforge:_features", "x")
    with pytest.raises(OnlineError, match="holds no list of features"):
        store.features()
    push(store, OLD, 1)
    assert store.features() == ["spend"]


def test_a_row_that_is_something_else_is_no_missing_row(
    store: RedisStore, empty_cluster: Cluster
) -> None:
    push(store, OLD, 1)
    owner = empty_cluster.owner(row_key(1))
    empty_cluster.ask(owner, "DEL", row_key(1))
    empty_cluster.ask(owner, "HSET", row_key(1), "a", "b")
    with pytest.raises(
        OnlineError, match=r"row of {'user_id': 1} at mlforge:{spend:\d+}:.* a hash"
    ):
        store.read("spend", {"user_id": 1})
    with pytest.raises(
        OnlineError, match=r"row of {'user_id': 1} at mlforge:{spend:\d+}:.* a hash"
    ):
        asyncio.run(aget_online_features(["spend"], entities(1), store))


def full_push(store: RedisStore, target: Target, amount: float, *users: int) -> Iterator[None]:
    """The steps of a push that writes all rows; another may begin between any two."""
    store.begin("spend", target)
    yield
    for user in users:
        store.put("spend", target, frame(user, amount=amount), ["user_id"])
        yield
    store.finish("spend", target, books(len(users)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_pushers_and_a_moving_slot_never_make_a_reader_see_a_wrong_value(
    seed: int, empty_cluster: Cluster
) -> None:
    """A slot comes and goes between steps; what a step asks of a slot that is split is asked once it has arrived."""
    random, store = Random(seed), RedisStore.from_url(empty_cluster.url)
    users, generation = (1, 2, 3), 0
    pushes: list[Iterator[None]] = []
    amounts: dict[Target, float] = {}
    for step in range(60):
        if step % 9 == 0:
            move = SlotMove(empty_cluster, row_key(random.choice(users)))
            move.begin()
            move.end()
        if len(pushes) < 2:
            generation += random.random() < 0.7
            target = Target("1.0.0", max(generation, 1), None)
            amounts[target] = float(target.generation)
            pushes.append(full_push(store, target, amounts[target], *users))
        at = random.randrange(len(pushes))
        try:
            next(pushes[at])
        except (StalePush, StopIteration):
            pushes.pop(at)
        [(told, found)] = store.fetch([("spend", entities(*users))])
        if told is None or told.target is None:
            continue
        right = {amounts[target] for target in (told.target, *told.pending)}
        assert {row and row["amount__sum__7d"] for row in found} <= right
    store.close()
    empty_cluster.wait()


def test_a_user_with_the_rights_that_are_told_pushes_reads_and_drops(
    empty_cluster: Cluster,
) -> None:
    told = ("+cluster|slots", "+command", "+asking", "+info", "+scan")
    of_one_server = ("+@read", "+@write", "+@scripting", "+@transaction", "-@dangerous", "+ping")
    rights = ("on", ">secret", "~mlforge*", "-@all", *of_one_server, *told)
    numbers = range(len(empty_cluster.ports))
    for number in numbers:
        empty_cluster.ask(number, "ACL", "SETUSER", "few", *rights)
    store = RedisStore.from_url(empty_cluster.url.replace("//", "//few:secret@", 1))
    try:
        push(store, OLD, 1, 2)
        assert store.rows_by_feature(["spend"]) == {"spend": 2}
        assert store.read("spend", {"user_id": 1}) is not None
        assert store.read("spend", {"user_id": 3}) is None
        assert store.evidence() is not None
        assert store.drop("spend") == 2
    finally:
        store.close()
        for number in numbers:
            empty_cluster.ask(number, "ACL", "DELUSER", "few")
