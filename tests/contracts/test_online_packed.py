"""Packed rows on Redis: the contract, and what lies in the server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest
import redis

from mlforge import aget_online_features, get_online_features
from mlforge.core.schema import Column
from mlforge.errors import BooksDamaged, NotServed, OnlineError, StalePush
from mlforge.frames.encoding import key_hash
from mlforge.online import OnlineStore, RedisStore, Target
from mlforge.online.staleness import behind
from mlforge.testing.online_contract import OnlineStoreContract
from mlforge.testing.online_values import NEW, OLD, books, entities, frame, push
from tests.support.projects import Project, rows

DIRECTORY = "mlforge:spend:~"


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisStore]:
    store = RedisStore.from_url(redis_url, layout="packed")
    yield store
    store.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.mark.slow
class TestPackedRedisStore(OnlineStoreContract):
    @pytest.fixture
    def store(self, redis_url: str) -> Iterator[OnlineStore]:
        store = RedisStore.from_url(redis_url, layout="packed")
        yield store
        store.close()


@pytest.mark.slow
class TestPackedRedisStoreWithTtl(OnlineStoreContract):
    @pytest.fixture
    def store(self, redis_url: str) -> Iterator[OnlineStore]:
        store = RedisStore.from_url(redis_url, ttl=7 * 86_400, prefix="team:ml", layout="packed")
        yield store
        store.close()


def six(users: int) -> pl.DataFrame:
    return pl.DataFrame({"user_id": range(users)}).with_columns(
        (pl.col("user_id") * 1.7 + n).alias(f"c{n}") for n in range(6)
    )


def test_a_row_of_six_values_takes_less_than_100_bytes(
    store: RedisStore, client: redis.Redis
) -> None:
    store.begin("spend", OLD)
    store.put("spend", OLD, six(20_000), ["user_id"])
    keys = client.keys("*")
    assert sum(client.memory_usage(key, samples=0) for key in keys) < 100 * 20_000
    assert len(keys) < 2_000


def test_buckets_grow_with_the_rows_and_every_row_is_found(
    store: RedisStore, client: redis.Redis
) -> None:
    store.begin("spend", OLD)
    for start in range(0, 12_000, 1_500):
        store.put("spend", OLD, frame(*range(start, start + 1_500)), ["user_id"])
        assert None not in store.read_batch("spend", entities(*range(0, start + 1_500, 7)))
    sizes = [client.hlen(key) for key in client.keys(f"{DIRECTORY}?*")]
    assert sum(sizes) == 12_000
    assert len(sizes) == int(client.hget(DIRECTORY, "buckets"))
    assert max(sizes) < 250
    assert store.remove("spend", OLD, frame(*range(0, 12_000, 2)), ["user_id"]) == 6_000
    assert store.renew("spend", OLD) == 6_000


def test_rows_and_their_buckets_live_a_ttl(redis_url: str, client: redis.Redis) -> None:
    mortal = RedisStore.from_url(redis_url, ttl=1_000, layout="packed")
    push(mortal, OLD, *range(1_000))
    keys = client.keys(f"{DIRECTORY}*")
    assert len(keys) > 2
    assert all(990 < client.ttl(key) <= 1_000 for key in keys)
    for key in keys:
        client.expire(key, 5)
    assert mortal.renew("spend", OLD) == 1_000
    assert all(client.ttl(key) > 990 for key in keys)
    forever = RedisStore.from_url(redis_url, layout="packed")
    assert forever.renew("spend", OLD) == 1_000
    assert all(client.ttl(key) == -1 for key in keys)
    mortal.close()
    forever.close()


def test_single_rows_shorten_the_life_of_no_others(redis_url: str, client: redis.Redis) -> None:
    mortal = RedisStore.from_url(redis_url, ttl=1_000, layout="packed")
    brief = RedisStore.from_url(redis_url, ttl=10, layout="packed")
    push(mortal, OLD, *range(20))
    keys = client.keys("mlforge:spend*")
    brief.write("spend", {"user_id": 1}, {"amount__sum__7d": 1.5, "n": 1})
    assert all(client.ttl(key) > 400 for key in keys)
    brief.write("other", {"user_id": 1}, {"n": 1})
    assert all(0 < client.ttl(key) <= 10 for key in client.keys("mlforge:other*"))
    mortal.write("other", {"user_id": 1}, {"n": 1})
    assert all(client.ttl(key) > 900 for key in client.keys("mlforge:other*"))
    mortal.close()
    brief.close()


@pytest.mark.parametrize("layout", ["json", "packed"])
def test_books_go_before_the_rows_of_a_push_that_ended_early(
    redis_url: str, client: redis.Redis, layout: str
) -> None:
    for ttl in (1_000, None):
        client.flushdb()
        before = RedisStore.from_url(redis_url, ttl=ttl, layout=layout)
        brief = RedisStore.from_url(redis_url, ttl=10, layout=layout)
        push(before, OLD, 1, 2)
        brief.begin("spend", NEW)
        assert not 0 < client.pttl("mlforge:spend") <= 5_000
        brief.put("spend", NEW, frame(1), ["user_id"])
        assert 0 < client.pttl("mlforge:spend") <= 5_000
        before.close()
        brief.close()


def full_push(store: RedisStore, target: Target, amount: float, *users: int) -> Iterator[None]:
    """The steps of a push that writes all rows; another may begin between any two."""
    store.begin("spend", target)
    yield
    unwritten = store.list_digests("spend")
    yield
    for user in users:
        store.put("spend", target, frame(user, amount=amount), ["user_id"], unwritten)
        yield
    store.remove_rows("spend", target, unwritten)
    yield
    store.finish("spend", target, books(len(users)))


def run(steps: Iterator[None]) -> None:
    for _ in steps:
        pass


def rows_on(client: redis.Redis) -> tuple[int, int]:
    """The number of rows of each layout on the server, JSON first."""
    return len(client.keys("mlforge:spend:" + "?" * 64)), sum(
        client.hlen(key) for key in client.keys(f"{DIRECTORY}?*")
    )


def test_rows_move_to_the_other_layout_and_back_and_readers_of_either_follow(
    redis_url: str, store: RedisStore, client: redis.Redis
) -> None:
    json = RedisStore.from_url(redis_url)
    for number, (mine, lying) in enumerate(((json, (3, 0)), (store, (0, 3)), (json, (3, 0)))):
        target = Target("1.0.0", 1 + number, None)
        steps = full_push(mine, target, float(number), 1, 2, 3)
        next(steps)
        for reader in (json, store):
            told = reader.books("spend")
            assert told is not None
            assert (told.target, told.pending) == (None, (target,)), "nothing is promised"
            with pytest.raises(NotServed):
                get_online_features(["spend"], entities(1), reader)
        run(steps)
        for reader in (json, store, RedisStore.from_url(redis_url, layout=store.layout)):
            answers = get_online_features(["spend"], entities(1, 3), reader)
            assert [answer["spend__amount__sum__7d"] for answer in answers] == [float(number)] * 2
            [(_, [row, none])] = reader.fetch([("spend", entities(2, 9))])
            assert (row and row["amount__sum__7d"], none) == (float(number), None)
        assert rows_on(client) == lying
    assert store.drop("spend") == 3
    assert client.keys("*") == []


def test_features_of_both_layouts_are_read_together(redis_url: str, store: RedisStore) -> None:
    json = RedisStore.from_url(redis_url)
    push(json, OLD, 1, feature="a")
    push(store, OLD, 1, feature="b")
    for reader in (json, store):
        answers = reader.fetch([("a", entities(1)), ("b", entities(1)), ("none", entities(1))])
        row = {"amount__sum__7d": 1.5, "n": 1}
        assert [rows for _, rows in answers] == [[row], [row], [None]]
        assert [books and books.layout for books, _ in answers] == ["json", "packed", None]


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 15))]
)
def test_pushers_of_both_layouts_by_turns_never_make_a_reader_see_a_wrong_value(
    seed: int, redis_url: str, store: RedisStore
) -> None:
    random, json = Random(seed), RedisStore.from_url(redis_url)
    users, generation = (1, 2, 3), 0
    pushes: list[Iterator[None]] = []
    amounts: dict[Target, float] = {}
    for _ in range(120):
        if len(pushes) < 2:
            generation += random.random() < 0.7
            target = Target("1.0.0", max(generation, 1), None)
            amounts[target] = float(target.generation)
            pushes.append(full_push(random.choice((json, store)), target, amounts[target], *users))
        at = random.randrange(len(pushes))
        try:
            next(pushes[at])
        except (StalePush, StopIteration):
            pushes.pop(at)
        reader = random.choice((json, store))
        [(told, rows)] = reader.fetch([("spend", entities(*users))])
        if told is None or told.target is None:
            continue
        right = {amounts[target] for target in (told.target, *told.pending)}
        assert {row and row["amount__sum__7d"] for row in rows} <= right
    json.close()


def test_a_release_that_knows_no_layouts_reads_no_packed_row_as_its_own(
    redis_url: str, store: RedisStore, client: redis.Redis
) -> None:
    """It sets the format of the books that it pushes to whatever they had."""
    push(store, OLD, 1)
    client.hset("mlforge:spend", "format", "1")
    json = RedisStore.from_url(redis_url)
    for reader in (json, store):
        with pytest.raises(BooksDamaged, match="delete it and the next push makes it anew"):
            reader.read("spend", {"user_id": 1})
    json.forget("spend")
    run(full_push(json, NEW, 4.0, 1))
    assert json.read("spend", {"user_id": 1}) == {"amount__sum__7d": 4.0, "n": 1}


def test_books_of_json_rows_have_the_fields_that_they_always_had(
    redis_url: str, client: redis.Redis
) -> None:
    json = RedisStore.from_url(redis_url)
    push(json, OLD, 1)
    fields = {
        name.decode(): text.decode() for name, text in client.hgetall("mlforge:spend").items()
    }
    assert (fields["format"], fields["version"]) == ("1", OLD.version)
    assert sorted(fields) == sorted(
        [
            "as_of",
            "columns",
            "content",
            "derive",
            "empty",
            "fence",
            "format",
            "generation",
            "keys",
            "losses",
            "meaning",
            "pending",
            "pushed_at",
            "renewed_at",
            "rows",
            "store",
            "ttl",
            "version",
        ]
    )


def test_a_write_of_single_rows_into_the_other_layout_is_refused(
    redis_url: str, store: RedisStore
) -> None:
    push(store, OLD, 1)
    json = RedisStore.from_url(redis_url)
    for call in (
        lambda: json.write("spend", {"user_id": 2}, {"n": 2}),
        lambda: json.delete("spend", {"user_id": 1}),
    ):
        with pytest.raises(OnlineError, match="layout 'packed'; give the store that layout"):
            call()
    assert store.delete("spend", {"user_id": 1}) is True


@pytest.mark.slow
def test_a_large_put_fills_buckets_alike_whatever_was_there(
    store: RedisStore, client: redis.Redis
) -> None:
    store.begin("spend", OLD)
    for users in (range(300), range(30_000), range(15_000, 45_000)):
        store.put("spend", OLD, frame(*users), ["user_id"])
        sizes = [client.hlen(key) for key in client.keys(f"{DIRECTORY}?*")]
        assert max(sizes) < 250
        assert sum(sizes) == max(users) + 1
    assert None not in store.read_batch("spend", entities(*range(0, 45_000, 97)))


def test_columns_that_a_push_adds_or_takes_are_read_while_it_is_under_way(
    store: RedisStore,
) -> None:
    push(store, OLD, 1, 2)
    store.begin("spend", NEW)
    store.put("spend", NEW, frame(2).with_columns(more=pl.lit("x")), ["user_id"])
    old = {"amount__sum__7d": 1.5, "n": 1}
    assert store.read_batch("spend", entities(1, 2)) == [old, {**old, "more": "x"}]


def test_another_process_reads_what_it_never_wrote(redis_url: str, store: RedisStore) -> None:
    push(store, OLD, 1)
    other = RedisStore.from_url(redis_url, layout="packed")
    assert other.read("spend", {"user_id": 1}) == {"amount__sum__7d": 1.5, "n": 1}
    other.close()


def test_packed_rows_are_read_by_an_event_loop(redis_url: str, store: RedisStore) -> None:
    push(store, OLD, 1)
    other = RedisStore.from_url(redis_url, layout="packed")
    [answer] = asyncio.run(aget_online_features(["spend"], entities(1), other))
    assert answer == {"user_id": 1, "spend__amount__sum__7d": 1.5, "spend__n": 1}


def test_reads_that_meet_a_move_together_take_no_row_for_missing(
    redis_url: str, store: RedisStore
) -> None:
    json_rows = RedisStore.from_url(redis_url)
    push(json_rows, OLD, 1)

    async def read(reader: RedisStore) -> list[int]:
        values = [aget_online_features(["spend"], entities(1), reader) for _ in range(20)]
        return [row["spend__n"] for [row] in await asyncio.gather(*values)]

    async def read_before_and_after() -> list[int]:
        reader = RedisStore.from_url(redis_url)
        before = await read(reader)
        push(store, NEW, 1)
        store.list_digests("spend")  # which sweeps the rows of before away
        return before + await read(reader)

    assert asyncio.run(read_before_and_after()) == [1] * 40
    json_rows.close()


@pytest.mark.parametrize("asks", ["ask", "ask_async"])
def test_a_first_read_that_meets_a_move_reads_again_and_finds_no_damage(
    redis_url: str, store: RedisStore, asks: str
) -> None:
    push(store, OLD, 1)
    json_rows, reader = RedisStore.from_url(redis_url), RedisStore.from_url(redis_url)
    moved: list[int] = []
    ask = getattr(reader._server, asks)

    def moved_meanwhile(*given: Any) -> Any:
        if b"schema:" in given[0]:  # the rows are here, what names their columns is not
            moved.append(1)
            push(json_rows, NEW, 1)
            json_rows.list_digests("spend")  # which sweeps the packed rows away
        return ask(*given)

    setattr(reader._server, asks, moved_meanwhile)
    if asks == "ask":
        answers = get_online_features(["spend"], entities(1), reader)
    else:
        answers = asyncio.run(aget_online_features(["spend"], entities(1), reader))
    assert [answer["spend__amount__sum__7d"] for answer in answers] == [1.5]
    assert moved == [1]
    json_rows.close()


def test_a_lost_directory_loses_all_rows_and_the_next_full_push_clears_them_away(
    store: RedisStore, client: redis.Redis
) -> None:
    push(store, OLD, *range(500))
    before = set(client.keys(f"{DIRECTORY}?*"))
    client.delete(DIRECTORY)
    assert store.read_batch("spend", entities(1, 2)) == [None, None]
    assert store.rows_by_feature(["spend"]) == {"spend": 0}
    store.begin("spend", NEW)
    store.put("spend", NEW, frame(1), ["user_id"])
    assert store.read_batch("spend", entities(1, 2)) == [{"amount__sum__7d": 1.5, "n": 1}, None]
    assert before <= set(client.keys(f"{DIRECTORY}?*"))
    assert len(store.list_digests("spend")) == 1
    assert before.isdisjoint(client.keys(f"{DIRECTORY}?*"))


def test_rows_are_counted_without_a_write(store: RedisStore, client: redis.Redis) -> None:
    push(store, OLD, 1, 2)
    before = f"{DIRECTORY}deadbeef:0"
    client.hset(before, b"x" * 16, b"y")
    assert store.count_other_rows("spend", [key_hash({"user_id": 1})]) == 1
    assert client.exists(before)
    assert len(store.list_digests("spend")) == 2
    assert not client.exists(before)


def test_dropped_rows_leave_nothing_of_any_epoch(store: RedisStore, client: redis.Redis) -> None:
    push(store, OLD, *range(500))
    client.delete(DIRECTORY)
    push(store, OLD, *range(300))
    assert store.drop("spend") == 300
    assert client.keys("*") == []


@pytest.mark.parametrize("row", [b"", b"\x01abcd", b"\x02", b"{", b"\xff" * 60])
def test_a_damaged_row_is_an_error_that_names_it(
    store: RedisStore, client: redis.Redis, row: bytes
) -> None:
    push(store, OLD, 1)
    [bucket] = client.keys(f"{DIRECTORY}?*")
    [field] = client.hkeys(bucket)
    assert field == bytes.fromhex(key_hash({"user_id": 1}))[:16]
    client.hset(bucket, field, row)
    with pytest.raises(
        OnlineError, match=r"spend: the row of {'user_id': 1} at mlforge:spend.* is damaged"
    ):
        store.read("spend", {"user_id": 1})
    assert store.ping()


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b'[["a","Int64"]]', b"[" * 100_000])
def test_a_damaged_schema_is_an_error_that_names_the_row(
    redis_url: str, store: RedisStore, client: redis.Redis, text: bytes
) -> None:
    push(store, OLD, 1)
    [field] = [name for name in client.hkeys(DIRECTORY) if name.startswith(b"schema:")]
    client.hset(DIRECTORY, field, text)
    other = RedisStore.from_url(redis_url, layout="packed")
    with pytest.raises(OnlineError, match=r"spend: the row of {'user_id': 1} .* is damaged"):
        other.read("spend", {"user_id": 1})
    other.close()


@pytest.mark.parametrize("buckets", ["many", "0", "-1", "1.5", ""])
def test_a_damaged_number_of_buckets_is_an_error(
    store: RedisStore, client: redis.Redis, buckets: str
) -> None:
    push(store, OLD, 1)
    client.hset(DIRECTORY, "buckets", buckets)
    for call in (
        lambda: store.read("spend", {"user_id": 1}),
        lambda: store.put("spend", OLD, frame(1), ["user_id"]),
        lambda: store.renew("spend", OLD),
        lambda: store.list_digests("spend"),
    ):
        with pytest.raises(OnlineError, match="number of buckets"):
            call()


def test_values_that_the_books_type_are_read_as_training_gives_them(store: RedisStore) -> None:
    values = pl.DataFrame({"user_id": [1], "day": [pl.date(2024, 1, 2)]}, strict=False).select(
        "user_id", pl.date(2024, 1, 2).alias("day")
    )
    store.begin("spend", OLD)
    store.put("spend", OLD, values, ["user_id"])
    assert store.read("spend", {"user_id": 1}) == {"day": "2024-01-02"}
    typed = replace(books(1), columns=(Column("day", "Date"),), empty={"day": None})
    store.finish("spend", OLD, typed)
    assert str(store.read("spend", {"user_id": 1})) == "{'day': datetime.date(2024, 1, 2)}"


def test_definitions_with_another_layout_push_all_rows_anew(
    redis_url: str, store: RedisStore, client: redis.Redis, tmp_path: Path
) -> None:
    project = Project(tmp_path / "p")
    project.drop("one", rows((1, 0, 10.0), (2, 1, 1.0)))
    json = project.definitions(online_store=RedisStore.from_url(redis_url))
    packed = project.definitions(online_store=store)
    json.build(online=True)
    versions = json.store.versions("spend")
    assert behind(json.store, json.online_store, "spend") is None
    assert behind(json.store, store, "spend") == "its rows online lie in the layout 'json'"
    before = get_online_features(["spend"], entities(1, 2, 3), store)
    pushed = packed.push("spend")
    assert (pushed.full, pushed.written) == (True, 2)
    assert packed.store.versions("spend") == versions
    assert behind(json.store, store, "spend") is None
    assert rows_on(client) == (0, 2)
    for reader in (json.online_store, store):
        assert get_online_features(["spend"], entities(1, 2, 3), reader) == before
    again = packed.push("spend")
    assert (again.written, again.deleted, again.full) == (0, 0, False)
