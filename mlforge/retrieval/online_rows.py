"""Books and rows of one instant for a request, and what a missing row means."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mlforge.core.schema import Schema
from mlforge.core.values import Version
from mlforge.errors import NotServed, OnlineError, RetrievalError, near_hint
from mlforge.online import Evidence, OnlineBooks, OnlineStore, Row, RowRequest
from mlforge.online.steps import Question, Steps
from mlforge.retrieval.max_age import MaxAge
from mlforge.retrieval.references import Reference
from mlforge.retrieval.spine import Entities, feature_entities


@dataclass(frozen=True, slots=True)
class FetchedRows:
    """A feature's books and rows, of one instant, and the entities by its own keys."""

    books: OnlineBooks
    rows: list[Row | None]
    entities: Entities


def fetched_rows(
    references: Sequence[Reference],
    entities: Sequence[Mapping[str, object]],
    store: OnlineStore,
    limit: MaxAge | None,
) -> Steps[list[FetchedRows]]:
    """The steps to the books and rows of each reference, all of one instant.

    limit: how old values may be. The books name the keys that entities must have.
    The books last seen are used, so that one round trip is enough, as long as the books fetched with the
    rows have the same keys. Raises NotServed and RetrievalError as `get_online_features`.
    """
    names = list(dict.fromkeys(reference.name for reference in references))
    known = store.last_seen(names)
    if len(known) < len(names):
        known = yield from _look(names, store, limit)
    while True:
        try:
            asked = feature_entities(entities, references, known)
        except RetrievalError:
            current = yield from _look(names, store, limit)
            if _keys(current) == _keys(known):
                raise
            known = current
            continue
        requests = [
            RowRequest(reference.name, hashes, own)
            for reference, (own, hashes) in zip(references, asked, strict=True)
        ]
        answers = yield from store.reading(requests)
        of_each = [reference.name for reference in references]
        served = yield from _served(of_each, [books for books, _ in answers], store)
        fetched = [
            FetchedRows(_fresh(reference.name, books, limit), rows, own)
            for reference, (own, _), books, (_, rows) in zip(
                references, asked, served, answers, strict=True
            )
        ]
        if all(
            rows.books.keys == known[reference.name].keys
            for reference, rows in zip(references, fetched, strict=True)
        ):
            return fetched
        known = {r.name: rows.books for r, rows in zip(references, fetched, strict=True)}


def check_missing(
    rows: Iterable[tuple[str, OnlineBooks, Sequence[object]]], store: OnlineStore
) -> Steps[None]:
    """A missing row means empty windows, unless the server may have dropped it or a push with other columns has.

    rows: each feature's name, its books and its rows. The store's evidence is asked for once, after the rows were
    read, and only where it matters. Raises NotServed.
    """
    evidence: list[Evidence | None] = []
    for name, books, of_feature in rows:
        if None not in of_feature:
            continue
        _check_columns(name, books)
        if books.evidence is None:
            continue
        if not evidence:
            evidence.append((yield Question(store.evidence, store.evidence_async)))
        [now] = evidence
        loss = None if now is None else books.evidence.loss_by(now)
        if loss is not None:
            raise NotServed(
                f"{name}: rows are missing online, and perhaps not for want of events: {loss}; the worker, or "
                "'mlforge build --online', counts them and writes anew what is lost. Raise the server's maxmemory "
                "if it evicts"
            )


def _check_columns(name: str, books: OnlineBooks) -> None:
    """Raise NotServed where a push that has begun may have taken a row away: one with other columns."""
    assert books.target is not None
    major = Version.parse(books.target.version).major
    if any(Version.parse(target.version).major != major for target in books.pending):
        raise NotServed(
            f"{name}: a version with other columns is being pushed at this moment; ask again"
        )


def _look(
    names: Sequence[str], store: OnlineStore, limit: MaxAge | None
) -> Steps[dict[str, OnlineBooks]]:
    fetched = yield from store.reading([RowRequest(name) for name in names])
    served = yield from _served(names, [books for books, _ in fetched], store)
    return {name: _fresh(name, books, limit) for name, books in zip(names, served, strict=True)}


def _keys(books: Mapping[str, OnlineBooks]) -> list[Schema]:
    return [held.keys for held in books.values()]


def _served(
    names: Sequence[str], books: Sequence[OnlineBooks | None], store: OnlineStore
) -> Steps[list[OnlineBooks]]:
    """The books of some features; NotServed for a feature without any, which tells of served ones with a like name."""
    served: list[OnlineBooks] = []
    for name, held in zip(names, books, strict=True):
        if held is None or held.target is None:
            listed = yield Question(_listed, _listed_async, (store,))
            near = near_hint(name, [other for other in listed if other != name])
            raise NotServed(
                f"{name} is not served online{near}: push it with 'mlforge build --features {name} --online', "
                "or start a worker"
            )
        served.append(held)
    return served


def _listed(store: OnlineStore) -> list[str]:
    """The features that were pushed to the store; none where it cannot tell, since they are for advice alone."""
    try:
        return store.features()
    except OnlineError:
        return []


async def _listed_async(store: OnlineStore) -> list[str]:
    return await asyncio.to_thread(_listed, store)


def _fresh(name: str, books: OnlineBooks, limit: MaxAge | None) -> OnlineBooks:
    """The books, unless their values are too old."""
    fault = limit and limit.fault(books)
    if fault:
        raise NotServed(f"{name} {fault}")
    return books
