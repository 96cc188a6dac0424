"""Books and rows as a server holds them: names, the commands that fetch them, and the parsing of books, cached by text.

A read runs each step once, on a processor that has just done something else, so calls are dear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mlforge.core.values import check_name
from mlforge.online.books import OnlineBooks
from mlforge.online.codec import LAYOUTS, from_fields
from mlforge.online.redis import resp


@dataclass(frozen=True, slots=True)
class KnownBooks:
    """The books that a feature's fields, as they were last fetched, spell out."""

    fields: Sequence[str | bytes]
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


def rows_command(books: str, hashes: Sequence[str]) -> bytes:
    """The command that reads the rows of these hashes, beside the books under a key."""
    rows = resp.prefixed(f"{books}:", hashes)
    return b"*%d\r\n$4\r\nMGET\r\n%b" % (1 + len(hashes), rows)


def no_rows(types: Sequence[str]) -> list[str | None]:
    """The types of keys that can be no rows; None for a row, or where there is no key."""
    return [None if kind in ("none", "string") else kind for kind in types]


def texts_of(replies: Sequence[Any]) -> Sequence[Any]:
    """Replies as texts, those that are bytes decoded; bytes that are not UTF-8 become lone surrogates."""
    if not any(type(reply) is bytes for reply in replies):
        return replies
    return [
        None if reply is None else reply.decode("utf-8", "surrogateescape") for reply in replies
    ]


@lru_cache(maxsize=2_048)
def books_of(flat: tuple[str, ...], where: str) -> OnlineBooks | None:
    """The books of fetched fields, names and values by turns; None for no fields. Each request reads them.

    Raises BooksDamaged for books that cannot be read, OnlineError if `where` holds something else.
    """
    return from_fields(dict(zip(flat[::2], flat[1::2], strict=True)), where, LAYOUTS)
