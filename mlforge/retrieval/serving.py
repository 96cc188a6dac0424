"""Current values of entities, from the online store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any

from mlforge.core import clock
from mlforge.core.schema import Schema
from mlforge.core.values import Duration, Version, to_iso
from mlforge.errors import NotServed, RetrievalError
from mlforge.online import Evidence, OnlineBooks, OnlineStore, Row, RowRequest
from mlforge.online.finishing import answer_columns, finished
from mlforge.retrieval.references import (
    AnswerNames,
    FeatureRef,
    Reference,
    check_store,
    parse_instant,
    parse_references,
)
from mlforge.retrieval.spine import checked_entities, entity_hashes


def get_online_features(
    features: Sequence[FeatureRef],
    entities: Sequence[Mapping[str, object]],
    store: OnlineStore,
    max_age: str | timedelta | None = None,
    at: datetime | date | str | int | None = None,
) -> list[dict[str, Any]]:
    """Current values: a dict per entity, in the entities' order, keys first, then `<feature>__<column>`.

    Values equal those of training for the same version and instant, types included: Decimal, date,
    time, datetime in UTC.

    features: names, or `(name, version)` as in a training set: then that version must be the served one.
    entities: dicts with all the features' keys and nothing else. An entity without a row has empty
        windows: counts 0, all else None.
    max_age: the oldest acceptable `as_of`, a duration like `"1h"` or a timedelta. An untimed feature has
        none: there the time of its last push counts.
    at: the instant `t` of derived columns, by default now: a datetime or date (naive is UTC), its ISO 8601
        text, or UTC microseconds. Windows are those of `as_of`, whatever it is.

    Raises NotServed for a feature without books, one whose values are older than `max_age`, or a version that
    is not the served one; RetrievalError for wrong key names, or two columns that would have one name;
    OwnedElsewhere for rows of another store than `store.owner`; OnlineError for rows or books of the wrong shape.
    """
    references = parse_references(features)
    check_store(store, OnlineStore, "RedisStore(host='localhost')")
    t = clock.now() if at is None else parse_instant(at)
    oldest = None if max_age is None else clock.now() - Duration.parse(max_age, "max_age").us
    answers = [dict(entity) for entity in checked_entities(entities)]
    evidence = cache(store.evidence)  # called after the rows were read, and once for all features
    names = list(dict.fromkeys(reference.name for reference in references))
    fetched = _fetched(names, entities, store, oldest)
    _check_versions(references, fetched)
    labels = _labels(fetched)
    for name, (books, rows) in fetched.items():
        if None in rows:
            check_empty(name, books, evidence)
        columns = answer_columns(books)
        values_of = finished(name, books, rows, entities, t)
        for answer, values in zip(answers, values_of, strict=True):
            answer.update(zip(labels[name], map(values.__getitem__, columns), strict=True))
    return answers


def _check_versions(
    references: Sequence[Reference], fetched: Mapping[str, tuple[OnlineBooks, list[Row | None]]]
) -> None:
    """Raise NotServed for a version that is named and not the served one."""
    for reference in references:
        name, version = reference.name, reference.version
        books, _ = fetched[name]
        assert books.target is not None
        if version is not None and str(version) != books.target.version:
            served = books.target.version
            raise NotServed(
                f"{name} {version} is not served online, {served} is; ask for {name!r} or ({name!r}, {served!r}), "
                f"or serve the other with 'mlforge rollback {name}'"
            )


def _labels(
    fetched: Mapping[str, tuple[OnlineBooks, list[Row | None]]],
) -> dict[str, list[str]]:
    """Each feature's column names in the answer; RetrievalError if two are equal, or one equals a key's."""
    keys = {key.name for books, _ in fetched.values() for key in books.keys}
    labels = {
        feature: [f"{feature}__{column}" for column in answer_columns(books)]
        for feature, (books, _) in fetched.items()
    }
    each = {label for feature_labels in labels.values() for label in feature_labels}
    if len(each) == sum(map(len, labels.values())) and each.isdisjoint(keys):
        return labels
    names = AnswerNames(keys, "there is a key")
    for feature, (books, _) in fetched.items():
        for column, label in zip(answer_columns(books), labels[feature], strict=True):
            names.add(label, feature, column)
    return labels


def _fetched(
    names: Sequence[str],
    entities: Sequence[Mapping[str, object]],
    store: OnlineStore,
    oldest: int | None,
) -> dict[str, tuple[OnlineBooks, list[Row | None]]]:
    """Each feature's books and rows, of one instant.

    The books name the keys that entities must have. The books last seen are used, so that one round trip
    is enough, as long as the books fetched with the rows have the same keys.
    """
    known = store.last_seen(names)
    if len(known) < len(names):
        known = _look(names, store, oldest)
    while True:
        try:
            hashes = entity_hashes(entities, known)
        except RetrievalError:
            current = _look(names, store, oldest)
            if _keys(current) == _keys(known):
                raise
            known = current
            continue
        fetched = store.fetch_hashed([RowRequest(name, hashes[name], entities) for name in names])
        served = {
            name: (_served(name, books, oldest), rows)
            for name, (books, rows) in zip(names, fetched, strict=True)
        }
        current = {name: books for name, (books, _) in served.items()}
        if _keys(current) == _keys(known):
            return served
        known = current


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
