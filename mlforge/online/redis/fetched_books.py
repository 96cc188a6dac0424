"""Books as a server holds them: the command that fetches them, and their parsing, both cached by text."""

from __future__ import annotations

from functools import lru_cache

from mlforge.online.books import OnlineBooks
from mlforge.online.codec import from_fields
from mlforge.online.redis import resp


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
