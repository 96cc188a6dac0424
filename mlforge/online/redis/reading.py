"""Reads of books and rows from Redis, in whichever layout each feature's rows lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlforge.errors import NotServed, OnlineRefused
from mlforge.online.books import OnlineBooks
from mlforge.online.decoding import Row
from mlforge.online.redis import resp
from mlforge.online.redis.fetched_books import (
    KnownBooks,
    books_key,
    books_name,
    books_of,
    no_rows,
    texts_of,
)
from mlforge.online.redis.layout_table import LAYOUTS
from mlforge.online.redis.layouts import RowLayout
from mlforge.online.redis.refusals import fenced
from mlforge.online.requests import Fetched, RowRequest
from mlforge.online.steps import Question, Steps

if TYPE_CHECKING:
    from mlforge.online.redis.client import Server

_MULTI, _EXEC = resp.command("MULTI"), resp.command("EXEC")
_TRIES = 5


class Reading:
    """Reads on a server. The books say in which layout the rows beside them lie, so that a reader needs not be told.

    own: the layout that rows are supposed to lie in until their books were seen.
    """

    is_of_one_instant = True
    """Whether all that is read at once is of one instant and from one place, so that it matters to no read what others ask beside it."""

    def __init__(self, server: Server, prefix: str, own: RowLayout) -> None:
        self._server, self._prefix, self._own = server, prefix, own
        self._layouts: dict[str, RowLayout] = {own.name: own}
        self._lying: dict[str, RowLayout] = {}
        self._known: dict[str, KnownBooks] = {}

    def fetch(self, requests: Sequence[RowRequest]) -> Steps[list[Fetched]]:
        """The steps to the books and stored rows of one instant; rows are bytes."""
        fetched = None
        for _ in range(_TRIES):
            layouts = self._supposed(requests)
            executed = (yield self._asked(*self._reads(requests, layouts)))[-1]
            fetched = self._fetched(requests, layouts, executed)
            if fetched is None:
                continue
            unlearned = self._unlearned(requests, layouts, fetched)
            if unlearned is None:
                return fetched
            self._layouts["packed"].learn((yield self._asked(*unlearned)))
            if self._unlearned(requests, layouts, fetched) is None:
                return fetched
            # What rows are named by has gone since they were read: they move, or they are damaged and stay so.
        if fetched is None:
            raise self._moving(requests)
        return fetched

    def typed(self, books: OnlineBooks | None, stored: Sequence[Any]) -> list[Row | None]:
        """The stored rows with the values of training by the books; plain JSON without books. Misfit for damage."""
        layout = self._own if books is None else self._layout(books.layout)
        return layout.typed(books, stored)

    def foreign(self, absent: Sequence[tuple[str, str]]) -> list[str | None]:
        """The types of what lies in rows' places and is no row; None where nothing does, or it may not be asked."""
        commands = self._types(absent)
        try:
            return no_rows(self._server.ask(*commands)) if commands else [None] * len(absent)
        except OnlineRefused:  # a user without the right to ask
            return [None] * len(absent)

    async def foreign_async(self, absent: Sequence[tuple[str, str]]) -> list[str | None]:
        """As `foreign`, on the connection of the running event loop."""
        commands = self._types(absent)
        try:
            if commands:
                return no_rows(await self._server.ask_async(*commands))
        except OnlineRefused:
            pass
        return [None] * len(absent)

    def row_name(self, feature: str, hash: str) -> str:
        """A row's name on the server."""
        layout = self._lying.get(feature, self._own)
        return layout.row_name(books_key(self._prefix, feature), hash)

    def _asked(self, commands: bytes, replies: int) -> Question:
        return Question(self._server.ask, self._server.ask_async, (commands, replies, True))

    def _layout(self, name: str) -> RowLayout:
        if name not in self._layouts:
            self._layouts[name] = LAYOUTS[name]()
        return self._layouts[name]

    def _supposed(self, requests: Sequence[RowRequest]) -> list[RowLayout]:
        """The layouts that the rows are read in. Replies are of these: another read may learn of others meanwhile."""
        return [self._lying.get(request.feature, self._own) for request in requests]

    def _reads(
        self, requests: Sequence[RowRequest], layouts: Sequence[RowLayout]
    ) -> tuple[bytes, int]:
        """The commands that read books and rows, and their number."""
        # A transaction: rows deleted between the two reads would pass for empty windows.
        commands = [_MULTI]
        for request, layout in zip(requests, layouts, strict=True):
            commands += layout.reads(books_key(self._prefix, request.feature), request.hashes)
        commands.append(_EXEC)
        return b"".join(commands), len(commands)

    def _fetched(
        self,
        requests: Sequence[RowRequest],
        layouts: Sequence[RowLayout],
        executed: Sequence[Any],
    ) -> list[Fetched] | None:
        """The books and rows in the replies to EXEC, refusals among them; None where rows lie in another layout than was read."""
        replies, fetched, is_read = iter(executed), [], True
        for request, layout in zip(requests, layouts, strict=True):
            fields = next(replies)
            rows = next(replies) if request.hashes else ()
            books = self._read_books(request.feature, fields)
            lying = self._own if books is None else self._layout(books.layout)
            if lying is not layout:
                is_read = False
                self._lies(request.feature, lying)
            elif isinstance(rows, Exception):
                where = books_name(self._prefix, request.feature, self._server.name)
                with fenced(request.feature, None, self._server, where):
                    self._server.granted(rows)
            fetched.append((books, rows))
        return fetched if is_read else None

    def _lies(self, feature: str, layout: RowLayout) -> None:
        if layout is self._own:
            self._lying.pop(feature, None)
        else:
            self._lying[feature] = layout

    def _read_books(self, feature: str, reply: list[Any] | Exception) -> OnlineBooks | None:
        where = books_name(self._prefix, feature, self._server.name)
        if isinstance(reply, Exception):
            with fenced(feature, None, self._server, where):
                self._server.granted(reply)
            raise reply
        known = self._known.get(feature)
        if known is not None and known.fields == reply:
            return known.books
        books = books_of(tuple(texts_of(reply)), where)
        if books is not None:  # anybody may ask for names that no feature has
            self._known[feature] = KnownBooks(reply, books)
        return books

    def _unlearned(
        self,
        requests: Sequence[RowRequest],
        layouts: Sequence[RowLayout],
        fetched: Sequence[Fetched],
    ) -> tuple[bytes, int] | None:
        stored = [
            (books_key(self._prefix, request.feature), rows)
            for request, layout, (_, rows) in zip(requests, layouts, fetched, strict=True)
            if layout.raw
        ]
        return self._layouts["packed"].unlearned(stored) if stored else None

    def _types(self, absent: Sequence[tuple[str, str]]) -> tuple[bytes, int] | None:
        """The commands that ask for the types of what lies at rows' places; None where only rows can."""
        if any(self._lying.get(feature, self._own).raw for feature, _ in absent):
            return None
        # MGET gives nil for a key of another type, as for none.
        commands = [resp.command("TYPE", self.row_name(*place)) for place in absent]
        return b"".join(commands), len(commands)

    def _moving(self, requests: Sequence[RowRequest]) -> NotServed:
        names = ", ".join(request.feature for request in requests)
        return NotServed(f"{names}: rows move from one layout to another at this moment; ask again")
