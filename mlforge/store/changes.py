"""How the events of two versions differ: an exact multiset difference, computed when needed and never stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.list_diff import differing
from mlforge.core.manifest import MODULUS, Manifest, Partial
from mlforge.core.values import TimeRange
from mlforge.frames.polars_schema import times_of
from mlforge.store.base import Store
from mlforge.store.integrity import intact
from mlforge.store.scan import event_scan

_SIGN = "__sign"


@dataclass(frozen=True)
class EventDiff:
    """The events that differ between two sets of partials, as a multiset; `went` of them were removed."""

    rows: int
    went: int
    entities: pl.DataFrame
    times: TimeRange | None


def same_rows(old: Sequence[Partial], new: Sequence[Partial]) -> bool:
    """Whether two sets of partials hold the same multiset of events."""
    old, new = differing(old, new)
    return (sum([p.digest for p in old]) - sum([p.digest for p in new])) % MODULUS == 0


def replaced_partials(
    old: Sequence[Partial], new: Sequence[Partial]
) -> tuple[list[Partial], list[Partial]]:
    """The partials removed and the partials added; partials in both versions cancel out."""
    old, new = differing(old, new)
    before = Counter([partial.hash for partial in old])
    after = Counter([partial.hash for partial in new])
    differ = {key for key, _ in before.items() ^ after.items()}
    known = {partial.hash: partial for partial in (*old, *new) if partial.hash in differ}
    more = {key: after[key] - before[key] for key in known}
    return (
        [known[key] for key, count in more.items() for _ in range(-count)],
        [known[key] for key, count in more.items() for _ in range(count)],
    )


def diff_events(went: pl.LazyFrame | None, came: pl.LazyFrame, spec: FeatureSpec) -> EventDiff:
    """The exact multiset difference, row by row; `went` None means that no partial was removed."""
    if went is None:
        new = came.select(*spec.entity, *spec.times).collect()
        return EventDiff(new.height, 0, new.select(spec.entity).unique(), times_of(new, spec))
    both = pl.concat(
        [went.with_columns(pl.lit(-1).alias(_SIGN)), came.with_columns(pl.lit(1).alias(_SIGN))]
    )
    columns = [name for name in both.collect_schema().names() if name != _SIGN]
    counted = both.group_by(columns).agg(pl.col(_SIGN).sum()).filter(pl.col(_SIGN) != 0).collect()
    signs = counted[_SIGN]
    no_more = -int(signs.filter(signs < 0).sum())
    entities = counted.select(spec.entity).unique()
    return EventDiff(int(signs.abs().sum()), no_more, entities, times_of(counted, spec))


def diff_versions(store: Store, before: Manifest, after: Manifest) -> EventDiff:
    """The events that differ between two versions of one schema and keys.

    Raises IntegrityError where stored events are missing or damaged.
    """
    went, came = replaced_partials(before.partials, after.partials)
    with intact(after.name):
        return diff_events(
            event_scan(store, after, went).scan() if went else None,
            event_scan(store, after, came).scan(),
            after.spec,
        )


@dataclass(frozen=True)
class VersionsDiff:
    """The events that differ between two versions, handed on by whoever has computed them."""

    before: Manifest
    after: Manifest
    events: EventDiff

    def is_between(self, before: Manifest, after: Manifest) -> bool:
        """Whether it tells how these versions differ: versions of one `rows_hash` hold the same events."""
        known = (self.before.rows_hash, self.after.rows_hash)
        return known == (before.rows_hash, after.rows_hash)
