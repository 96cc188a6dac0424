"""Current values of entities, from the online store."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any, TypeAlias

from mlforge.core import clock
from mlforge.core.arguments import flag
from mlforge.core.lock import Lock, lock_named
from mlforge.core.schema import Column, Schema
from mlforge.core.signatures import named_arguments
from mlforge.errors import NotServed, RetrievalError
from mlforge.online import OnlineBooks, OnlineStore
from mlforge.online.finishing import answer_columns
from mlforge.online.steps import Steps, answered, answered_async
from mlforge.retrieval.details import (
    FeatureDetails,
    ValueDetails,
    complete_details,
    default_details,
)
from mlforge.retrieval.feature_part import FeaturePart, key_rows_of, keys_of, outputs_of
from mlforge.retrieval.locked import check_settled
from mlforge.retrieval.max_age import MaxAge
from mlforge.retrieval.online_rows import FetchedRows, check_missing, fetched_rows
from mlforge.retrieval.references import (
    AnswerNames,
    FeatureRef,
    Reference,
    check_store,
    parse_instant,
    parse_references,
)
from mlforge.retrieval.spine import checked_entities
from mlforge.services.brought import request_rows
from mlforge.services.completion import Completion, completion, own_defaults
from mlforge.services.keeping import AT
from mlforge.services.locking import check_lock, promised
from mlforge.services.service import Service

DETAILS = "details"
"""The name in an answer under which the details of its values are."""
Answers: TypeAlias = list[dict[str, Any]]
Details: TypeAlias = dict[str, ValueDetails]


@named_arguments("get_online_features")
def get_online_features(
    features: Sequence[FeatureRef] | Service,
    entities: Sequence[Mapping[str, object]],
    store: OnlineStore,
    max_age: str | timedelta | None = None,
    at: datetime | date | str | int | None = None,
    request: Sequence[Mapping[str, object]] | None = None,
    details: bool = False,
    lock: Lock | str | os.PathLike[str] | None = None,
) -> Answers:
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
    details: add `"details"` to each answer, a dict from each value's column to its `ValueDetails`: whether it is
        present, empty, missing or stale, its version, `as_of` and age. Values older than `max_age` are then given,
        as "stale".
    lock: what a model was made with, a Lock or the path of its file: each of its columns must be served as it was.

    Raises NotServed for a feature without books, one whose values are older than `max_age`, or a version that
    is not the served one; RetrievalError for wrong key names, unknown columns, or two columns that would have one
    name; LockMismatch for a locked column that is gone or means something else; OwnedElsewhere for rows of another store than `store.owner`; OnlineError for rows or books of the wrong shape.
    """
    steps = online_answer(features, entities, store, max_age, at, request, details, lock)
    return answered(steps).rows


@named_arguments("aget_online_features")
async def aget_online_features(
    features: Sequence[FeatureRef] | Service,
    entities: Sequence[Mapping[str, object]],
    store: OnlineStore,
    max_age: str | timedelta | None = None,
    at: datetime | date | str | int | None = None,
    request: Sequence[Mapping[str, object]] | None = None,
    details: bool = False,
    lock: Lock | str | os.PathLike[str] | None = None,
) -> Answers:
    """The answers of `get_online_features`, with its errors, read without blocking the running event loop.

    Each event loop has a connection of its own, opened when it is first needed and closed when the loop ends, or
    by `await store.aclose()`. A task that is cancelled leaves nothing behind.
    """
    steps = online_answer(features, entities, store, max_age, at, request, details, lock)
    return (await answered_async(steps)).rows


@dataclass(frozen=True, slots=True)
class OnlineAnswer:
    """The rows of an answer, and what they are made from.

    rows: as `get_online_features` gives them. parts: a part for each feature, in order. service: the service that was
    asked for; None for features. t: the instant of derived columns, UTC microseconds.
    """

    rows: Answers
    parts: Sequence[FeaturePart]
    service: Service | None
    t: int

    @property
    def keys(self) -> Schema:
        """The keys by their names in entities, with the features' dtypes."""
        return keys_of(self.parts)

    @property
    def key_rows(self) -> list[dict[str, Any]]:
        """The keys of each entity in the features' dtypes, whatever the caller wrote them as."""
        return key_rows_of(self.parts, [key.name for key in self.keys])

    @property
    def completion(self) -> Completion | None:
        """The completion that the service makes of its features' columns; None where features were asked for."""
        service = self.service
        if service is None:
            return None
        return completion(service, outputs_of(self.parts), self.keys if service.derived else ())

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The defaults, which take the place of null, by column."""
        complete = self.completion
        return own_defaults(outputs_of(self.parts)) if complete is None else complete.defaults

    @property
    def columns(self) -> Schema:
        """The columns of a row in its order, keys first, with their dtypes."""
        of_features = tuple(Column(output.label, output.dtype) for output in outputs_of(self.parts))
        complete = self.completion
        if self.service is None or complete is None:
            return (*self.keys, *of_features)
        derived = tuple(Column(column.name, column.dtype) for column in complete.derived)
        return (*self.keys, *self.service.request, *of_features, *derived)


def online_answer(
    features: Sequence[FeatureRef] | Service,
    entities: Sequence[Mapping[str, object]],
    store: OnlineStore,
    max_age: str | timedelta | None,
    at: datetime | date | str | int | None,
    request: Sequence[Mapping[str, object]] | None,
    details: bool,
    lock: Lock | str | os.PathLike[str] | None = None,
) -> Steps[OnlineAnswer]:
    """The steps of an online read, whoever waits for the store; arguments and errors of `get_online_features`."""
    if isinstance(features, str) and AT in features:
        raise RetrievalError(
            f"{features!r} names a version of a service, which the offline store keeps; give Service.at(LocalStore("
            f"'feature_store'), {features!r})"
        )
    service = features if isinstance(features, Service) else None
    named = parse_references(service.features if service else features)
    references = list(dict.fromkeys(replace(r, version=None) if r.version else r for r in named))
    check_store(store, OnlineStore, "RedisStore(host='localhost')")
    now = clock.now()
    t = now if at is None else parse_instant(at)
    age = service.max_age if service is not None and max_age is None else max_age
    limit = None if age is None else MaxAge.at(now, age)
    keys = [dict(entity) for entity in checked_entities(entities)]
    if service is None and request is not None:
        raise RetrievalError("request= goes with a Service, which says what its columns are")
    brought = request_rows(service, request, len(keys)) if service is not None else []
    flag(details, "details")
    locked = None if lock is None else lock_named(lock)
    fetched = yield from fetched_rows(references, entities, store, None if details else limit)
    _check_versions(named, {r.name: f.books for r, f in zip(references, fetched, strict=True)})
    parts = _locked_parts(references, fetched, service, locked, details)
    yield from check_missing(
        [(part.reference.name, part.fetched.books, part.fetched.rows) for part in parts], store
    )
    answers = keys if service is None else [{} for _ in keys]
    for part in parts:
        labels, columns = part.labels, part.columns
        for answer, row in zip(answers, part.rows(t), strict=True):
            answer.update(zip(labels, map(row.__getitem__, columns), strict=True))
    of_values = _details(parts, answers, now, limit) if details else []
    if service is not None:
        own, of_values = _completed(service, parts, answers, brought, of_values, t)
        answers = [
            {**key, **row, **values} for key, row, values in zip(keys, brought, own, strict=True)
        ]
    elif any(part.fetched.books.defaults for part in parts):
        of_values = _with_defaults(parts, answers, of_values)
    for answer, of_answer in zip(answers, of_values, strict=False):
        answer[DETAILS] = of_answer
    return OnlineAnswer(answers, parts, service, t)


def _completed(
    service: Service,
    parts: Sequence[FeaturePart],
    answers: Sequence[dict[str, Any]],
    brought: Sequence[Mapping[str, Any]],
    of_values: Sequence[Details],
    t: int,
) -> tuple[list[dict[str, Any]], list[Details]]:
    """A service's columns for each entity, derived ones last, and the details of their values where those of the features' are given."""
    complete = completion(service, outputs_of(parts), keys_of(parts) if service.derived else ())
    own = [
        complete.row(*row, t)
        for row in zip(answers, brought, key_rows_of(parts, complete.keys), strict=True)
    ]
    told = zip(of_values, answers, own, strict=False)
    return own, [complete_details(complete, *row) for row in told]


def _with_defaults(
    parts: Sequence[FeaturePart], answers: Sequence[dict[str, Any]], of_values: Sequence[Details]
) -> list[Details]:
    """The details of values, after the features' defaults have taken the place of nulls in the answers."""
    defaults = own_defaults(outputs_of(parts))
    told = [default_details(defaults, *row) for row in zip(of_values, answers, strict=False)]
    for answer in answers:
        answer.update((label, value) for label, value in defaults.items() if answer[label] is None)
    return told


def _locked_parts(
    references: Sequence[Reference],
    fetched: Sequence[FetchedRows],
    service: Service | None,
    lock: Lock | None,
    details: bool,
) -> list[FeaturePart]:
    """Each reference's part of the answer, held against the lock, and against that of a service's kept version."""
    own = [] if service is None else service.own_names
    kept = None if service is None else service.kept
    with nullcontext() if service is None else promised(service):
        parts = _parts(references, fetched, own, details)
        if lock is None and kept is None:
            return parts
        for part in parts:
            check_settled(part.reference.name, part.fetched.books)
        columns = tuple(column for part in parts for column in part.used)
        names = {f: part.reference.name for part in parts for f in part.fetched.books.formerly}
        if kept is not None:
            check_lock(kept.renamed(names), service, columns)
    if lock is not None:
        check_lock(lock.renamed(names), service, columns)
    return parts


def _parts(
    references: Sequence[Reference],
    fetched: Sequence[FetchedRows],
    own: Sequence[str],
    details: bool,
) -> list[FeaturePart]:
    """Each reference's part of the answer; RetrievalError for unknown columns and for two of one name.

    own: the service's own names.
    """
    columns = [
        reference.chosen(answer_columns(rows.books))
        for reference, rows in zip(references, fetched, strict=True)
    ]
    if details and DETAILS in own:
        raise RetrievalError(
            f"the service has a column {DETAILS!r}, where an answer has its details; rename the column"
        )
    taken = [*own, DETAILS] if details else own
    labels = _labels(references, fetched, columns, taken)
    return [FeaturePart(*each) for each in zip(references, fetched, columns, labels, strict=True)]


def _details(
    parts: Sequence[FeaturePart], answers: Answers, now: int, limit: MaxAge | None
) -> list[Details]:
    """The details of each answer's values, by column."""
    details: list[Details] = [{} for _ in answers]
    for part in parts:
        of_feature = FeatureDetails.of(part.fetched.books, now, limit)
        for answer, row, of_answer in zip(answers, part.fetched.rows, details, strict=True):
            for label, column in zip(part.labels, part.columns, strict=True):
                of_answer[label] = of_feature.of_value(row is not None, column, answer[label])
    return details


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
                f"or serve the other with 'mlforge rollback {name} {version}'"
            )


def _labels(
    references: Sequence[Reference],
    fetched: Sequence[FetchedRows],
    columns: Sequence[Sequence[str]],
    own: Sequence[str],
) -> list[list[str]]:
    """The names of each reference's columns in the answer; RetrievalError if two are equal, or one equals a key's.

    own: the service's own names.
    """
    keys: set[str] = set()
    for reference, rows in zip(references, fetched, strict=True):
        keys.update(reference.key_names(key.name for key in rows.books.keys).values())
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
