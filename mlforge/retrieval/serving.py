"""Current values of entities, from the online store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any

from mlforge.core import clock
from mlforge.core.schema import Schema
from mlforge.core.signatures import named_arguments
from mlforge.core.values import Duration, Version, to_iso
from mlforge.errors import NotServed, RetrievalError
from mlforge.online import Evidence, OnlineBooks, OnlineStore, Row, RowRequest
from mlforge.online.finishing import answer_columns, answer_dtypes, finished
from mlforge.retrieval.references import (
    AnswerNames,
    FeatureRef,
    Reference,
    check_store,
    parse_instant,
    parse_references,
)
from mlforge.retrieval.spine import Entities, checked_entities, feature_entities
from mlforge.services.completion import Output, completion, request_rows
from mlforge.services.service import Service


@named_arguments("get_online_features")
def get_online_features(
    features: Sequence[FeatureRef] | Service,
    entities: Sequence[Mapping[str, object]],
    store: OnlineStore,
    max_age: str | timedelta | None = None,
    at: datetime | date | str | int | None = None,
    request: Sequence[Mapping[str, object]] | None = None,
) -> list[dict[str, Any]]:
    """Current values: a dict per entity, in the entities' order, keys first, then `<feature>__<column>`.

    Values equal those of training for the same version and instant, types included: Decimal, date,
    time, datetime in UTC.

    features: as in a training set, or a Service; a version that is named must be the served one. A service's
        request columns come behind the keys, its derived columns last.
    entities: dicts with all the features' keys and nothing else. An entity without a row has empty
        windows: counts 0, all else None.
    max_age: the oldest acceptable `as_of`, a duration like `"1h"` or a timedelta; by default the service's. An
        untimed feature has none: there the time of its last push counts.
    at: the instant `t` of derived columns, by default now: a datetime or date (naive is UTC), its ISO 8601
        text, or UTC microseconds. Windows are those of `as_of`, whatever it is.
    request: a dict for each entity with the service's request columns.

    Raises NotServed for a feature without books, one whose values are older than `max_age`, or a version that
    is not the served one; RetrievalError for wrong key names, unknown columns, or two columns that would have one
    name; OwnedElsewhere for rows of another store than `store.owner`; OnlineError for rows or books of the wrong shape.
    """
    service = features if isinstance(features, Service) else None
    named = parse_references(service.features if service else features)
    references = list(dict.fromkeys(replace(r, version=None) if r.version else r for r in named))
    check_store(store, OnlineStore, "RedisStore(host='localhost')")
    t = clock.now() if at is None else parse_instant(at)
    age = service.max_age if service is not None and max_age is None else max_age
    oldest = None if age is None else clock.now() - Duration.parse(age, "max_age").us
    answers = [dict(entity) for entity in checked_entities(entities)]
    if service is None and request is not None:
        raise RetrievalError("request= goes with a Service, which says what its columns are")
    brought = request_rows(service, request, len(answers)) if service is not None else []
    evidence = cache(store.evidence)  # called after the rows were read, and once for all features
    fetched = _fetched(references, entities, store, oldest)
    _check_versions(named, {r.name: f.books for r, f in zip(references, fetched, strict=True)})
    own = [] if service is None else service.own_names
    columns = [
        reference.chosen(answer_columns(use.books))
        for reference, use in zip(references, fetched, strict=True)
    ]
    labels = _labels(references, fetched, columns, own)
    values: list[dict[str, Any]] = [{} for _ in answers] if service is not None else answers
    for reference, names, chosen, use in zip(references, labels, columns, fetched, strict=True):
        if None in use.rows:
            check_empty(reference.name, use.books, evidence)
        values_of = finished(reference.name, use.books, use.rows, use.entities, t)
        for answer, row in zip(values, values_of, strict=True):
            answer.update(zip(names, map(row.__getitem__, chosen), strict=True))
    if service is None:
        return answers
    complete = completion(service, _outputs(references, labels, columns, fetched)).row
    return [
        {**keys, **row, **complete(value, row, t)}
        for keys, row, value in zip(answers, brought, values, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Fetched:
    """A feature's books and rows, of one instant, and the entities by its own keys."""

    books: OnlineBooks
    rows: list[Row | None]
    entities: Entities


def _outputs(
    references: Sequence[Reference],
    labels: Sequence[Sequence[str]],
    columns: Sequence[Sequence[str]],
    fetched: Sequence[_Fetched],
) -> tuple[Output, ...]:
    """The features' columns in the answer, with their dtypes."""
    return tuple(
        Output(label, column, dtype_of[column])
        for reference, names, chosen, use in zip(references, labels, columns, fetched, strict=True)
        for dtype_of in [answer_dtypes(reference.name, use.books)]
        for label, column in zip(names, chosen, strict=True)
    )


def _check_versions(named: Sequence[Reference], books: Mapping[str, OnlineBooks]) -> None:
    """Raise NotServed for a version that is named and not the served one."""
    for reference in named:
        name, version = reference.name, reference.version
        target = books[name].target
        assert target is not None
        if version is not None and str(version) != target.version:
            served = target.version
            raise NotServed(
                f"{name} {version} is not served online, {served} is; ask for {name!r} or ({name!r}, {served!r}), "
                f"or serve the other with 'mlforge rollback {name}'"
            )


def _labels(
    references: Sequence[Reference],
    fetched: Sequence[_Fetched],
    columns: Sequence[Sequence[str]],
    own: Sequence[str],
) -> list[list[str]]:
    """The names of each reference's columns in the answer; RetrievalError if two are equal, or one equals a key's.

    own: the service's own names.
    """
    keys: set[str] = set()
    for reference, use in zip(references, fetched, strict=True):
        keys.update(reference.key_names(key.name for key in use.books.keys).values())
    labels = [
        [f"{reference.prefix or reference.name}__{column}" for column in chosen]
        for reference, chosen in zip(references, columns, strict=True)
    ]
    each = {label for feature_labels in labels for label in feature_labels}
    if len(each) < sum(map(len, labels)) or not each.isdisjoint(keys):
        names = AnswerNames(keys, "there is a key")
        for reference, chosen, feature_labels in zip(references, columns, labels, strict=True):
            for column, label in zip(chosen, feature_labels, strict=True):
                names.add(label, reference.name, column)
    for name in own:
        if name in keys:
            raise RetrievalError(
                f"there is a key {name!r}, which is a column of the service, too; rename the service's column"
            )
    return labels


def _fetched(
    references: Sequence[Reference],
    entities: Sequence[Mapping[str, object]],
    store: OnlineStore,
    oldest: int | None,
) -> list[_Fetched]:
    """The books and rows of each reference, all of one instant.

    The books name the keys that entities must have. The books last seen are used, so that one round trip
    is enough, as long as the books fetched with the rows have the same keys.
    """
    names = list(dict.fromkeys(reference.name for reference in references))
    known = store.last_seen(names)
    if len(known) < len(names):
        known = _look(names, store, oldest)
    while True:
        try:
            uses = feature_entities(entities, references, known)
        except RetrievalError:
            current = _look(names, store, oldest)
            if _keys(current) == _keys(known):
                raise
            known = current
            continue
        requests = [
            RowRequest(reference.name, hashes, own)
            for reference, (own, hashes) in zip(references, uses, strict=True)
        ]
        answers = store.fetch_hashed(requests)
        fetched = [
            _Fetched(_served(reference.name, books, oldest), rows, own)
            for reference, (own, _), (books, rows) in zip(references, uses, answers, strict=True)
        ]
        if all(
            use.books.keys == known[reference.name].keys
            for reference, use in zip(references, fetched, strict=True)
        ):
            return fetched
        known = {r.name: use.books for r, use in zip(references, fetched, strict=True)}


def _look(names: Sequence[str], store: OnlineStore, oldest: int | None) -> dict[str, OnlineBooks]:
    fetched = store.fetch_hashed([RowRequest(name) for name in names])
    return {
        name: _served(name, books, oldest) for name, (books, _) in zip(names, fetched, strict=True)
    }


def _keys(books: Mapping[str, OnlineBooks]) -> list[Schema]:
    return [held.keys for held in books.values()]


def check_empty(name: str, books: OnlineBooks, evidence: Callable[[], Evidence | None]) -> None:
    """A missing row means empty windows, unless the server dropped it or a push with other columns has.

    evidence: returns the store's evidence after the rows were read.
    """
    assert books.target is not None
    major = Version.parse(books.target.version).major
    if any(Version.parse(target.version).major != major for target in books.pending):
        raise NotServed(
            f"{name}: a version with other columns is being pushed at this moment; ask again"
        )
    if books.evidence is None or (now := evidence()) is None or books.evidence.excluded(now):
        return
    raise NotServed(
        f"{name}: rows are missing online, and not for want of events: the server has evicted keys or "
        "somebody has deleted some; the worker, or 'mlforge build --online', writes them anew. Raise the "
        "server's maxmemory if it evicts"
    )


def _served(name: str, books: OnlineBooks | None, oldest: int | None) -> OnlineBooks:
    if books is None or books.target is None:
        raise NotServed(
            f"{name} is not served online: push it with 'mlforge build --features {name} --online', or start a worker"
        )
    as_of = books.target.as_of
    standing, since = (
        ("is served as of", as_of) if as_of is not None else ("was pushed at", books.pushed_at)
    )
    if oldest is not None and since < oldest:
        raise NotServed(
            f"{name} {standing} {to_iso(since)}, older than max_age allows ({to_iso(oldest)})"
        )
    return books
