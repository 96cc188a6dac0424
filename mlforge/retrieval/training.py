"""Training sets: a spine, and beside it the values that features had at each row's own time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import polars as pl
import structlog

from mlforge.core.manifest import Manifest
from mlforge.core.values import TimeRange
from mlforge.engines import POINT, Events, engine_named, evaluation
from mlforge.engines.events import events_of
from mlforge.errors import IntegrityError, RetrievalError, StoreError, VersionNotFound
from mlforge.frames import interop
from mlforge.retrieval.references import (
    AnswerNames,
    FeatureRef,
    Reference,
    check_store,
    parse_references,
)
from mlforge.retrieval.spine import spine_points
from mlforge.store import Store
from mlforge.store.integrity import intact

_TRIES = 3
_DRAWN = 3

log = structlog.get_logger("mlforge.training")


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
    Raises RetrievalError for a spine that does not fit or two columns that would have one name, StoreError for
    an unknown feature or version, or one that was pruned while it was read.
    """
    table, references = interop.taken(spine), parse_references(features)
    check_store(store, Store, "LocalStore('feature_store')")
    for attempt in range(_TRIES):
        manifests = _resolve(references, store)
        try:
            with _leases(manifests, store):
                columns = _columns(table, manifests, store, timestamp, engine)
        except (IntegrityError, VersionNotFound) as error:
            if not _was_pruned(references, manifests, store, error) or attempt == _TRIES - 1:
                raise
            continue
        return table.with_values(pl.DataFrame(columns))
    raise AssertionError("the last attempt returns or raises")


@contextmanager
def _leases(manifests: Sequence[tuple[str, Manifest]], store: Store) -> Iterator[None]:
    """Keep the versions from being pruned while they are read."""
    with ExitStack() as leases:
        for _, manifest in manifests:
            if manifest.version is not None:
                leases.enter_context(store.lease(manifest.name, manifest.version))
        yield


def _columns(
    table: interop.Table,
    manifests: Sequence[tuple[str, Manifest]],
    store: Store,
    timestamp: str | None,
    engine: str,
) -> list[pl.Series]:
    """The features' columns, as long as the spine, under their names in the answer."""
    names = AnswerNames(table.columns, "the spine has a column")
    columns: list[pl.Series] = []
    for prefix, manifest in manifests:
        labels = {
            column.name: names.add(f"{prefix}__{column.name}", manifest.name, column.name)
            for column in manifest.spec.values(manifest.events)
        }
        points = spine_points(table, manifest, timestamp)
        events = events_of(store, manifest)
        if _counts_own_events(events, points):
            log.warning(
                "the spine is made of the feature's own events, which its windows count: at the instant of an event a "
                'request has not seen it; Rolling(closed="left") leaves it out',
                feature=manifest.name,
            )
        values = evaluation.values_at(engine_named(engine), events, points)
        columns += [column.alias(labels[column.name]) for column in values]
    return columns


def _counts_own_events(events: Events, points: pl.DataFrame) -> bool:
    """Whether each of a few evenly drawn points has the key and time of an event that one of its windows counts.

    points: keys and POINT. Only files that hold these times are read.
    """
    spec = events.spec
    counting = [w for w in spec.windows if w.sees_present and not w.lag]
    if spec.interval is not None or spec.timestamp is None or not counting or not spec.keys:
        return False  # without keys an instant in common proves nothing
    known = points.drop_nulls()
    drawn = known.gather_every(max(1, known.height // _DRAWN)).head(_DRAWN)
    for row in drawn.iter_slices(1):
        instant = int(row[POINT].to_physical()[0])
        times = TimeRange(instant, instant)
        within = events.within(times)
        if not within.partials:
            return False
        with intact(spec.name):
            if within.scan(spec.identity, times, row).head(1).collect().is_empty():
                return False
    return not drawn.is_empty()


def _was_pruned(
    references: Sequence[Reference],
    manifests: Sequence[tuple[str, Manifest]],
    store: Store,
    error: StoreError,
) -> bool:
    """Whether a version that was read is gone by now; VersionNotFound if the caller had named it."""
    gone = False
    for reference, (_, manifest) in zip(references, manifests, strict=True):
        if manifest.version in store.versions(manifest.name):
            continue
        if reference.version is not None:
            raise VersionNotFound(
                f"{manifest.name} {manifest.version} was pruned while it was read; ask for another version, and "
                f"keep one that you train on with 'mlforge pin {manifest.name} {manifest.version}'"
            ) from error
        gone = True
    return gone


def _resolve(references: Sequence[Reference], store: Store) -> list[tuple[str, Manifest]]:
    """Each feature's prefix and manifest, in order; the same version twice is refused."""
    manifests: list[Manifest] = []
    for reference in references:
        version = None if reference.version is None else str(reference.version)
        manifest = store.resolve(reference.name, version)
        if any((m.name, m.version) == (manifest.name, manifest.version) for m in manifests):
            raise RetrievalError(
                f"{manifest.name} {manifest.version} is asked for twice; name it once"
            )
        manifests.append(manifest)
    names = [manifest.name for manifest in manifests]
    return [
        (m.name if names.count(m.name) == 1 else f"{m.name}__{m.version}", m) for m in manifests
    ]
