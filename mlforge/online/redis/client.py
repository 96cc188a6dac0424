"""A Redis server: its address, and sending it commands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mlforge.errors import DefinitionError, MissingExtra, OnlineError, OnlineUnavailable
from mlforge.online.addresses import single_urls
from mlforge.online.books import Evidence
from mlforge.online.redis import resp
from mlforge.online.redis.evidence import INFO, REPLIES, evidence_of, facts_of, lacks_mark, marking
from mlforge.online.redis.own_files import rewrite_own_files
from mlforge.online.redis.server_errors import meant

try:
    import redis
    from redis.backoff import ExponentialBackoff
    from redis.connection import parse_url
    from redis.retry import Retry
except ImportError:
    raise MissingExtra.of("RedisStore", "redis") from None

from mlforge.online.redis.async_connections import AsyncConnections

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlforge.online.redis.async_connections import Whereabouts

_TIMEOUT_S = 5.0
_RETRIES = 2
_IN_FLIGHT = 16


class Server:
    """A client that raises mlforge's errors; it connects at first use, and again after a fork."""

    name: str
    host: str
    options_hash: str
    whereabouts: Whereabouts | None = None
    """Tells where the server is by now; None where the options alone say it."""
    writes_watched: bool
    """Whether rows may be written in transactions; False once the server lacked a command for it, or the right to one."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """From redis-py's connection options; unknown ones raise DefinitionError."""
        kind, options = connection_options(options)
        backoff = ExponentialBackoff(cap=0.5, base=0.05)
        self.options_hash = hash_of(kind, options)
        self.host = str(options.get("host", "localhost"))
        self.name = f"redis at {place_of(options)}/{options.get('db', 0)}"
        self.client = redis.Redis.from_pool(
            self._pool(kind, {**options, "retry": Retry(backoff, _RETRIES)})
        )
        self._async = AsyncConnections(kind.__name__, options, backoff, _RETRIES, self.whereabouts)
        self.writes_watched = True

    @classmethod
    def of(cls, ssl: bool, **options: object) -> Server:
        """The server of these connection options, over TLS if asked."""
        kind = redis.SSLConnection if ssl else redis.Connection
        return cls({"connection_class": kind, **options})

    @classmethod
    def from_url(cls, url: str) -> Server:
        """The server at `redis://`, `rediss://` or `unix://`, with redis-py's options in the query."""
        return cls(url_options(url))

    def __str__(self) -> str:
        return self.name

    def _pool(self, kind: type[Any], options: Mapping[str, Any]) -> redis.ConnectionPool:
        """The connections of threads, by the arguments of their class."""
        return redis.ConnectionPool(connection_class=kind, **options)

    def staying(self, what: str) -> AbstractContextManager[None]:
        """A block that ends with OnlineUnavailable where the server has become another one; what: its work, in words."""
        return nullcontext()

    @contextmanager
    def asking(self) -> Iterator[redis.Redis]:
        """The client, with what it raises turned into OnlineError and its kinds."""
        try:
            yield self.client
        except redis.RedisError as error:
            raise self._meant(error) from error

    def ping(self) -> bool:
        """True if the server answers; OnlineUnavailable if not."""
        with self.asking() as client:
            return bool(client.ping())

    def evidence(self, mark: bool = False) -> Evidence | None:
        """The server's run and history, and its count of evicted keys; None if it does not report them.

        mark: leave a mark on a server without one, so that it shows when its counts are set back.
        """
        try:
            facts = self.facts(mark)
        except OnlineUnavailable:
            raise
        except OnlineError:  # a user without the right to ask
            return None
        return evidence_of([facts])

    def rewrite_own_files(self) -> list[str]:
        """Have the server's append-only file and snapshot lose what was deleted; sentences where they may hold it still."""
        return rewrite_own_files(str(self), self.asking)

    async def evidence_async(self) -> Evidence | None:
        """As `evidence`, on the connection of the running event loop."""
        try:
            replies = await self.ask_async(INFO, REPLIES)
        except OnlineUnavailable:
            raise
        except OnlineError:
            return None
        return evidence_of([facts_of(replies)])

    def facts(self, mark: bool) -> dict[str, str]:
        """Facts that the server tells of itself; mark: as in `evidence`."""
        facts = facts_of(self.ask(INFO, REPLIES))
        if not mark or not lacks_mark(facts):
            return facts
        with self.asking():
            self.exchange(marking(), 1)  # answered with the error that is the mark, or a refusal
        return facts_of(self.ask(INFO, REPLIES))

    def ask(self, commands: bytes, replies: int, raw: bool = False) -> list[Any]:
        """The replies to packed commands, all sent at once; sent again if the connection breaks.

        For idempotent commands only. raw: replies are bytes, not texts. An error reply is raised after all replies have arrived.
        """
        try:
            answers = self.exchange(commands, replies, raw)
        except redis.RedisError as error:
            raise self._meant(error) from error
        return self._all_granted(answers)

    async def ask_async(self, commands: bytes, replies: int, raw: bool = False) -> list[Any]:
        """As `ask`, on the connection of the running event loop."""
        try:
            answers = await self.exchange_async(commands, replies, raw)
        except redis.RedisError as error:
            raise self._meant(error) from error
        return self._all_granted(answers)

    def exchange(self, commands: bytes, replies: int, raw: bool = False) -> list[Any]:
        """As `ask`, but that error replies are returned, and that it raises redis-py's errors."""
        pool = self.client.connection_pool
        connection: Any = pool.get_connection()
        try:
            answers: list[Any] = connection.retry.call_with_retry(
                lambda: _answers(connection, commands, replies, raw),
                connection.disconnect,
            )
            if any(isinstance(answer, redis.ReadOnlyError) for answer in answers):
                connection.disconnect()  # by now another server may have the name of this one
        finally:
            pool.release(connection)
        return answers

    async def exchange_async(self, commands: bytes, replies: int, raw: bool = False) -> list[Any]:
        """As `exchange`, on a connection of the running event loop."""
        return await self._async.ask(commands, replies, raw)

    async def aclose(self) -> None:
        """Close the connection of the running event loop."""
        await self._async.close()

    def close(self) -> None:
        """Close the connections of threads; the next call opens new ones."""
        self.client.close()

    def ask_about(self, key: str, *command: str) -> Any:
        """The reply to one command, on this key and such as lie where it does; as `ask`."""
        [reply] = self.ask(resp.command(*command), 1)
        return reply

    def evaluate(self, script: str, keys: Sequence[str], arguments: Sequence[str]) -> list[Any]:
        """The replies of a script to each of these keys alone; as `ask`."""
        calls = [resp.command("EVAL", script, "1", key, *arguments) for key in keys]
        return self.ask(b"".join(calls), len(calls))

    def begin(
        self, script: str, keys: Sequence[str], listed: str, arguments: Sequence[str]
    ) -> list[Any]:
        """As `evaluate` of the script that begins a push. listed: the key of the list of features, which it adds to."""
        [key] = keys
        return [self.ask_about(key, "EVAL", script, "2", key, listed, *arguments)]

    def scan(self, key: str, pattern: str, at_once: int) -> Iterator[list[str]]:
        """The keys of a pattern in chunks, none of them empty; each key at least once. key: where they lie."""
        cursor = 0
        while True:
            with self.asking() as client:
                cursor, keys = client.scan(cursor, match=pattern, count=at_once)
            if keys:
                yield [str(key) for key in keys]
            if cursor == 0:
                return

    def stream(self, calls: Iterable[bytes]) -> int:
        """Send packed commands, pipelined ahead of their replies; returns the sum of the integer replies."""
        total = ahead = 0
        with self.asking(), self._connection() as connection:
            for call in calls:
                connection.send_packed_command([call], check_health=False)
                ahead += 1
                if ahead > _IN_FLIGHT:
                    total += connection.read_response()
                    ahead -= 1
            for _ in range(ahead):
                total += connection.read_response()
        return total

    @contextmanager
    def asking_on_one(self) -> Iterator[Callable[[bytes, int], list[Any]]]:
        """A function that sends packed commands and gives their replies, bytes and errors among them; all calls go over one connection."""
        with self.asking(), self._connection() as connection:

            def ask(commands: bytes, replies: int) -> list[Any]:
                connection.send_packed_command([commands], check_health=False)
                return read_answers(connection, replies, raw=True)

            yield ask

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

    def _meant(self, error: Exception) -> Exception:
        return meant(error, self.name)

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        pool = self.client.connection_pool
        connection: Any = pool.get_connection()
        try:
            # Now alone: amid replies, or in a transaction, its answer would be another's, and redis-py would go on over a new connection.
            connection.check_health()
            yield connection
        except BaseException:
            connection.disconnect()  # replies may be under way
            raise
        finally:
            pool.release(connection)


def connection_options(options: Mapping[str, Any]) -> tuple[type[Any], dict[str, Any]]:
    """The class of redis-py's connections, and its arguments with ours beside them; unknown ones raise DefinitionError."""
    arguments = {"socket_timeout": _TIMEOUT_S, "socket_connect_timeout": _TIMEOUT_S, **options}
    kind = arguments.pop("connection_class", redis.Connection)
    if "path" not in arguments:
        arguments = {"host": "localhost", "port": 6379, **arguments}
    arguments |= {
        "decode_responses": True,
        # Bytes that are not UTF-8 are reported by the reader: an error here would leave replies unread.
        "encoding_errors": "surrogateescape",
        "protocol": 2,
    }
    try:
        kind(**arguments)
    except (TypeError, ValueError, redis.RedisError) as error:
        raise DefinitionError(f"RedisStore: {error}") from None
    return kind, arguments


def url_options(url: Any) -> dict[str, Any]:
    """The connection options in a URL of one server; DefinitionError, which does not quote it, for what is none."""
    if isinstance(url, str) and len(single_urls(url)) > 1:
        raise DefinitionError(
            "RedisStore.from_url: the URL names several servers, as a cluster has; say cluster=True, or "
            "?cluster=true at its end, or name one server"
        )
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
    return dict(options)


def place_of(options: Mapping[str, Any]) -> str:
    """The address that connection options name."""
    return str(options.get("path") or f"{options['host']}:{options['port']}")


def hash_of(kind: type[Any], options: Mapping[str, Any]) -> str:
    """A hash of connection options, a password's included."""
    plain = {k: v for k, v in options.items() if isinstance(v, (str, int, float, bool))}
    described = json.dumps([kind.__qualname__, plain], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def _answers(connection: Any, commands: bytes, replies: int, raw: bool) -> list[Any]:
    try:
        connection.send_packed_command([commands])
        return read_answers(connection, replies, raw)
    except BaseException:
        connection.disconnect()  # replies may be under way
        raise


def read_answers(connection: Any, replies: int, raw: bool) -> list[Any]:
    """The next replies on a connection; an error reply is returned, not raised, since further replies may follow it."""
    answers: list[Any] = []
    for _ in range(replies):
        try:
            answers.append(connection.read_response(disable_decoding=raw))
        except redis.ResponseError as error:
            answers.append(error)
    return answers
