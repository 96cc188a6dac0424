"""A Redis server that Sentinel watches: the master, whichever it is now, asked for whenever a connection is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import redis
from redis.sentinel import Sentinel, SentinelConnectionPool

from mlforge.errors import DefinitionError
from mlforge.online.addresses import single_urls
from mlforge.online.redis.client import Server, hash_of, url_options

SCHEMES = ("redis+sentinel", "rediss+sentinel")
_PORT = 26_379
_OWN = ("sentinel_username", "sentinel_password")
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
    """The master that sentinels name. After a failover connections break, and the next ones go to the new master."""

    def __init__(
        self,
        master: str,
        sentinels: Sequence[tuple[str, int]],
        options: Mapping[str, Any],
        own: Mapping[str, Any],
    ) -> None:
        """master: its name. options: redis-py's, for connections to it. own: user, password and TLS of connections to the sentinels themselves."""
        watching = ",".join(f"{host}:{port}" for host, port in sentinels)
        self._master = master
        self._sentinel = Sentinel(  # type: ignore[no-untyped-call]
            list(sentinels),
            sentinel_kwargs={"socket_timeout": 1.0, "socket_connect_timeout": 1.0, **own},
        )
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

    def _pool(self, kind: type[Any], options: Mapping[str, Any]) -> redis.ConnectionPool:
        others = {name: value for name, value in options.items() if name not in ("host", "port")}
        is_tls = kind is redis.SSLConnection
        return SentinelConnectionPool(self._master, self._sentinel, ssl=is_tls, **others)  # type: ignore[no-untyped-call]

    def _where(self) -> Mapping[str, Any]:
        host, port = self._sentinel.discover_master(self._master)  # type: ignore[no-untyped-call]
        return {"host": host, "port": port}
