"""Profiles of a version's table, or of its rows in ranges of time: of each part once, kept by the hash of its bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import polars as pl

from mlforge.core.manifest import Manifest, Part
from mlforge.core.schema import Column
from mlforge.core.values import BEGINNING, END, TimeRange
from mlforge.errors import IntegrityError, StoreError
from mlforge.frames.polars_schema import empty, microseconds
from mlforge.profiles import codec
from mlforge.profiles.column_profile import ColumnProfile
from mlforge.profiles.measure import profile_column, profile_frame
from mlforge.sources.damage import DAMAGE
from mlforge.store import Store

ALWAYS = TimeRange(BEGINNING, END)
Profiles = dict[str, ColumnProfile]


def profile_version(store: Store, manifest: Manifest) -> Profiles:
    """The profile of each column of a version's table, by name.

    Parts that were profiled before are not read again. Raises IntegrityError for a table that cannot be read.
    """
    return profile_rows(store, manifest, {column.name: ALWAYS for column in manifest.columns})


def profile_rows(store: Store, manifest: Manifest, times: Mapping[str, TimeRange]) -> Profiles:
    """The profile of each named column over its rows within a range of time, ends included.

    A part that lies within a range counts by its kept profile; of one that the range cuts the rows are read. Of a
    table without a timestamp all rows count.
    """
    chosen = [column for column in manifest.columns if column.name in times]
    merged = profile_frame(empty(chosen))
    for part in manifest.parts:
        for name, profile in _of_part(store, manifest, part, chosen, times).items():
            merged[name] = merged[name].merged(profile)
    return merged


def _of_part(
    store: Store,
    manifest: Manifest,
    part: Part,
    columns: Sequence[Column],
    times: Mapping[str, TimeRange],
) -> Profiles:
    """The profiles of columns over a part's rows within their ranges; none of columns whose range has no row of it."""
    whole = [c.name for c in columns if _within(part, times[c.name])]
    kept = _kept(store, manifest, part) if whole else {}
    cut = [c for c in columns if c.name not in whole and _touches(part, times[c.name])]
    return {**{name: kept[name] for name in whole}, **_read(store, manifest, part, cut, times)}


def _within(part: Part, times: TimeRange) -> bool:
    """Whether all of a part's rows lie in the range."""
    return part.times is None or (times.start <= part.times.start and part.times.end <= times.end)


def _touches(part: Part, times: TimeRange) -> bool:
    return part.times is not None and part.times.overlaps(times)


def _kept(store: Store, manifest: Manifest, part: Part) -> Profiles:
    """The profiles of a part's columns; if the store does not keep them, they are made and kept."""
    document = store.profiles(manifest.name, [part.hash]).get(part.hash)
    known = None if document is None else codec.from_json(document)
    if known is not None and known.keys() == {column.name for column in manifest.columns}:
        return known
    fresh = _read(store, manifest, part, manifest.columns)
    # A profile that cannot be kept, as the store is read-only or full, is made anew the next time.
    with suppress(StoreError):
        store.write_profiles(manifest.name, {part.hash: codec.to_json(fresh)})
    return fresh


def _read(
    store: Store,
    manifest: Manifest,
    part: Part,
    columns: Iterable[Column],
    times: Mapping[str, TimeRange] | None = None,
) -> Profiles:
    """Profile a part column by column: no more than two columns are in memory."""
    assert manifest.version is not None
    files = store.files(manifest.name, manifest.version, [part])
    profiles = {}
    try:
        for column in columns:
            rows = pl.scan_parquet(files, glob=False)
            if times is not None and manifest.spec.timestamp is not None:
                instant, span = microseconds(manifest.spec.timestamp), times[column.name]
                rows = rows.filter(instant.is_between(span.start, span.end))
            profiles[column.name] = profile_column(rows.select(column.name).collect().to_series())
    except DAMAGE as error:
        raise IntegrityError(
            f"{manifest.name} {manifest.version}: {part.file} cannot be read ({type(error).__name__}); "
            "'mlforge verify' says what is wrong with it"
        ) from error
    return profiles
