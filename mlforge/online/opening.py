"""From a URL to the online store that it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mlforge.errors import DefinitionError
from mlforge.online.base import OnlineStore


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of online store: its class, how it is opened from a URL, and the settings it takes beside that."""

    store: type[OnlineStore]
    open: Callable[..., OnlineStore]
    settings: tuple[str, ...]


def online_store_at(
    url: str, before: OnlineStore | None = None, settings: Mapping[str, Any] | None = None
) -> OnlineStore:
    """The online store at a URL; nothing is connected yet.

    before: a store whose settings it takes over where it is of the same kind and they are not given. Raises
    DefinitionError, which does not quote the URL, for one of no known kind, and for a setting that the kind does not take.
    """
    kind = _kind(url)
    values = {name: value for name, value in (settings or {}).items() if value is not None}
    if unknown := sorted(values.keys() - set(kind.settings)):
        raise DefinitionError(
            f"{kind.store.__name__} takes no {unknown[0]!r}; it takes {', '.join(kind.settings)}"
        )
    if isinstance(before, kind.store):
        values = {name: getattr(before, name) for name in kind.settings} | values
    return kind.open(url, **values)


def _kind(url: str) -> _Kind:
    from mlforge.online import DynamoDBStore, PostgresStore, RedisStore

    scheme = url.partition("://")[0]
    if scheme in ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"):
        return _Kind(RedisStore, RedisStore.from_url, ("ttl", "prefix", "layout"))
    if scheme in ("postgresql", "postgres"):
        return _Kind(PostgresStore, PostgresStore, ("ttl", "prefix"))
    if scheme == "dynamodb":
        return _Kind(DynamoDBStore, DynamoDBStore.from_url, ("ttl", "prefix"))
    raise DefinitionError(
        "this is no URL of an online store; write redis://[[user]:password@]host:port/db (rediss:// over TLS, redis+sentinel:// by Sentinel), "
        "postgresql://user:password@host:port/database, each with the password percent-encoded, or dynamodb://table?region=..."
    )
