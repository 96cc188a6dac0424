"""Reads of an online store: rows with the values of training, whose they are, and the errors that name them."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from mlforge.core.signatures import named_methods
from mlforge.errors import NotServed, OnlineError
from mlforge.online.books import OnlineBooks
from mlforge.online.decoding import Misfit, Row, typed_rows
from mlforge.online.requests import (
    Answer,
    Entity,
    Fetched,
    RowRequest,
    check_names,
    check_owner,
)
from mlforge.online.steps import Question, Steps, answered
from mlforge.store import Store

_OWNER_S = 0.02
"""How long a server of many requests takes the id of the offline store as known, in seconds."""


@named_methods
class OnlineReads(ABC):
    """The half of an online store that reads; a backend supplies `_fetch` and the names of things on its server."""

    owner: Store | str | None = None
    _owner_known: str | None = None
    _owner_until: float = 0.0

    def read(self, feature_name: str, entity_keys: Entity) -> Row | None:
        """The entity's row, None where it has none.

        Values have the dtypes in the books, as in training; without books they are plain JSON. Raises OnlineError,
        naming feature, entity and key, for a damaged row or damaged books, OwnedElsewhere for rows of
        another store than `owner`, and RetrievalError for other keys than the feature has.
        """
        [(_, [row])] = self._read([RowRequest.of(feature_name, [entity_keys])])
        return row

    def read_batch(self, feature_name: str, entity_keys: Sequence[Entity]) -> list[Row | None]:
        """The rows of the entities, in their order, None for an entity without a row; raises as `read`."""
        [(_, rows)] = self._read([RowRequest.of(feature_name, entity_keys)])
        return rows

    def exists(self, feature_name: str, entity_keys: Entity) -> bool:
        """Whether the entity has a row; RetrievalError for other keys than the feature has."""
        request = RowRequest.of(feature_name, [entity_keys])
        [(books, [text])] = self._fetch([request])
        if text is None:
            check_names(request, books)
        return text is not None

    def fetch(self, requests: Sequence[tuple[str, Sequence[Entity]]]) -> list[Answer]:
        """The books and rows of several features at one instant, in one round trip, in the order of the requests.

        Raises as `read`.
        """
        return self._read([RowRequest.of(*request) for request in requests])

    def reading(self, requests: Sequence[RowRequest]) -> Steps[list[Answer]]:
        """The steps of `fetch` for requests whose hashes are computed: what is asked, and what the answers make."""
        fetched = yield Question(self._fetch, self._fetch_async, (requests,))
        answers = self._answers(requests, fetched)
        if any(None in rows for _, rows in answers):
            yield from self._check_absent(requests, answers)
        return answers

    def stored(self, requests: Sequence[RowRequest]) -> Steps[Sequence[Fetched]]:
        """The steps of `fetch` to rows as they are stored, which nothing has held against the books yet.

        What a stored row is, the layout in the books says: of "json" it is a text, or its bytes.
        """
        fetched: Sequence[Fetched] = yield Question(self._fetch, self._fetch_async, (requests,))
        self._note(requests, fetched, self._recent_owner())
        if any(None in rows for _, rows in fetched):
            yield from self._check_absent(requests, fetched)
        return fetched

    def _read(self, requests: Sequence[RowRequest]) -> list[Answer]:
        """As `reading`, without the steps where all rows are there: each read comes here."""
        answers = self._answers(requests, self._fetch(requests))
        for _, rows in answers:
            if None in rows:
                for request, (books, _) in zip(requests, answers, strict=True):
                    check_names(request, books)
                answered(self._check_absent(requests, answers))
                break
        return answers

    def _answers(self, requests: Sequence[RowRequest], fetched: Sequence[Fetched]) -> list[Answer]:
        """The stored rows with their values, each by the books beside it; raises as `read`."""
        self._note(requests, fetched, self._expected_owner())
        return [
            (books, self._decoded(request, books, stored))
            for request, (books, stored) in zip(requests, fetched, strict=True)
        ]

    def _note(
        self, requests: Sequence[RowRequest], fetched: Sequence[Fetched], expected: str | None
    ) -> None:
        """Note the books for `last_seen`; OwnedElsewhere where they name another owner than the expected one."""
        for request, (books, _) in zip(requests, fetched, strict=True):
            if books is not None:
                check_owner(request.feature, books, expected)
                self._seen[request.feature] = books

    def _check_absent(
        self, requests: Sequence[RowRequest], answers: Sequence[tuple[Any, Sequence[Any]]]
    ) -> Steps[None]:
        """Raise OnlineError where a missing row is something else that lies under its name."""
        places = [
            (request, position)
            for request, (_, rows) in zip(requests, answers, strict=True)
            if None in rows
            for position, row in enumerate(rows)
            if row is None
        ]
        absent = [(request.feature, request.hashes[at]) for request, at in places]
        kinds = yield Question(self._foreign, self._foreign_async, (absent,))
        for (request, at), kind in zip(places, kinds, strict=True):
            if kind is not None:
                raise OnlineError(
                    self._damaged(request, Misfit(at, f"it is a {kind}, and no text"))
                )

    def _expected_owner(self) -> str | None:
        """The id of the store whose rows readers mean; empty if that store has none yet, None if any will do."""
        if not isinstance(self.owner, Store):
            return self.owner
        identity = self.owner.identity()
        return "" if identity is None else identity.id

    def _recent_owner(self) -> str | None:
        """The expected owner as it was some milliseconds ago: a store is looked at once for the requests that come together."""
        now = time.monotonic()
        if now >= self._owner_until:
            self._owner_known = self._expected_owner()
            self._owner_until = now + _OWNER_S
        return self._owner_known

    def _decoded(
        self, request: RowRequest, books: OnlineBooks | None, stored: Sequence[Any]
    ) -> list[Row | None]:
        try:
            return self._typed(books, stored)
        except Misfit as misfit:
            if misfit.incomplete and books is not None and books.is_being_replaced:
                raise NotServed(
                    f"{request.feature}: a version with other columns is being pushed at this moment; ask again"
                ) from None
            raise OnlineError(self._damaged(request, misfit)) from None

    def _typed(self, books: OnlineBooks | None, stored: Sequence[Any]) -> list[Row | None]:
        """The rows that `_fetch` gave, with the values of training by the books' columns; plain JSON without books.

        Raises Misfit for a damaged row. By default rows are stored as JSON texts.
        """
        return typed_rows(
            stored, None if books is None or books.target is None else books.columns_by_dtype
        )

    def _damaged(self, request: RowRequest, misfit: Misfit) -> str:
        feature, at = request.feature, misfit.position
        entity = f" of {dict(request.entities[at])!r}" if request.entities else ""
        return (
            f"{feature}: the row{entity} at {self._row_name(feature, request.hashes[at])} is damaged: {misfit}. "
            f"Delete {self._books_name(feature)}, and the next push writes all rows of {feature} anew"
        )

    def last_seen(self, features: Iterable[str]) -> dict[str, OnlineBooks]:
        """The books of features as they were last fetched by this object, without a call to the server."""
        return {name: self._seen[name] for name in features if name in self._seen}

    @cached_property
    def _seen(self) -> dict[str, OnlineBooks]:
        return {}

    # Methods of a backend.

    @abstractmethod
    def _fetch(self, requests: Sequence[RowRequest]) -> Sequence[Fetched]:
        """The books and the rows' texts of one instant, as they are stored, in the order asked.

        A text that is not UTF-8 holds lone surrogates. Raises OnlineError for books of the wrong shape.
        """

    def _foreign(self, absent: Sequence[tuple[str, str]]) -> list[str | None]:
        """Values that lie in a row's place and are no row, by feature and hash; None where nothing does.

        Asked of rows that `_fetch` did not find. By default a backend holds nothing but rows.
        """
        return [None] * len(absent)

    async def _fetch_async(self, requests: Sequence[RowRequest]) -> Sequence[Fetched]:
        """As `_fetch`, without blocking an event loop; by default it is called in a thread."""
        return await asyncio.to_thread(self._fetch, requests)

    async def _foreign_async(self, absent: Sequence[tuple[str, str]]) -> list[str | None]:
        """As `_foreign`, without blocking an event loop; by default it is called in a thread."""
        return await asyncio.to_thread(self._foreign, absent)

    @abstractmethod
    def _row_name(self, feature: str, hash: str) -> str:
        """A row's name on the server, for errors."""

    @abstractmethod
    def _books_name(self, feature: str) -> str:
        """The books' name on the server, for errors."""
