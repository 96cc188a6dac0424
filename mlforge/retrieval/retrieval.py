"""Answers: training sets from the offline store, current values from the online store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any

import polars as pl

from mlforge.core import clock
from mlforge.core.manifest import Manifest
from mlforge.core.schema import Schema
from mlforge.core.values import Duration, Version, to_iso
from mlforge.engines import engine_named, evaluation
from mlforge.engines.events import events_of
from mlforge.errors import NotServed, RetrievalError
from mlforge.frames import interop
from mlforge.online import Evidence, OnlineBooks, OnlineStore, Row
from mlforge.retrieval.spine import checked_entities, entity_hashes, spine_points
from mlforge.store import Store

FeatureRef = str | tuple[str, str]


def get_training_data(
    spine: Any,
    features: Sequence[FeatureRef],
    store: Store,
    timestamp: str | None = None,
    engine: str = "polars",
) -> Any:
    """The spine with each feature's values as of each row's own time.

    spine: a polars DataFrame or LazyFrame, a pandas DataFrame or a pyarrow Table with the features' keys
        and, for features with a timestamp, one temporal column. The same kind comes back: its rows in
        their order, its columns, and behind them `<feature>__<column>` for each value.
    features: names (the served version) or `(name, version)`; of two versions of one feature the
        prefix is `<feature>__<version>`.
    timestamp: the spine's time column; by default the feature's own timestamp name, else the only
        temporal column.

    For metrics each value is exactly `value(entity, t)`; for a timestamped feature without metrics the
    latest row at or before `t`; for an untimed one the key's row. A null key or time is never
    matched. Only the store is needed, no definitions.
    Raises RetrievalError for a spine that does not fit, StoreError for an unknown feature or version.
    """
    table = interop.taken(spine)
    columns: list[pl.Series] = []
    for prefix, manifest in _resolve(features, store):
        points = spine_points(table, manifest, timestamp)
        values = evaluation.values_at(engine_named(engine), events_of(store, manifest), points)
        columns += [column.alias(f"{prefix}__{column.name}") for column in values]
    taken = set(table.columns)
    for name in (column.name for column in columns):
        if name in taken:
            raise RetrievalError(
                f"the spine has a column {name!r}, which a feature gives; rename the spine's"
            )
        taken.add(name)
    return table.with_values(pl.DataFrame(columns))


def get_online_features(
    features: Sequence[str],
    entities: Sequence[Mapping[str, object]],
    store: OnlineStore,
    max_age: str | timedelta | None = None,
) -> list[dict[str, Any]]:
    """Current values: a dict per entity in the order asked, keys first, then `<feature>__<column>`.

    entities: dicts with all the features' keys and nothing else. An entity without a row has empty
        windows: counts 0, all else None.
    max_age: the oldest acceptable `as_of`, a duration like `"1h"` or a timedelta. An untimed feature has
        none: there the time of its last push counts.

    Raises NotServed for a feature without books, or whose values are older than `max_age`;
    RetrievalError for wrong key names.
    """
    if isinstance(features, str) or not features:
        raise RetrievalError("features must be a list of names, at least one")
    oldest = None if max_age is None else clock.now() - Duration.parse(max_age, "max_age").us
    names = list(dict.fromkeys(features))
    answers = [dict(entity) for entity in checked_entities(entities)]
    losses = cache(store.losses)  # asked once the rows are there, and once for all features
    for name, (held, rows) in _fetched(names, entities, store, oldest).items():
        columns = [column.name for column in held.columns]
        labels = [f"{name}__{column}" for column in columns]
        if None in rows:
            check_empty(name, held, losses)
        try:
            for answer, row in zip(answers, rows, strict=True):
                values = held.empty if row is None else row
                answer.update(zip(labels, map(values.__getitem__, columns), strict=True))
        except KeyError:
            raise _between(name) from None
    return answers


def _fetched(
    names: Sequence[str],
    entities: Sequence[Mapping[str, object]],
    store: OnlineStore,
    oldest: int | None,
) -> dict[str, tuple[OnlineBooks, list[Row | None]]]:
    """Each feature's books and rows, of one instant.

    Which keys the entities must have stands in the books. Those last seen will do, so that one round trip
    is enough, if the books that come with the rows have the same keys.
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
        fetched = store.fetch_hashed([(name, hashes[name]) for name in names])
        found = {
            name: (_served(name, books, oldest), rows)
            for name, (books, rows) in zip(names, fetched, strict=True)
        }
        current = {name: books for name, (books, _) in found.items()}
        if _keys(current) == _keys(known):
            return found
        known = current


def _look(names: Sequence[str], store: OnlineStore, oldest: int | None) -> dict[str, OnlineBooks]:
    fetched = store.fetch_hashed([(name, ()) for name in names])
    return {
        name: _served(name, books, oldest) for name, (books, _) in zip(names, fetched, strict=True)
    }


def _keys(books: Mapping[str, OnlineBooks]) -> list[Schema]:
    return [held.keys for held in books.values()]


def check_empty(name: str, books: OnlineBooks, losses: Callable[[], Evidence | None]) -> None:
    """A missing row means empty windows, unless the server dropped it or a push with other columns has.

    losses: tells those of the store as they are after the rows were read.
    """
    assert books.target is not None
    major = Version.parse(books.target.version).major
    if any(Version.parse(target.version).major != major for target in books.pending):
        raise _between(name)
    if books.losses is None or (now := losses()) is None or books.losses.excluded(now):
        return
    raise NotServed(
        f"{name}: rows are missing online, and not for want of events: the server has evicted keys or "
        "somebody has deleted some; the worker, or 'mlforge build --online', writes them anew. Raise the "
        "server's maxmemory if it evicts"
    )


def _between(name: str) -> NotServed:
    return NotServed(
        f"{name}: a version with other columns is being pushed at this moment; ask again"
    )


def _served(name: str, books: OnlineBooks | None, oldest: int | None) -> OnlineBooks:
    if books is None or books.target is None:
        raise NotServed(
            f"{name} is not served online: push it with 'mlforge build --features {name} --online', or start a worker"
        )
    as_of = books.target.as_of
    told, since = (
        ("is served as of", as_of) if as_of is not None else ("was pushed at", books.pushed_at)
    )
    if oldest is not None and since < oldest:
        raise NotServed(
            f"{name} {told} {to_iso(since)}, older than max_age allows ({to_iso(oldest)})"
        )
    return books


def _resolve(features: Sequence[FeatureRef], store: Store) -> list[tuple[str, Manifest]]:
    """Each feature's manifest and prefix; the same version twice is refused."""
    if isinstance(features, str) or not features:
        raise RetrievalError(
            "features must be a list of names or (name, version) pairs, at least one"
        )
    manifests: dict[tuple[str, str], Manifest] = {}
    for reference in features:
        name, version = _named(reference)
        manifest = store.resolve(name, version)
        key = (manifest.name, str(manifest.version))
        if key in manifests:
            raise RetrievalError(f"{name} {manifest.version} is asked for twice; name it once")
        manifests[key] = manifest
    names = [name for name, _ in manifests]
    return [
        (name if names.count(name) == 1 else f"{name}__{version}", manifest)
        for (name, version), manifest in manifests.items()
    ]


def _named(reference: object) -> tuple[str, str | None]:
    match reference:
        case str(name):
            return name, None
        case (str(name), str(version)):
            return name, version
    raise RetrievalError(f"{reference!r} is neither a feature's name nor (name, version)")
