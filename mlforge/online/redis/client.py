"""A Redis server: its address, sending it commands, and the meaning of its refusals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from mlforge.errors import (
    DefinitionError,
    MissingExtra,
    OnlineError,
    OnlineRefused,
    OnlineUnavailable,
)
from mlforge.online.books import Evidence
from mlforge.online.redis import resp

try:
    import redis
    from redis.backoff import ExponentialBackoff
    from redis.connection import parse_url
    from redis.retry import Retry
except ImportError:
    raise MissingExtra.of("RedisStore", "redis") from None

from mlforge.online.redis.async_connections import AsyncConnections

_CLUSTER = (
    "is a Redis Cluster ({error}), which is not supported yet: a feature's rows and books must lie on one server. "
    "Give RedisStore a server that is not part of a cluster; replicas of it, for failover, are fine"
)
# Kinds of refusal, the first that fits; `{error}` is the server's own words.
_REFUSALS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    (
        (redis.AuthenticationError, redis.exceptions.NoPermissionError),
        "refused the user or password ({error}); give RedisStore the right ones",
    ),
    (
        (
            redis.exceptions.MovedError,
            redis.exceptions.AskError,
            redis.exceptions.ClusterCrossSlotError,
            redis.exceptions.ClusterDownError,
        ),
        _CLUSTER,
    ),
    ((redis.ReadOnlyError,), "is a read-only replica; give RedisStore the primary's address"),
    ((redis.OutOfMemoryError,), "is out of memory; raise its maxmemory, or lower the ttl"),
)
_REFUSAL_CODES = {
    "MISCONF": "answers, but refuses writes until it can save to its disk ({error}); see to its disk and its log",
    "NOREPLICAS": "answers, but refuses writes for want of replicas ({error}); see to its replicas",
    "MASTERDOWN": "is a replica that has lost its primary ({error}); give RedisStore the primary's address",
    "CROSSSLOT": _CLUSTER,
    "CLUSTERDOWN": _CLUSTER,
    "MOVED": _CLUSTER,
}
_TIMEOUT_S = 5.0
_RETRIES = 2
_IN_FLIGHT = 16
_INFO = resp.command("INFO", "server") + resp.command("INFO", "stats")


class Refused(OnlineRefused):
    """The server's own words, where they have no wording of ours."""

    def __init__(self, server: Server, reply: str) -> None:
        self.reply = reply
        super().__init__(f"{server} refused: {reply}")


class Server:
    """A client that raises mlforge's errors; it connects at first use, and again after a fork."""

    def __init__(self, options: dict[str, Any]) -> None:
        """From redis-py's connection options; unknown ones raise DefinitionError."""
        options = {"socket_timeout": _TIMEOUT_S, "socket_connect_timeout": _TIMEOUT_S, **options}
        kind = options.pop("connection_class", redis.Connection)
        if "path" not in options:
            options = {"host": "localhost", "port": 6379, **options}
        options |= {
            "decode_responses": True,
            # Bytes that are not UTF-8 are reported by the reader: an error here would leave replies unread.
            "encoding_errors": "surrogateescape",
            "protocol": 2,
        }
        backoff = ExponentialBackoff(cap=0.5, base=0.05)
        retry = Retry(backoff, _RETRIES)
        try:
            kind(**options, retry=retry)
        except (TypeError, ValueError, redis.RedisError) as error:
            raise DefinitionError(f"RedisStore: {error}") from None
        place = options.get("path") or f"{options['host']}:{options['port']}"
        plain = {k: v for k, v in options.items() if isinstance(v, (str, int, float, bool))}
        described = json.dumps([kind.__qualname__, plain], sort_keys=True)
        self.options_hash = hashlib.sha256(described.encode()).hexdigest()
        self.host = str(options.get("host", "localhost"))
        self.name = f"redis at {place}/{options.get('db', 0)}"
        self.client = redis.Redis.from_pool(
            redis.ConnectionPool(connection_class=kind, **options, retry=retry)
        )
        self._async = AsyncConnections(kind.__name__, options, backoff, _RETRIES)

    @classmethod
    def of(cls, ssl: bool, **options: object) -> Server:
        """The server of these connection options, over TLS if asked."""
        kind = redis.SSLConnection if ssl else redis.Connection
        return cls({"connection_class": kind, **options})

    @classmethod
    def from_url(cls, url: str) -> Server:
        """The server at `redis://`, `rediss://` or `unix://`, with redis-py's options in the query."""
        try:
            options = parse_url(url)  # type: ignore[no-untyped-call]
            if "path" not in options and "@" in urlsplit(url).path:
                raise ValueError("a password with a slash: its start passes for the host and port")
        except (ValueError, AttributeError, TypeError):
            # The cause may quote a part of the password.
            raise DefinitionError(
                "RedisStore.from_url: this is no Redis URL; write "
                "redis://[[user]:password@]host:port/db with the password percent-encoded"
            ) from None
        return cls(options)

    def __str__(self) -> str:
        return self.name

    @contextmanager
    def asking(self) -> Iterator[redis.Redis]:
        """The client, with what it raises turned into OnlineError and its kinds."""
        try:
            yield self.client
        except redis.RedisError as error:
            raise self._meant(error) from error

    def evidence(self) -> Evidence | None:
        """The server's run id and count of evicted keys; None if it does not report them."""
        try:
            return _evidence(self.ask(_INFO, 2))
        except OnlineUnavailable:
            raise
        except OnlineError:  # a user without the right to ask
            return None

    async def evidence_async(self) -> Evidence | None:
        """As `evidence`, on the connection of the running event loop."""
        try:
            return _evidence(await self.ask_async(_INFO, 2))
        except OnlineUnavailable:
            raise
        except OnlineError:
            return None

    def ask(self, commands: bytes, replies: int, raw: bool = False) -> list[Any]:
        """The replies to packed commands, all sent at once; sent again if the connection breaks.

        For idempotent commands only. raw: replies are bytes, not texts. An error reply is raised after all replies have arrived.
        """
        pool = self.client.connection_pool
        try:
            connection: Any = pool.get_connection()
            try:
                answers: list[Any] = connection.retry.call_with_retry(
                    lambda: _answers(connection, commands, replies, raw),
                    connection.disconnect,
                )
            finally:
                pool.release(connection)
        except redis.RedisError as error:
            raise self._meant(error) from error
        return self._all_granted(answers)

    async def ask_async(self, commands: bytes, replies: int, raw: bool = False) -> list[Any]:
        """As `ask`, on the connection of the running event loop."""
        try:
            answers = await self._async.ask(commands, replies, raw)
        except redis.RedisError as error:
            raise self._meant(error) from error
        return self._all_granted(answers)

    async def aclose(self) -> None:
        """Close the connection of the running event loop."""
        await self._async.close()

    def stream(self, calls: Iterable[bytes]) -> int:
        """Send packed commands, pipelined ahead of their replies; returns the sum of the integer replies."""
        total = ahead = 0
        with self.asking(), self._connection() as connection:
            for call in calls:
                connection.send_packed_command([call])
                ahead += 1
                if ahead > _IN_FLIGHT:
                    total += connection.read_response()
                    ahead -= 1
            for _ in range(ahead):
                total += connection.read_response()
        return total

    def granted(self, answer: Any) -> Any:
        """The reply, raised if it is a refusal."""
        if isinstance(answer, redis.ResponseError):
            raise self._meant(answer) from answer
        return answer

    def _all_granted(self, answers: list[Any]) -> list[Any]:
        for answer in answers:
            if isinstance(answer, redis.ResponseError):
                raise self._meant(answer) from answer
        return answers

    def _meant(self, error: redis.RedisError) -> Exception:
        """The mlforge error for a client error: OnlineRefused for a refusal, OnlineUnavailable for a server that does not answer."""
        for kinds, refusal in _REFUSALS:
            if isinstance(error, kinds):
                return OnlineRefused(f"{self} {refusal.format(error=error)}")
        if isinstance(error, redis.exceptions.InvalidResponse):
            return OnlineUnavailable(
                f"{self} answers, but not as Redis does ({error}); give RedisStore the host and port of a Redis, "
                "and ssl=True where it takes TLS alone"
            )
        if isinstance(error, redis.ConnectionError | redis.TimeoutError):
            return OnlineUnavailable(
                f"{self} does not answer ({error}); start a server there, or give RedisStore "
                "the host and port of a running one"
            )
        for code, refusal in _REFUSAL_CODES.items():
            if str(error).startswith(code):
                return OnlineRefused(f"{self} {refusal.format(error=error)}")
        if isinstance(error, redis.ResponseError):
            return Refused(self, str(error))
        return OnlineError(f"{self}: {type(error).__name__}: {error}")

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        pool = self.client.connection_pool
        connection: Any = pool.get_connection()
        try:
            yield connection
        except BaseException:
            connection.disconnect()  # replies may be under way
            raise
        finally:
            pool.release(connection)


def _evidence(replies: Sequence[str]) -> Evidence | None:
    """The run id and the count of evicted keys in the texts of INFO; None where they lack them."""
    lines = (line.partition(":") for reply in replies for line in reply.splitlines())
    facts = {name: value for name, _, value in lines}
    run, evicted = facts.get("run_id"), facts.get("evicted_keys")
    return None if run is None or evicted is None else Evidence(run, int(evicted))


def _answers(connection: Any, commands: bytes, replies: int, raw: bool) -> list[Any]:
    try:
        connection.send_packed_command([commands])
        answers: list[Any] = []
        for _ in range(replies):
            try:
                answers.append(connection.read_response(disable_decoding=raw))
            except redis.ResponseError as error:  # further replies may follow it
                answers.append(error)
    except BaseException:
        connection.disconnect()  # replies may be under way
        raise
    return answers
