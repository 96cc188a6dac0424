"""Which events, from which files, a value consists of."""

from __future__ import annotations

from collections.abc import Collection

import polars as pl

from mlforge.core import time_model
from mlforge.core.manifest import Manifest
from mlforge.core.schema import Schema
from mlforge.core.values import BEGINNING, FEATURE, TimeRange
from mlforge.engines import Events
from mlforge.engines.events import events_of
from mlforge.frames import polars_schema
from mlforge.store import Store, file_tasks

FILE = "__file"
MARK = "__place"


def rows(
    store: Store,
    manifest: Manifest,
    keys: pl.DataFrame,
    at: int | None,
    also: Collection[str] = (),
) -> pl.DataFrame:
    """The events of an entity that its values at an instant consist of, by time.

    keys: one row, the entity. With metrics, the events in any of the windows; without, the rows of the latest
    instant, the row that counts last. Columns: `__file`, the source file's path, or the version that the row was
    made from, null where the function saw the whole source at once; then the event columns that count, and
    those named `also`, without the keys.
    """
    spec, events = manifest.spec, events_of(store, manifest)
    needed = {*spec.needed(), *also} if spec.columns else {c.name for c in manifest.events}
    shown = tuple(c for c in manifest.events if c.name in needed and c.name not in spec.keys)
    window_times = _seen(events, keys, at)
    span = (
        None
        if window_times is None
        else TimeRange(window_times[0].start, max(times.end for times in window_times))
    )
    scanned = _scan(
        events.within(span), (*(c for c in manifest.events if c.name in spec.keys), *shown)
    )
    if window_times is not None and spec.timestamp is not None:
        time = polars_schema.microseconds(spec.timestamp)
        scanned = scanned.filter(
            pl.any_horizontal(time.is_between(t.start, t.end) for t in window_times)
        )
    first = [] if spec.timestamp is None else [spec.timestamp]
    names = [column.name for column in shown]
    return (
        polars_schema.of_entities(polars_schema.with_entities(scanned, spec), keys, spec.entity)
        .join(files_of(store, manifest).lazy(), on=MARK, how="left")
        .select(FILE, *names)
        .sort(*first, *(name for name in names if name not in first), FILE, nulls_last=False)
        .collect()
    )


def _seen(events: Events, keys: pl.DataFrame, at: int | None) -> list[TimeRange] | None:
    """The ranges of event times that values at an instant depend on, the earliest first; None for all."""
    spec = events.spec
    if spec.timestamp is None or at is None:
        return None
    if spec.columns:
        point = time_model.point(at, spec.interval)
        spans = (window.span(point) for window in spec.windows)
        return sorted(spans, key=lambda times: times.start)
    before = events.scan(spec.identity, TimeRange(BEGINNING, at), keys)
    latest = before.select(polars_schema.microseconds(spec.timestamp).max()).collect().item()
    return [TimeRange(at, at) if latest is None else TimeRange(latest, latest)]


def _scan(events: Events, columns: Schema) -> pl.LazyFrame:
    """The events, each stored partial once, with the mark of its place."""
    distinct = {partial.hash: partial for partial in events.partials}
    return file_tasks.scan(events.plan_files(tuple(distinct.values())), columns, mark=MARK)


def files_of(store: Store, manifest: Manifest) -> pl.DataFrame:
    """The source files (`__file`) of each stored partial, by the mark of its place: files of equal content share a partial.

    Empty where the function saw the whole source at once.
    """
    sources = manifest.sources if manifest.rowwise else ()
    located = store.locate(manifest.name, [source.partial for source in sources])
    made_from = manifest.source.removeprefix(FEATURE) if manifest.upstream else None
    marks = [
        (place.mark, made_from or source.path)
        for place, source in zip(located, sources, strict=True)
    ]
    return pl.DataFrame(marks, {MARK: pl.String, FILE: pl.String}, orient="row")
