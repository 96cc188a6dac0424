"""How the events of two versions differ: an exact multiset difference, computed when needed and never stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.list_diff import differing, replaced_partials
from mlforge.core.manifest import MODULUS, Manifest, Partial
from mlforge.core.schema import with_dtypes_of
from mlforge.core.values import TimeRange
from mlforge.frames import polars_schema
from mlforge.frames.common_rows import without_common_rows
from mlforge.frames.entity_times import EntityTimes
from mlforge.frames.shared_results import once
from mlforge.store.base import Store
from mlforge.store.integrity import intact
from mlforge.store.scan import EventScan, event_scan

_SIGN = "__sign"
# So many rows are held at once to find what two sets of partials begin and end with alike.
_ROWS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class EventDiff:
    """The events that differ between two sets of partials, as a multiset; `went` of them were removed.

    own_times: their entities, each with the range of its own events.
    """

    rows: int
    went: int
    own_times: EntityTimes

    @property
    def entities(self) -> pl.DataFrame:
        """Keys of the entities whose events differ."""
        return self.own_times.entities

    @property
    def times(self) -> TimeRange | None:
        """The range of all that differ; None where events have no time, or none differ."""
        return self.own_times.hull


def same_rows(old: Sequence[Partial], new: Sequence[Partial]) -> bool:
    """Whether two sets of partials hold the same multiset of events."""
    old, new = differing(old, new)
    return (sum([p.digest for p in old]) - sum([p.digest for p in new])) % MODULUS == 0


def diff_events(went: pl.LazyFrame, came: pl.LazyFrame, spec: FeatureSpec) -> EventDiff:
    """The exact multiset difference, row by row."""
    both = pl.concat(
        [went.with_columns(pl.lit(-1).alias(_SIGN)), came.with_columns(pl.lit(1).alias(_SIGN))]
    )
    columns = [name for name in both.collect_schema().names() if name != _SIGN]
    counted = both.group_by(columns).agg(pl.col(_SIGN).sum()).filter(pl.col(_SIGN) != 0).collect()
    signs = counted[_SIGN]
    no_more = -int(signs.filter(signs < 0).sum())
    return EventDiff(int(signs.abs().sum()), no_more, EntityTimes.of(counted, spec))


def diff_versions(store: Store, before: Manifest, after: Manifest) -> EventDiff:
    """The events that differ between two versions of one schema and keys.

    Raises IntegrityError where stored events are missing or damaged.
    """
    went, came = replaced_partials(before.partials, after.partials)
    # A column that is null throughout by now is read as it was: else what it held would be null on both sides.
    both = replace(after, events=with_dtypes_of(after.events, before.events))
    removed = event_scan(store, both, went) if went else None
    added = event_scan(store, both, came)
    with intact(after.name):
        return once(
            "event diff",
            lambda: (removed and removed.content, added.content),
            lambda: _diff_scans(removed, added),
        )


def _diff_scans(removed: EventScan | None, added: EventScan) -> EventDiff:
    """As `diff_events`, for the scans of partials that went, if any did, and came."""
    came, spec = added.scan(), added.spec
    if removed is None:
        engine = polars_schema.engine_for(sum([p.rows for p in added.partials]))
        new = came.select(*spec.entity, *spec.times).collect(engine=engine)
        return EventDiff(new.height, 0, EntityTimes.of(new, spec))
    went = removed.scan()
    if sum([p.rows for p in (*removed.partials, *added.partials)]) <= _ROWS_AT_ONCE:
        went, came = map(pl.DataFrame.lazy, without_common_rows(*pl.collect_all([went, came])))
    return diff_events(went, came, spec)
