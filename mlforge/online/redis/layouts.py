"""The contract of layouts: how a feature's rows lie in Redis, beside its books.

A layout turns rows into commands and replies into rows. The fence, the books and the errors are the store's: a call that
a script refuses raises the client's own error. `key` is always that of the feature's books.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl

from mlforge.online.books import OnlineBooks
from mlforge.online.chunks import Rows
from mlforge.online.decoding import Row

if TYPE_CHECKING:
    from mlforge.online.redis.client import Server


@dataclass(frozen=True, slots=True)
class Write:
    """A write to a feature's rows: the key of its books, the fence as scripts compare it, the rows' life.

    fence: as scripts compare it, the format of the books last. life: the TTL in seconds as text; empty for ever.
    """

    key: str
    fence: str
    life: str


class RowLayout(ABC):
    """A layout of rows; its name is what users write.

    digest_bytes: how many bytes of the hash of an entity tell rows apart. raw: whether rows are bytes that only a schema explains.
    """

    name: ClassVar[str]
    digest_bytes: ClassVar[int]
    raw: ClassVar[bool]

    @abstractmethod
    def encoded(self, frame: pl.DataFrame, keys: Sequence[str]) -> Iterator[Rows]:
        """The frame in chunks, encoded as they are asked for."""

    def ready(self, rows: Rows) -> Rows:
        """Encoded rows with what else `put` would make of them, where that is known before they are sent."""
        return rows

    @abstractmethod
    def put(self, server: Server, write: Write, chunks: Iterable[Rows]) -> int:
        """Write the rows, each chunk at once; returns their number."""

    @abstractmethod
    def remove(self, server: Server, write: Write, chunks: Iterable[Sequence[str]]) -> int:
        """Delete the rows of these hashes; returns how many there were."""

    @abstractmethod
    def renew(self, server: Server, write: Write) -> int:
        """Give all rows their full life; returns their number."""

    @abstractmethod
    def scan(self, server: Server, key: str) -> Iterator[list[str]]:
        """The hashes of all rows in chunks, as far as rows have them; each row at least once."""

    @abstractmethod
    def clear(self, server: Server, key: str) -> int:
        """Delete all rows, whichever layout the books tell of; returns how many there were."""

    @abstractmethod
    def counts(self, server: Server, prefix: str, features: Collection[str]) -> dict[str, int]:
        """The number of rows of each of these features."""

    @abstractmethod
    def sweep(self, server: Server, key: str, layout: str) -> None:
        """Delete what no reader finds any more while books tell of rows in a layout: this one's rows if it is another."""

    @abstractmethod
    def reads(self, key: str, hashes: Sequence[str]) -> list[bytes]:
        """The commands that read a feature's books and these rows."""

    def unlearned(self, stored: Sequence[tuple[str, Sequence[Any]]]) -> tuple[bytes, int] | None:
        """The commands that ask for what is yet to know before these rows can be read, and their number; None for nothing.

        stored: the rows as they were fetched, by the keys of their books.
        """
        return None

    def learn(self, texts: Sequence[Any]) -> None:
        """Note the answers to `unlearned`."""
        return

    @abstractmethod
    def typed(self, books: OnlineBooks | None, stored: Sequence[Any]) -> list[Row | None]:
        """The stored rows with the values of training, by the books' columns; plain JSON without books. Misfit for damage."""

    @abstractmethod
    def row_name(self, key: str, hash: str) -> str:
        """A row's name on the server."""
