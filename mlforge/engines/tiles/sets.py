"""Sets: what of an interval's values is enough for aggregations that no merged number gives.

Windows of an aligned feature are unions of intervals. Of each, the distinct values with their numbers stand for the events
where values are counted or ranked, and its first and last events where the order tells. All is exact, and kept beside a file of events
as tiles are, where it is small; else the events are read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from mlforge.compilers.base import TIME, value_alias
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.metrics import MetricColumn
from mlforge.core.schema import FLOATS, Schema
from mlforge.core.values import TimeRange
from mlforge.engines import timeline
from mlforge.engines.tiles.build import interval_start
from mlforge.engines.tiles.cache import tasks_without
from mlforge.engines.tiles.held import WEIGHT, Part, can_hold, ends, held_parts, kept
from mlforge.frames import polars_schema
from mlforge.store import Store, file_tasks
from mlforge.store.file_tasks import FileScanTask, TileWrite
from mlforge.store.scan import EventScan

COUNTS, ENDS = "counts", "ends"
GAIN = 4
"""How many events each row of a set must stand for, on average, for it to be stored."""
_FORMAT = 1
_START = "__start"
_KINDS = {"distinct": COUNTS, "counts": COUNTS, "ranks": COUNTS, "ends": ENDS}
"""The kind of a set, by what totals keep for the same aggregations."""
_KIND_LENGTH = 18  # of another length than those of tiles and totals, which serve other purposes
Needed = tuple[str, str]
"""A value column, and the kind of set that a metric of it needs."""


def needed(metric: MetricColumn) -> Needed:
    """The set that gives a metric, of no kind where a merged number does."""
    return metric.value, _KINDS.get(kept(metric), "")


def sets_of(metrics: Iterable[MetricColumn]) -> dict[Needed, Part]:
    """The sets that metrics need, in an order of their own."""
    parts: dict[Needed, Part] = {}
    for part in held_parts(metrics):
        kind = _KINDS[part.kind]
        parts[part.column, kind] = Part(part.column, kind, part.numbers if kind == ENDS else ())
    return dict(sorted(parts.items()))


@dataclass(frozen=True)
class SetCache:
    """The stored sets of a feature's files of events, to be read in their place. store: None where there is none."""

    store: Store | None
    spec: FeatureSpec
    schema: Schema

    @cached_property
    def parts(self) -> Mapping[Needed, Part]:
        """The sets that the feature needs; none without an interval."""
        if self.spec.interval is None:
            return {}
        dtypes = self.spec.value_dtypes(self.schema)
        sets = sets_of(self.spec.columns)
        return {key: part for key, part in sets.items() if can_hold(dtypes[part.column])}

    def stored(self, scan: EventScan, times: TimeRange) -> Mapping[Needed, Part]:
        """The sets that are stored for most events of a range of time, which begins and ends where intervals do."""
        if not self._files:
            return {}
        tasks = [(task.rows, self._of(task)) for task in scan.tasks_within(times)]
        most = sum([rows for rows, _ in tasks]) / 2
        return {
            key: part
            for key, part in self.parts.items()
            if sum([rows for rows, aliases in tasks if part.alias in aliases]) > most
        }

    def rows(
        self, part: Part, scan: EventScan, times: TimeRange, among: pl.DataFrame | None = None
    ) -> pl.DataFrame:
        """The rows of a set for a range of time and some entities: keys, TIME, the part's values, WEIGHT.

        Values that are counted stand at the start of their interval, first and last ones at their own instants.
        """
        tasks, keys = scan.tasks_within(times), list(self.spec.entity)
        files = [self._files[task.file] for task in tasks if part.alias in self._of(task)]
        others = [task for task in tasks if part.alias not in self._of(task)]
        names, rows = [*keys, TIME, part.alias, WEIGHT], []
        if files:
            value, inside = pl.col(part.alias), pl.col(TIME).is_between(times.start, times.end)
            stored = pl.scan_parquet(files, glob=False).filter(value.is_not_null(), inside)
            rows.append(polars_schema.of_entities(stored, among, keys).select(names))
        if others:
            events = scan.scan_tasks(others, self.spec.needed(), times, among)
            of_others = _set(timeline.of_events(events, self.spec), part, self.spec, self._dtypes)
            rows.append(of_others.select(names))
        return pl.concat(rows).collect()

    def write(self, tasks: Sequence[FileScanTask]) -> None:
        """Make and store the sets of the files that are read whole, have many events and no sets yet.

        A file whose sets are not small is noted as such; a damaged file is skipped. Raises StoreError where sets cannot be written.
        """
        if self.store is None or not self.parts:
            return
        store, name = self.store, self.spec.name
        without = tasks_without(tasks, lambda file: self._notes(file) is not None)
        intact = (task for task in without if store.is_whole(name, task.file))
        if without:
            store.write_tiles(name, self._kind, self._writes(intact))

    def _writes(self, tasks: Iterable[FileScanTask]) -> Iterator[TileWrite]:
        columns = tuple(column for column in self.schema if column.name in self.spec.needed())
        for task in tasks:
            stored = polars_schema.with_entities(file_tasks.scan([task], columns), self.spec)
            events = timeline.of_events(stored, self.spec)
            parts = list(self.parts.values())
            parts = parts if _are_small(events, parts, self.spec) else []
            sets = [_set(events, part, self.spec, self._dtypes) for part in parts]
            rows = pl.concat(sets, how="diagonal").collect().sort(TIME) if sets else pl.DataFrame()
            yield TileWrite(task.file, rows, {"sets": [part.alias for part in parts]})

    def _of(self, task: FileScanTask) -> Sequence[str]:
        """The sets that are stored of a file, by their columns; none where only a part of it is read."""
        notes = self._notes(task.file) if task.numbers is None else None
        return [] if notes is None else notes["sets"]

    def _notes(self, file: str) -> Mapping[str, Any] | None:
        """The notes of a file's sets; None unless these are whole and of its present bytes."""
        if self.store is None or file not in self._files:
            return None
        notes = self.store.tile_notes(self.spec.name, self._files[file], file)
        return notes if notes is not None and isinstance(notes.get("sets"), list) else None

    @property
    def kind(self) -> str | None:
        """The kind of the sets that the feature may have; None where it needs none."""
        return self._kind if self.parts else None

    @cached_property
    def _files(self) -> Mapping[str, str]:
        """The files of sets, by the file of partials that each was made from."""
        if self.store is None or not self.parts:
            return {}
        return self.store.tiles(self.spec.name, self._kind)

    @cached_property
    def _dtypes(self) -> Mapping[str, str]:
        return self.spec.value_dtypes(self.schema)

    @cached_property
    def _kind(self) -> str:
        """A hash of all that the sets depend on besides events."""
        spec, known = self.spec, self._dtypes
        assert spec.interval is not None
        sets = [(part.column, known[part.column], *key[1:], *part.numbers) for key, part in self.parts.items()]  # fmt: skip
        keys = [(key, known[key]) for key in spec.keys]
        document = [_FORMAT, "sets", spec.interval.us, keys, spec.timestamp, sets]
        return hashlib.sha256(json.dumps(document).encode()).hexdigest()[:_KIND_LENGTH]


def _set(
    events: pl.LazyFrame, part: Part, spec: FeatureSpec, dtypes: Mapping[str, str]
) -> pl.LazyFrame:
    """The rows of a set, of events as in a timeline."""
    keys, values = list(spec.entity), pl.col(value_alias(part.column))
    if dtypes[part.column] in FLOATS:
        values = pl.when(values == 0.0).then(0.0).otherwise(values)  # of equal values one form
    rows = events.select(*keys, TIME, values.alias(part.alias)).drop_nulls(part.alias)
    start = interval_start(spec)
    if part.kind == ENDS:
        of_interval = [*keys, _START]
        ordered = rows.with_columns(start.alias(_START)).sort(*keys, TIME)
        return ends(ordered, int(part.numbers[0]), of_interval).select(
            *keys, TIME, part.alias, pl.lit(1, pl.Int64).alias(WEIGHT)
        )
    return rows.group_by(*keys, start.alias(TIME), part.alias).agg(
        pl.len().cast(pl.Int64).alias(WEIGHT)
    )


def _are_small(events: pl.LazyFrame, parts: Sequence[Part], spec: FeatureSpec) -> bool:
    """Whether each of the sets has few rows for its events: of one that has not, events are read, and give the others, too."""
    of_interval: list[str | pl.Expr] = [*spec.entity, interval_start(spec).alias(TIME)]

    def rows(part: Part) -> pl.Expr:
        if part.kind == ENDS:
            intervals = pl.struct(*of_interval).hash().approx_n_unique()
            return intervals.cast(pl.Int64) * int(2 * part.numbers[0])
        return pl.struct(*of_interval, value_alias(part.column)).hash().approx_n_unique()

    estimated = (rows(part).alias(part.alias) for part in parts)
    counts = events.select(pl.len(), *estimated).collect(engine="streaming").row(0)
    return bool(max(counts[1:]) * GAIN <= counts[0])
