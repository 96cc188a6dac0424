"""Reads of books and rows from a cluster: of each bucket at one instant, by one transaction on its node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlforge.errors import OnlineRefused
from mlforge.online.books import OnlineBooks
from mlforge.online.redis import resp
from mlforge.online.redis.buckets import bucket_keys, positions_by_bucket
from mlforge.online.redis.cluster_rounds import Block
from mlforge.online.redis.fetched_books import (
    books_key,
    no_rows,
    read_command,
    rows_command,
)
from mlforge.online.redis.layouts import RowLayout
from mlforge.online.redis.merged_books import merged
from mlforge.online.redis.reading import Reading
from mlforge.online.requests import Fetched, RowRequest
from mlforge.online.steps import Question, Steps

if TYPE_CHECKING:
    from mlforge.online.redis.client import Server
    from mlforge.online.redis.cluster import ClusterServer

_MULTI, _EXEC = resp.command("MULTI"), resp.command("EXEC")


@dataclass(frozen=True, slots=True)
class _Part:
    """A question to one bucket: for which request, and the positions of its rows there."""

    request: int
    positions: Sequence[int]
    block: Block


class BucketedReading(Reading):
    """As `Reading`, of one layout.

    Each bucket tells of its own rows; what holds for all that were read is told of the feature.
    """

    is_of_one_instant = False

    def __init__(self, server: Server, prefix: str, own: RowLayout) -> None:
        super().__init__(server, prefix, own)
        self._cluster: ClusterServer = server  # type: ignore[assignment]

    def fetch(self, requests: Sequence[RowRequest]) -> Steps[list[Fetched]]:
        """The steps to the books and stored rows, of one instant for each bucket; rows are bytes."""
        parts, cluster = self._parts(requests), self._cluster
        blocks = [part.block for part in parts]
        answers = yield Question(cluster.ask_blocks, cluster.ask_blocks_async, (blocks, True))
        return self._joined(requests, parts, answers)

    def foreign(self, absent: Sequence[tuple[str, str]]) -> list[str | None]:
        """The types of what lies in rows' places and is no row; None where nothing does, or it may not be asked."""
        try:
            return no_rows([kind for [kind] in self._cluster.ask_blocks(self._kinds(absent))])
        except OnlineRefused:  # a user without the right to ask
            return [None] * len(absent)

    async def foreign_async(self, absent: Sequence[tuple[str, str]]) -> list[str | None]:
        """As `foreign`, on connections of the running event loop."""
        try:
            kinds = await self._cluster.ask_blocks_async(self._kinds(absent))
        except OnlineRefused:
            return [None] * len(absent)
        return no_rows([kind for [kind] in kinds])

    def _parts(self, requests: Sequence[RowRequest]) -> list[_Part]:
        """Questions to each bucket that has rows of a request; to all for the books alone."""
        parts = []
        for number, request in enumerate(requests):
            keys = bucket_keys(books_key(self._prefix, request.feature))
            if not request.hashes:
                parts += [_Part(number, (), Block.of(key, read_command(key))) for key in keys]
                continue
            for bucket, positions in positions_by_bucket(request.hashes).items():
                key = keys[bucket]
                rows = rows_command(key, [request.hashes[at] for at in positions])
                # A transaction: rows deleted between the two reads would pass for empty windows.
                commands = b"".join([_MULTI, read_command(key), rows, _EXEC])
                parts.append(_Part(number, positions, Block.of(key, commands, 4)))
        return parts

    def _joined(
        self, requests: Sequence[RowRequest], parts: Sequence[_Part], answers: Sequence[list[Any]]
    ) -> list[Fetched]:
        """The books that hold for all buckets of a request, and its rows in the order asked."""
        books: list[list[OnlineBooks | None]] = [[] for _ in requests]
        stored: list[list[Any]] = [[None] * len(request.hashes) for request in requests]
        for part, answer in zip(parts, answers, strict=True):
            feature = requests[part.request].feature
            if not part.positions:
                books[part.request].append(self._read_books(feature, answer[0]))
                continue
            fields, rows = answer[-1]
            books[part.request].append(self._read_books(feature, fields))
            for position, row in zip(part.positions, self._cluster.granted(rows), strict=True):
                stored[part.request][position] = row
        return [(merged(told), rows) for told, rows in zip(books, stored, strict=True)]

    def _kinds(self, absent: Sequence[tuple[str, str]]) -> list[Block]:
        # MGET gives nil for a key of another type, as for none.
        names = [self.row_name(*place) for place in absent]
        return [Block.of(name, resp.command("TYPE", name)) for name in names]
