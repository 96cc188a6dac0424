"""Spines made of a feature's events: its entities at each tick, or at each of their events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from mlforge.core.arguments import shown
from mlforge.core.manifest import Manifest
from mlforge.core.schema import dtypes
from mlforge.core.signatures import named_arguments
from mlforge.core.values import FIRST_INSTANT, HOUR_US, Duration, TimeRange, from_iso, to_iso
from mlforge.engines import Events
from mlforge.engines.events import events_of as events_of_version
from mlforge.errors import RetrievalError
from mlforge.features.feature import Feature
from mlforge.features.selection import Selection
from mlforge.frames import polars_schema
from mlforge.retrieval.reading import FeatureUse, Reading
from mlforge.retrieval.references import Reference, parse_instant, parse_references
from mlforge.store.integrity import intact
from mlforge.training_sets.spines import FileSpine
from mlforge.training_sets.used_features import UsedFeature

AT_ONCE = 200_000
"""About so many rows are made at a time."""
_TIME, _FIRST, _BUCKET = "__time", "__first", "__bucket"

Instant = datetime | date | str | int


@dataclass(frozen=True, slots=True)
class EventSpine:
    """Rows made of a feature's events; `events_of` makes one.

    every: the distance of ticks; None for a row at each event. start, end: UTC microseconds, the end left out; None for where
    the events begin and end.
    """

    reference: Reference
    every: Duration | None = None
    start: int | None = None
    end: int | None = None

    def __repr__(self) -> str:
        """As it is written."""
        told = [self.reference.name, *([f"every={str(self.every)!r}"] if self.every else [])]
        is_bounded = (self.start, self.end) != (None, None)
        told += [f"between={(to_iso(self.start), to_iso(self.end))!r}"] if is_bounded else []
        return f"events_of({', '.join(told)})"


@named_arguments(
    "events_of", 'write events_of(user_spend, every="1d", between=("2026-01-01", "2026-03-01"))'
)
def events_of(
    feature: Feature | Selection | str,
    every: str | timedelta | None = None,
    between: tuple[Instant | None, Instant | None] | None = None,
) -> EventSpine:
    """A spine for `training_set`, made of a feature's events: its keys and its timestamp, by time, then keys.

    every: a row for each entity at each tick, once it has an event at or before that tick; ticks are the multiples of a fixed
    duration from 1970 on, UTC. None: a row for each entity at each instant at which it has an event.
    between: from the first instant until before the second; None for from the first event on, or up to the watermark.
    feature: `user_spend.as_("buyer", user_id="buyer_id")` names the keys as a service reads them.

    Raises RetrievalError for what is no feature, instant or range, DefinitionError for a distance that is no fixed duration.
    """
    [reference] = parse_references([feature])
    step = None if every is None else Duration.parse(every, "events_of: every")
    if between is None:
        return EventSpine(reference, step)
    pair: object = between
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise RetrievalError(
            f'events_of: between is {shown(between)}; give two instants, as in ("2026-01-01", "2026-03-01")'
        )
    start, end = (None if each is None else parse_instant(each, "between") for each in pair)
    if start is not None and end is not None and end <= start:
        raise RetrievalError(
            f"events_of: between ends at {to_iso(end)}, before it begins; give the earlier instant first"
        )
    return EventSpine(reference, step, start, end)


@dataclass(frozen=True, slots=True)
class UsedSpine:
    """The feature of whose events a set's spine was made, and how."""

    feature: UsedFeature
    spine: EventSpine

    @classmethod
    def of(cls, spine: EventSpine, reading: Reading) -> UsedSpine:
        """The spine as a reading has it."""
        manifest = reading.spine
        assert manifest is not None
        feature = UsedFeature.of(
            FeatureUse(replace(spine.reference, columns=()), manifest, manifest.name)
        )
        return cls(replace(feature, columns=()), spine)

    def to_json(self) -> dict[str, Any]:
        """The document."""
        spine = self.spine
        return {
            "every": None if spine.every is None else spine.every.text,
            "start": None if spine.start is None else to_iso(spine.start),
            "end": None if spine.end is None else to_iso(spine.end),
            "feature": self.feature.to_json(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> UsedSpine:
        """Read the document."""
        feature = UsedFeature.from_json(document["feature"])
        every = None if document["every"] is None else Duration.parse(document["every"])
        start, end = from_iso(document["start"]), from_iso(document["end"])
        return cls(feature, EventSpine(feature.reference, every, start, end))


@dataclass(frozen=True)
class EventRows:
    """The rows of a spine for one version of its feature."""

    spine: EventSpine
    manifest: Manifest
    events: Events

    @classmethod
    def checked(cls, spine: EventSpine, reading: Reading) -> EventRows:
        """The rows; RetrievalError for a feature without a timestamp."""
        manifest = reading.spine
        assert manifest is not None
        if manifest.spec.timestamp is None:
            raise RetrievalError(
                f"events_of: {manifest.name} has no timestamp, so that its rows lie at no instant; name a feature with one"
            )
        return cls(spine, manifest, events_of_version(reading.store, manifest))

    @property
    def head(self) -> pl.DataFrame:
        """A frame without rows that has the columns."""
        dtype_of = dtypes(self.manifest.events)
        keys = {to: polars_schema.to_polars(dtype_of[key]) for key, to in self._names.items()}
        return pl.DataFrame(schema={**keys, self._timestamp: polars_schema.UTC_INSTANT})

    def written(self, folder: Path) -> FileSpine:
        """The rows in files of a folder. Raises IntegrityError where stored events are missing or damaged."""
        files: list[Path] = []
        with intact(self.manifest.name):
            for frame in self._frames():
                for piece in frame.iter_slices(AT_ONCE):
                    files.append(folder / f"spine-{len(files):05d}.parquet")
                    piece.write_parquet(files[-1], compression="lz4")
        if not files:
            files.append(folder / "spine-00000.parquet")
            self.head.write_parquet(files[0])
        return FileSpine(files)

    @property
    def _timestamp(self) -> str:
        assert self.manifest.spec.timestamp is not None
        return self.manifest.spec.timestamp

    @property
    def _names(self) -> dict[str, str]:
        return self.spine.reference.key_names(self.manifest.spec.keys)

    @property
    def _times(self) -> TimeRange | None:
        """The instants from which rows are taken; None where there is none."""
        firsts = [partial.times.start for partial in self.manifest.partials if partial.times]
        watermark = self.manifest.watermark
        if not firsts or watermark is None:
            return None
        start = min(firsts) if self.spine.start is None else self.spine.start
        end = watermark if self.spine.end is None else self.spine.end - 1
        return TimeRange(start, end) if start <= end else None

    def _frames(self) -> Iterator[pl.DataFrame]:
        times = self._times
        if times is None:
            return
        every = self.spine.every
        frames = self._at_events(times) if every is None else self._at_ticks(times, every.us)
        keys = [pl.col(key).alias(to) for key, to in self._names.items()]
        order = [_TIME, *self.manifest.spec.keys]
        instant = pl.col(_TIME).cast(polars_schema.UTC_INSTANT).alias(self._timestamp)
        for frame in frames:
            yield frame.sort(order).select(*keys, instant)

    def _at_events(self, times: TimeRange) -> Iterator[pl.DataFrame]:
        """Each entity at each instant of its events, some at a time."""
        time = polars_schema.microseconds(self._timestamp).alias(_TIME)
        bucket = (pl.col(_TIME) - pl.col(_TIME).mod(HOUR_US)).alias(_BUCKET)
        scan = self.events.within(times).scan([self._timestamp], times).select(time)
        counts = scan.group_by(bucket).len().collect(engine="streaming").sort(_BUCKET)
        identity = self.manifest.spec.identity
        for part in _ranges(counts, times):
            rows = (
                self.events.within(part).scan(identity, part).select(*self.manifest.spec.keys, time)
            )
            yield rows.unique().collect(engine="streaming")

    def _at_ticks(self, times: TimeRange, every: int) -> Iterator[pl.DataFrame]:
        """Each entity at each tick from its first event on, some ticks at a time."""
        keys = list(self.manifest.spec.keys)
        seen = TimeRange(FIRST_INSTANT, times.end)
        time = polars_schema.microseconds(self._timestamp).alias(_FIRST)
        scan = self.events.within(seen).scan(self.manifest.spec.identity, seen).select(*keys, time)
        by_key = scan.group_by(keys) if keys else scan.group_by(pl.lit(0).alias(_BUCKET))
        first = by_key.agg(pl.col(_FIRST).min()).collect(engine="streaming").select(*keys, _FIRST)
        if first.is_empty():
            return
        # No entity was seen before.
        begin = max(times.start, first.select(pl.col(_FIRST).min()).item())
        ticks = range(-(-begin // every) * every, times.end + 1, every)
        step = max(1, AT_ONCE // first.height)
        for begun in range(0, len(ticks), step):
            some = pl.DataFrame({_TIME: pl.Series(ticks[begun : begun + step], dtype=pl.Int64)})
            yield some.join(first, how="cross").filter(pl.col(_FIRST) <= pl.col(_TIME))


def _ranges(counts: pl.DataFrame, times: TimeRange) -> Iterator[TimeRange]:
    """Ranges of time with about so many rows each, of counts by hour."""
    start, last, held = None, times.start, 0
    for bucket, rows in counts.iter_rows():
        if start is not None and held + rows > AT_ONCE:
            yield TimeRange(start, last)
            start, held = None, 0
        start = max(bucket, times.start) if start is None else start
        last, held = min(bucket + HOUR_US - 1, times.end), held + rows
    if start is not None:
        yield TimeRange(start, last)
