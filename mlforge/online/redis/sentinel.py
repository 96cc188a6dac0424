"""A Redis server that Sentinel watches: the master, whichever it is now, asked for whenever a connection is opened."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.utils import str_if_bytes

from mlforge.errors import DefinitionError, OnlineUnavailable
from mlforge.online.addresses import single_urls
from mlforge.online.redis.client import Server, hash_of, place_of, url_options

SCHEMES = ("redis+sentinel", "rediss+sentinel")
_PORT = 26_379
_OWN = ("sentinel_username", "sentinel_password")
_ANSWER_S = 1.0
LOOK_EVERY_S, _LOOK_SHARE = 1.0, 20
"""How often sentinels are asked where the master is, although connections to it are open; the pause also in times of their answer's."""
_WORKS = (
    "RedisStore.from_url: this is no URL of sentinels; write redis+sentinel://[[user]:password@]host1:26379,host2:26379/"
    "master_name/db with the password percent-encoded"
)


def server_at(url: Any) -> Server:
    """The server at a URL, through Sentinel where the URL's scheme says so; DefinitionError for what is none."""
    if isinstance(url, str) and url.partition("://")[0] in SCHEMES:
        return SentinelServer.from_url(url)
    return Server.from_url(url)


class SentinelServer(Server):
    """The master that sentinels name. After a failover connections break, and the next ones go to the new master.

    A server that was the master and is not told so yet, or cannot be, breaks none: sentinels are asked again while connections are in use.
    """

    def __init__(
        self,
        master: str,
        sentinels: Sequence[tuple[str, int]],
        options: Mapping[str, Any],
        own: Mapping[str, Any],
    ) -> None:
        """master: its name. options: redis-py's, for connections to it. own: user, password and TLS of connections to the sentinels themselves."""
        watching = ",".join(f"{host}:{port}" for host, port in sentinels)
        self._name, self._sentinels = master, _Sentinels(sentinels, own)
        super().__init__(options)
        self.options_hash = hash_of(
            SentinelServer, {"options": self.options_hash, "master": master, "at": watching}
        )
        self.host = sentinels[0][0]
        self.name = f"redis master {master!r} of sentinels at {watching}"

    @classmethod
    def from_url(cls, url: str) -> SentinelServer:
        """The master of `redis+sentinel://host1:port,host2/name/db`, or over TLS of `rediss+sentinel://...`."""
        scheme = url.partition("://")[0]
        places: list[tuple[str, int]] = []
        options: dict[str, Any] = {}
        master = ""
        try:
            for one in single_urls(url):
                parts = urlsplit(one)
                if "@" in parts.path:
                    raise ValueError("a password with a slash: its start passes for the host")
                master, _, db = parts.path.strip("/").partition("/")
                plain = scheme.removesuffix("+sentinel"), parts.netloc, f"/{db}", parts.query, ""
                options = url_options(urlunsplit(plain))
                places.append((str(options["host"]), parts.port or _PORT))
        except ValueError:
            raise DefinitionError(_WORKS) from None
        if not master or not all(host for host, _ in places):
            raise DefinitionError(_WORKS)
        own: dict[str, Any] = {
            name.partition("_")[2]: options.pop(name) for name in _OWN if name in options
        }
        if scheme.startswith("rediss"):
            own |= {"ssl": True, **{k: v for k, v in options.items() if k.startswith("ssl_")}}
        return cls(unquote(master), places, {k: v for k, v in options.items() if k != "port"}, own)

    def exchange(self, commands: bytes, replies: int, raw: bool = False) -> list[Any]:
        """As of any server, after a look at where it is, if that is due."""
        if self._master.is_due():
            self._master.look()
        return super().exchange(commands, replies, raw)

    async def exchange_async(self, commands: bytes, replies: int, raw: bool = False) -> list[Any]:
        """As of any server; a look that is due goes on beside it, and counts for the next."""
        if self._master.is_due():
            asyncio.get_running_loop().run_in_executor(None, self._master.look)
        return await super().exchange_async(commands, replies, raw)

    @contextmanager
    def staying(self, what: str) -> Iterator[None]:
        """A block that ends with OnlineUnavailable where the sentinels name another master than before; what: its work, in words."""
        before = self._master.known or self._master.look()
        yield
        after = self._master.look()
        if after != before:
            raise OnlineUnavailable(
                f"{what} went to {_text(before)}, and {self.name} is at {_text(after)} now, which may lack that: do it again"
            )

    def _pool(self, kind: type[Any], options: Mapping[str, Any]) -> redis.ConnectionPool:
        others = {name: value for name, value in options.items() if name not in ("host", "port")}
        is_tls = kind is redis.SSLConnection
        pool = SentinelConnectionPool(self._name, self._sentinels, ssl=is_tls, **others)  # type: ignore[no-untyped-call]
        self.whereabouts = self._master = _Master(pool)
        return pool

    def _meant(self, error: Exception) -> Exception:
        if isinstance(error, MasterNotFoundError):
            return OnlineUnavailable(f"{self.name} is not to be found: {error}")
        return super()._meant(error)


class _Master:
    """The whereabouts of a pool's master. Whoever asks closes idle connections to where it was."""

    def __init__(self, pool: SentinelConnectionPool) -> None:
        self._pool, self._due_s = pool, 0.0

    @property
    def known(self) -> tuple[str, int] | None:
        """Host and port as sentinels told them last; None where none was asked yet."""
        address: tuple[str, int] | None = self._pool.master_address
        return address

    def is_due(self) -> bool:
        """Whether sentinels are to be asked again; only one of several callers is told so."""
        now = time.monotonic()
        if self.known is None or now < self._due_s:
            return False
        self._due_s = now + LOOK_EVERY_S
        return True

    def ask(self) -> tuple[str, int]:
        """Host and port as sentinels tell them now. Blocks; raises redis-py's errors."""
        address: tuple[str, int] = self._pool.get_master_address()  # type: ignore[no-untyped-call]
        return address

    def look(self) -> tuple[str, int] | None:
        """As `ask`; what is known where no sentinel answers, which is then asked less often."""
        began = time.monotonic()
        with suppress(redis.RedisError):
            self.ask()
        ended = time.monotonic()
        self._due_s = ended + max(LOOK_EVERY_S, _LOOK_SHARE * (ended - began))
        return self.known


class _Sentinels(Sentinel):
    """The sentinels. own: options of connections to them."""

    def __init__(self, places: Sequence[tuple[str, int]], own: Mapping[str, Any]) -> None:
        timeouts = {"socket_timeout": _ANSWER_S, "socket_connect_timeout": _ANSWER_S}
        once = Retry(NoBackoff(), 1)  # the others are there for one that is not
        super().__init__(list(places), sentinel_kwargs={**timeouts, "retry": once, **own})  # type: ignore[no-untyped-call]

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Host and port of the master as the first sentinel tells them that knows; MasterNotFoundError says what each said instead."""
        said = []
        for sentinel in list(self.sentinels):
            at = place_of(sentinel.get_connection_kwargs())
            try:
                masters: Any = sentinel.sentinel_masters()
                # Amid a failover it names the new master at once, which the state follows a moment later.
                named: Any = sentinel.sentinel_get_master_addr_by_name(service_name)
            except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
                said.append(
                    f"{at} refuses the user or password of ?sentinel_username=...&sentinel_password=... ({error})"
                )
            except redis.RedisError as error:
                said.append(f"{at} does not answer ({error})")
            else:
                state = masters.get(service_name)
                if state is None or named is None:
                    said.append(f"{at} watches no {service_name!r}")
                    continue
                host, port = str_if_bytes(named[0]), named[1]
                has_moved = (host, port) != (state["ip"], state["port"])
                if has_moved or self.check_master_state(state, service_name):  # type: ignore[no-untyped-call]
                    # A new list: another thread may be going through this one.
                    self.sentinels = sorted(self.sentinels, key=lambda each: each is not sentinel)
                    return host, port
                said.append(f"{at} says that it is down")
        raise MasterNotFoundError("; ".join(said))


def _text(address: tuple[str, int] | None) -> str:
    return "an unknown place" if address is None else f"{address[0]}:{address[1]}"
