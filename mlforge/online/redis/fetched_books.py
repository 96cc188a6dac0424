"""Books as a server holds them: their names, the command that fetches them, and their parsing, all cached by text.

A read runs each step once, on a processor that has just done something else, so calls are dear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from mlforge.core.values import check_name
from mlforge.online.books import OnlineBooks
from mlforge.online.codec import from_fields
from mlforge.online.redis import resp


@dataclass(frozen=True, slots=True)
class KnownBooks:
    """The books that a feature's fields, as they were last fetched, spell out."""

    fields: Sequence[str]
    books: OnlineBooks | None


@lru_cache(maxsize=2_048)
def books_key(prefix: str, feature: str) -> str:
    """The key of a feature's books; DefinitionError for a name that no feature may have."""
    return f"{prefix}:{check_name(feature)}"


@lru_cache(maxsize=2_048)
def books_name(prefix: str, feature: str, server: str) -> str:
    """The books' name in errors."""
    return f"{books_key(prefix, feature)} in {server}"


@lru_cache(maxsize=2_048)
def read_command(key: str) -> bytes:
    """The command that reads the books under a key."""
    return resp.command("HGETALL", key)


@lru_cache(maxsize=2_048)
def books_of(flat: tuple[str, ...], where: str) -> OnlineBooks | None:
    """The books of fetched fields, names and values by turns; None for no fields. Each request reads them.

    Raises BooksDamaged for books that cannot be read, OnlineError if `where` holds something else.
    """
    return from_fields(dict(zip(flat[::2], flat[1::2], strict=True)), where)
