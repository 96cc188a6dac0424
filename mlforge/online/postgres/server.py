"""A PostgreSQL server: connections, transactions, and the meaning of its refusals."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from threading import Lock
from typing import Any, TypeAlias, TypeVar

from mlforge.errors import (
    DefinitionError,
    MissingExtra,
    OnlineError,
    OnlineRefused,
    OnlineUnavailable,
)

try:
    import psycopg
    from psycopg import errors
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
except ImportError:
    raise MissingExtra.of("PostgresStore", "postgres") from None

T = TypeVar("T")
Cursor: TypeAlias = "psycopg.Cursor[Any]"
_TRIES = 3
_TIMEOUT_S = 5
_STATEMENT_MS = 60_000
_BEHIND_PASSWORD = ("host", "port", "dbname")
"""Parts of a URL that hold an @ where its password is not percent-encoded: libpq then takes the rest of that for theirs."""
_REFUSALS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    (
        (
            errors.InvalidPassword,
            errors.InvalidAuthorizationSpecification,
            errors.InsufficientPrivilege,
            errors.InvalidCatalogName,
        ),
        "refused the user, password or database ({error}); give PostgresStore the right ones",
    ),
    (
        (errors.ReadOnlySqlTransaction,),
        "is read-only, as a standby is ({error}); give PostgresStore the primary's address",
    ),
    (
        (errors.DiskFull, errors.OutOfMemory, errors.ConfigurationLimitExceeded),
        "is out of room ({error}); see to its disk and its log",
    ),
)


class Server:
    """Connections to a database that raise mlforge's errors; opened at first use, and again after a fork."""

    def __init__(self, url: object) -> None:
        """From a URL or libpq's `key=value` text; DefinitionError for what is neither."""
        if not isinstance(url, str) or not url:
            raise DefinitionError(f"PostgresStore: {_NO_URL}")
        try:
            options = conninfo_to_dict(url)
        except psycopg.Error:  # which quotes the text, and that may hold a password
            raise DefinitionError(f"PostgresStore: {_NO_URL}") from None
        if "://" in url and any(
            "@" in str(options.get(part, "")).lstrip("@") for part in _BEHIND_PASSWORD
        ):
            raise DefinitionError(f"PostgresStore: {_NO_URL}")  # names would tell of the password
        defaults: dict[str, Any] = {
            "connect_timeout": _TIMEOUT_S,
            "keepalives_idle": _TIMEOUT_S,
            "tcp_user_timeout": _TIMEOUT_S * 1_000,
            "application_name": "mlforge",
            "client_encoding": "utf8",
            "options": f"-c statement_timeout={_STATEMENT_MS}",
        }
        self._conninfo = make_conninfo(**{**defaults, **options})
        place = f"{options.get('host', 'localhost')}:{options.get('port', 5432)}"
        self.name = f"postgres at {place}/{options.get('dbname', options.get('user', ''))}"
        self.options_hash = hashlib.sha256(self._conninfo.encode()).hexdigest()
        self._idle: list[psycopg.Connection[Any]] = []
        self._pid, self._lock = os.getpid(), Lock()

    def __str__(self) -> str:
        return self.name

    def transact(self, work: Callable[[Cursor], T]) -> T:
        """The result of work in a transaction, done again where the connection breaks: it must be idempotent.

        Raises what the work raises, OnlineError and its kinds for what the server does, and psycopg's UndefinedTable.
        """
        return self._tried(lambda connection: _in_transaction(connection, work))

    def ask(self, statement: bytes, arguments: Any = None) -> list[tuple[Any, ...]]:
        """The rows of one statement, which sees one instant, in one round trip; raises as `transact`."""
        return self._tried(lambda connection: connection.execute(statement, arguments).fetchall())

    def _tried(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        for attempt in range(_TRIES):
            try:
                connection = self._take(fresh=attempt > 0)
                try:
                    result = work(connection)
                except BaseException as error:
                    # A standby's address may be that of the primary by now.
                    is_standby = isinstance(error, errors.ReadOnlySqlTransaction)
                    if connection.closed or connection.info.transaction_status or is_standby:
                        connection.close()
                    raise
                finally:
                    self._give(connection)
            except errors.UndefinedTable:
                raise
            except psycopg.OperationalError as error:
                if attempt == _TRIES - 1 or _is_refusal(error):
                    raise self._meant(error) from error
            except psycopg.Error as error:
                raise self._meant(error) from error
            else:
                return result
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self, fresh: bool) -> psycopg.Connection[Any]:
        """An idle connection, else a new one. fresh: idle ones may be as broken as the last."""
        with self._lock:
            if self._pid != os.getpid():  # a parent's connections are the parent's
                self._idle, self._pid = [], os.getpid()
            if fresh:
                self._idle.clear()
            while self._idle:
                connection = self._idle.pop()
                if not connection.closed:
                    return connection
        return psycopg.connect(self._conninfo, autocommit=True)

    def _give(self, connection: psycopg.Connection[Any]) -> None:
        if not connection.closed:
            with self._lock:
                self._idle.append(connection)

    def _meant(self, error: psycopg.Error) -> OnlineError:
        """The mlforge error for a client error."""
        text = " ".join(str(error).split())
        for kinds, refusal in _REFUSALS:
            if isinstance(error, kinds):
                return OnlineRefused(f"{self} {refusal.format(error=text)}")
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            if _is_refusal(error):
                return OnlineRefused(f"{self} {_REFUSALS[0][1].format(error=text)}")
            return OnlineUnavailable(
                f"{self} does not answer ({text}); start a server there, or give PostgresStore the address of a "
                "running one"
            )
        return OnlineError(f"{self}: {type(error).__name__}: {text}")


def _in_transaction(connection: psycopg.Connection[Any], work: Callable[[Cursor], T]) -> T:
    with connection.transaction(), connection.cursor() as cursor:
        return work(cursor)


_NO_URL = (
    "this is no address of PostgreSQL; write postgresql://user:password@host:5432/database with the password "
    "percent-encoded"
)


def _is_refusal(error: psycopg.Error) -> bool:
    """Whether the server answered: while a session starts, its refusals have no code that psycopg tells."""
    return (
        error.sqlstate is None
        and "FATAL:" in str(error)
        and not any(
            words in str(error)
            for words in ("starting up", "shutting down", "recovery mode", "terminating")
        )
    )
