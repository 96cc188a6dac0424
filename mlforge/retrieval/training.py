"""Training sets: a spine, and beside it the values that features had at each row's own time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import polars as pl
import structlog

from mlforge.core.manifest import Manifest
from mlforge.core.schema import Schema
from mlforge.core.values import TimeRange, Version
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
from mlforge.retrieval.spine import spine_instants, spine_points, time_column
from mlforge.services.completion import Output, completion, request_columns
from mlforge.services.service import Service
from mlforge.store import Store
from mlforge.store.integrity import intact

_TRIES = 3
_DRAWN = 3

log = structlog.get_logger("mlforge.training")


def get_training_data(
    spine: Any,
    features: Sequence[FeatureRef] | Service,
    store: Store,
    timestamp: str | None = None,
    engine: str = "polars",
) -> Any:
    """The spine with each feature's values as of each row's own time.

    spine: a polars DataFrame or LazyFrame, a pandas DataFrame or a pyarrow Table with the features' keys
        and, for features with a timestamp, one temporal column. The same kind comes back: its rows in
        their order, its columns, and behind them `<feature>__<column>` for each value.
    features: names (the served version), features or `(name, version)`; of two versions of one feature the
        prefix is `<feature>__<version>`. `user_spend["a", "b"]` gives these columns alone, and only they are computed;
        `user_profile.as_("buyer", user_id="buyer_id")` gives `buyer__<column>` of the spine's key `buyer_id`. Or a
        Service: the spine has its request columns, too, and its derived columns come behind the features'.
    timestamp: the spine's time column; by default the feature's own timestamp name, else the only
        temporal column.

    For metrics each value is exactly `value(entity, t)`; for a timestamped feature without metrics the
    latest row at or before `t`; for an untimed one the key's row. A null key or time is never
    matched. Only the store is needed, no definitions.
    Raises RetrievalError for a spine that does not fit or two columns that would have one name, StoreError for
    an unknown feature or version, or one that was pruned while it was read.
    """
    service = features if isinstance(features, Service) else None
    table, references = interop.taken(spine), parse_references(service.features if service else features)  # fmt: skip
    check_store(store, Store, "LocalStore('feature_store')")
    for attempt in range(_TRIES):
        manifests = _resolve(references, store)
        try:
            with _leases(manifests, store):
                columns = _columns(table, references, manifests, store, timestamp, engine)
                if service is not None:
                    columns = _completed(service, table, references, manifests, columns, timestamp)
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
    references: Sequence[Reference],
    manifests: Sequence[tuple[str, Manifest]],
    store: Store,
    timestamp: str | None,
    engine: str,
) -> list[pl.Series]:
    """The features' columns, as long as the spine, under their names in the answer."""
    names = AnswerNames(table.columns, "the spine has a column")
    columns: list[pl.Series] = []
    for reference, (prefix, manifest) in zip(references, manifests, strict=True):
        chosen = _chosen(reference, manifest)
        labels = [names.add(f"{prefix}__{c.name}", manifest.name, c.name) for c in chosen]
        points = spine_points(table, manifest, timestamp, reference)
        events = events_of(store, manifest)
        if reference.columns:
            events = events.restricted(reference.columns)
        if _counts_own_events(events, points):
            log.warning(
                "the spine is made of the feature's own events, which its windows count: at the instant of an event a "
                'request has not seen it; Rolling(closed="left") leaves it out',
                feature=manifest.name,
            )
        values = evaluation.values_at(engine_named(engine), events, points)
        columns += [values[c.name].alias(to) for c, to in zip(chosen, labels, strict=True)]
    return columns


def _chosen(reference: Reference, manifest: Manifest) -> Schema:
    """The value columns that a reference means, in its order."""
    values = {column.name: column for column in manifest.spec.values(manifest.events)}
    return tuple(values[name] for name in reference.chosen(list(values)))


def _completed(
    service: Service,
    table: interop.Table,
    references: Sequence[Reference],
    manifests: Sequence[tuple[str, Manifest]],
    columns: Sequence[pl.Series],
    timestamp: str | None,
) -> list[pl.Series]:
    """The features' columns with the service's defaults, and its derived columns behind them."""
    own = [*(c.name for c in service.request), *(c.name for c in service.derived)]
    for name in own[: len(service.request)]:
        if name not in table.columns:
            raise RetrievalError(
                f"{service.name}: the spine has no column {name!r}, which requests bring; it has "
                f"{', '.join(map(str, table.columns)) or 'none'}"
            )
    for name in own[len(service.request) :]:
        if name in table.columns:
            raise RetrievalError(
                f"the spine has a column {name!r}, which {service.name} derives, too; rename it"
            )
    values = [c for r, (_, m) in zip(references, manifests, strict=True) for c in _chosen(r, m)]
    outputs = tuple(
        Output(column.name, value.name, value.dtype)
        for column, value in zip(columns, values, strict=True)
    )
    request = {column.name: table.column(column.name) for column in service.request}
    instants = None
    if service.reads_t:
        timed = [
            time_column(table, manifest, timestamp, reference)
            for reference, (_, manifest) in zip(references, manifests, strict=True)
            if manifest.spec.timestamp is not None
        ]
        instants = spine_instants(table.column(_only_time(service, table, timed, timestamp)))
    return completion(service, outputs).frame(columns, request_columns(service, request), instants)


def _only_time(
    service: Service, table: interop.Table, timed: Sequence[str], timestamp: str | None
) -> str:
    """The spine's column with the instant `t` of derived columns."""
    names = list(dict.fromkeys(timed)) or ([timestamp] if timestamp else table.temporal)
    if len(names) == 1 and names[0] in table.columns:
        return names[0]
    raise RetrievalError(
        f"{service.name}: its derived columns read t, and the spine's time column is not plain "
        f"({', '.join(map(str, names)) or 'there is none'}); say which with timestamp="
    )


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
    """Each reference's prefix and manifest, in order; one that is there twice is refused."""
    manifests: list[Manifest] = []
    uses: set[tuple[Reference, Version | None]] = set()
    for reference in references:
        version = None if reference.version is None else str(reference.version)
        manifest = store.resolve(reference.name, version)
        use = (replace(reference, version=None), manifest.version)
        if use in uses:
            raise RetrievalError(
                f"{manifest.name} {manifest.version} is asked for twice; name it once"
            )
        uses.add(use)
        manifests.append(manifest)
    several = {
        name
        for name in (reference.name for reference in references)
        if len({m.version for r, m in zip(references, manifests, strict=True) if m.name == name and not r.prefix}) > 1
    }  # fmt: skip
    return [
        (r.prefix or (f"{m.name}__{m.version}" if m.name in several else m.name), m)
        for r, m in zip(references, manifests, strict=True)
    ]
