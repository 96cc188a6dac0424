"""Answers made of stored rows, without a look at each value.

What follows from a request's features and from the books beside their rows is worked out once, from an answer that the library has
made; the next answers with the same books are put together by it. Whatever is out of the ordinary is left to the library, which has
the values, their meaning and the errors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import is_
from typing import Any, Self, TypeAlias

from mlforge.core import clock
from mlforge.core.values import Duration
from mlforge.errors import RetrievalError
from mlforge.online import OnlineBooks, OnlineStore, RowRequest
from mlforge.online.requests import Fetched
from mlforge.online.steps import answered_async
from mlforge.retrieval.max_age import MaxAge, since
from mlforge.retrieval.online_rows import check_missing
from mlforge.retrieval.references import Reference, parse_references
from mlforge.retrieval.serving import OnlineAnswer
from mlforge.retrieval.spine import EntityKeys
from mlforge.serve.values.answers import encoded, served
from mlforge.serve.values.read_request import ReadRequest
from mlforge.serve.values.seen_rows import SeenRows
from mlforge.serve.values.served_log import ServedLog
from mlforge.serve.values.spliced_rows import SplicedRows, Unfit
from mlforge.services.brought import request_rows
from mlforge.services.completion import Completion
from mlforge.services.service import Service

_KEPT = 512
"""How many plans are kept: a caller of features chooses columns and names at will."""
_MANY = 5_000
"""Up to how many rows are put together on the event loop: more would keep other requests waiting."""
_MISFITS = 20
"""After how many answers that it cannot make a plan is given up, until the books are others."""
_Key: TypeAlias = Service | tuple[Reference, ...]
_Rows: TypeAlias = Sequence[Mapping[str, Any]]


@dataclass(slots=True)
class Plan:
    """All that answers with the same books have in common.

    features: their names, for each part. since: the first and the last instant that ages count from. names: of each part, in JSON. completion: of
    a service with derived columns. is_held: whether more than the shape of the books is held against the request: a version that it names, or a lock.
    """

    features: tuple[str, ...]
    books: tuple[OnlineBooks, ...]
    keys: EntityKeys
    names: tuple[bytes, ...]
    parts: tuple[SplicedRows, ...]
    since: tuple[int, int]
    served: bytes
    completion: Completion | None
    is_held: bool
    misfits: int = 0

    @classmethod
    def of(cls, answer: OnlineAnswer, seen: SeenRows, is_held: bool = False) -> Self | None:
        """The plan for more answers like this; None where they are not made of stored rows. seen: as `SplicedRows` has it."""
        names = [part.name for part in answer.parts]
        if len(set(names)) < len(names):  # their rows are one row
            return None
        completion = answer.completion
        read = () if completion is None else completion.reads
        parts = [SplicedRows.of(part, answer.defaults, read, seen) for part in answer.parts]
        spliced = tuple(part for part in parts if part is not None)
        if len(spliced) < len(parts):
            return None
        books = tuple(part.fetched.books for part in answer.parts)
        references = [part.reference for part in answer.parts]
        return cls(
            tuple(reference.name for reference in references),
            books,
            EntityKeys.of(references, books),
            tuple(encoded(name) for name in names),
            spliced,
            _since(books),
            _served([reference.name for reference in references], books),
            completion if completion is not None and completion.derived else None,
            is_held,
        )

    def with_books(self, books: Sequence[OnlineBooks | None]) -> Self | None:
        """The plan once a push has begun or ended; None where more than that is new, or may be.

        So a push does not send the requests of its moment to the library, which takes several times as long.
        """
        known = tuple(held for held in books if held is not None and held.target is not None)
        if self.is_held or len(known) < len(books) or not all(map(_alike, self.books, known)):
            return None
        return replace(self, books=known, since=_since(known), served=_served(self.features, known))

    def missing(
        self, fetched: Sequence[Fetched]
    ) -> Iterator[tuple[str, OnlineBooks, Sequence[object]]]:
        """The books and rows of each feature, as `check_missing` takes it."""
        for name, books, (_, rows) in zip(self.features, self.books, fetched, strict=True):
            yield name, books, rows

    def body(self, fetched: Sequence[Fetched], keys: _Rows, brought: _Rows, t: int) -> bytes:
        """The answer's JSON. Raises Unfit.

        keys, brought: of each entity the keys, and the request's columns, as derived columns read them. t: their instant.
        """
        columns: dict[str, list[Any]] = {}
        features = []
        for name, part, (_, stored) in zip(self.names, self.parts, fetched, strict=True):
            rows, values = part.rows(stored)
            columns.update(values)
            features.append(b"%b:[%b]" % (name, rows))
        derived = b""
        if self.completion is not None:
            derived = b'"derived":%b,' % encoded(
                _derived(self.completion, columns, keys, brought, t)
            )
        body = b'{"features":{%b},%b"served":%b}' % (b",".join(features), derived, self.served)
        if not body.isascii():
            try:
                body.decode()
            except UnicodeDecodeError:
                raise Unfit from None
        return body


def _served(features: Sequence[str], books: Sequence[OnlineBooks]) -> bytes:
    targets = ((name, held.target) for name, held in zip(features, books, strict=True))
    return encoded(served({name: target for name, target in targets if target is not None}))


def _alike(one: OnlineBooks, other: OnlineBooks) -> bool:
    """Whether rows with these books are written and read alike, whichever pushes they are of."""
    return _shape(one) == _shape(other)


def _shape(books: OnlineBooks) -> tuple[object, ...]:
    # Of values, 1, 1.0 and True are equal, and written differently.
    values = repr((books.empty, books.defaults))
    return books.layout, books.keys, books.columns, books.derived, books.inputs, values


def _derived(
    completion: Completion,
    columns: Mapping[str, Sequence[Any]],
    keys: _Rows,
    brought: _Rows,
    t: int,
) -> list[dict[str, Any]]:
    rows = zip(*columns.values(), strict=True) if columns else ((),) * len(keys)
    return [
        completion.derived_values({**key, **dict(zip(columns, row, strict=True)), **request}, t)
        for row, key, request in zip(rows, keys, brought, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Learned:
    """The outcome of the latest answer of the library: its books, and the plan where there is one."""

    books: tuple[OnlineBooks, ...]
    plan: Plan | None


@dataclass(frozen=True, slots=True)
class PassThrough:
    """Answers that are made of stored rows."""

    store: OnlineStore
    log: ServedLog
    _learned: dict[_Key, _Learned] = field(default_factory=dict)
    _seen: SeenRows = field(default_factory=SeenRows)

    def learn(self, request: ReadRequest, answer: OnlineAnswer) -> None:
        """Note how more such requests are answered."""
        if request.details or request.arrow or request.layout != "nested":
            return
        key, books = _key(request), tuple(part.fetched.books for part in answer.parts)
        known = self._learned.get(key)
        if known is not None and _are_same(known.books, books):
            return
        if len(self._learned) >= _KEPT:
            self._learned.clear()
        self._learned[key] = _Learned(books, Plan.of(answer, self._seen, _is_held(request)))

    async def body(self, request: ReadRequest) -> bytes | None:
        """The answer's JSON, None where the library is to answer. Raises NotServed where rows are missing that should be there."""
        other_form = request.details or request.arrow or request.layout != "nested"
        if other_form or request.at is not None:
            return None
        key = _key(request)
        learned = self._learned.get(key)
        plan = None if learned is None else learned.plan
        if plan is None:
            return None
        service = request.features if isinstance(request.features, Service) else None
        now = clock.now()
        age: str | Duration | None = request.max_age
        if service is not None and age is None:
            age = service.max_age
        limit = None if age is None else MaxAge.at(now, age)
        if limit is not None and not limit.allows(*plan.since):
            return None
        try:
            keys = plan.keys.typed(request.entities)
            uses = plan.keys.by_feature(keys)
            brought = [] if service is None else request_rows(service, request.request, len(keys))
        except RetrievalError:
            return None
        if service is not None and self.log.takes_any(service.name, keys):
            return None
        requests = [
            RowRequest(feature, hashes, own)
            for feature, (own, hashes) in zip(plan.features, uses, strict=True)
        ]
        fetched = await answered_async(self.store.stored(requests))
        books = [held for held, _ in fetched]
        if not _are_same(plan.books, books):
            plan = plan.with_books(books)
            if plan is None or (limit is not None and not limit.allows(*plan.since)):
                return None
            self._learned[key] = _Learned(plan.books, plan)
        try:
            if len(keys) * len(requests) <= _MANY:
                body = plan.body(fetched, keys, brought, now)
            else:
                body = await asyncio.to_thread(plan.body, fetched, keys, brought, now)
        except Unfit:
            plan.misfits += 1
            if plan.misfits >= _MISFITS:
                self._learned[key] = _Learned(plan.books, None)
            return None
        if any(None in rows for _, rows in fetched):
            await answered_async(check_missing(plan.missing(fetched), self.store))
        return body


def _since(books: Sequence[OnlineBooks]) -> tuple[int, int]:
    counts_from = [*map(since, books)]
    return min(counts_from), max(counts_from)


def _key(request: ReadRequest) -> _Key:
    """The key that requests for the same have in common."""
    if isinstance(request.features, Service):
        return request.features
    return tuple(parse_references(request.features))


def _is_held(request: ReadRequest) -> bool:
    """Whether versions that it names, or a lock, are held against the books of each answer."""
    service = request.features if isinstance(request.features, Service) else None
    references = parse_references(request.features if service is None else service.features)
    kept = service is not None and service.kept is not None
    return kept or any(reference.version is not None for reference in references)


def _are_same(one: Sequence[object], other: Sequence[object]) -> bool:
    return len(one) == len(other) and all(map(is_, one, other))
