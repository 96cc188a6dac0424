"""Stored partials by memo key: each content's events are computed once and written in batches."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from mlforge.core.aggregations import aggregation
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.forgotten import REASON as FORGOTTEN
from mlforge.core.forgotten import is_rewritten, origin
from mlforge.core.manifest import Manifest, Partial
from mlforge.core.nested import nested
from mlforge.core.schema import Column
from mlforge.core.side_by_side import Behind
from mlforge.features.feature import Feature
from mlforge.ingest import partials
from mlforge.store import Store
from mlforge.store.file_tasks import PartialWrite

# So many bytes of events are held back at most, to be written together.
_BATCH_BYTES = 32_000_000
_FEW = 16  # partials of the latest version that are sought one by one; for more all are known by their hashes


class PartialCache:
    """The partials of one feature: the stored ones, and new ones waiting to be written.

    tables: the content hashes of its tables. afresh: compute every partial again, whatever is stored. beside: whether a
    thread may store some while others are made. write: keeps new ones, by default in the store.
    """

    def __init__(
        self,
        feature: Feature,
        store: Store,
        latest: Manifest | None,
        tables: Mapping[str, str],
        *,
        afresh: bool,
        beside: bool = False,
        write: Callable[[Sequence[PartialWrite]], None] | None = None,
    ) -> None:
        self._write, self._write_last = write or self._store_each, write or self._begin_each
        self._prefix = partials.memo_prefix(feature, tables)
        self._feature, self._store, self._latest = feature, store, latest
        self._stored = store.partials_by_look(feature.name)
        self._is_afresh, self._sought = afresh, 0
        self.on_disk: Set[str] = set() if afresh else self._stored
        # Of several, as after a kill amid a further forgetting, the served one counts: it is without all those rows.
        stored = sorted(self._stored, key=self._is_served) if store.forgotten() else ()
        self._rewritten = {origin(h): h for h in stored if is_rewritten(h)}
        self._new: dict[str, Partial] = {}
        self._unwritten: list[PartialWrite] = []
        self._unwritten_bytes = 0
        self._last_key: tuple[str | None, str] = None, ""
        self._beside, self._behind = beside, Behind()

    def key(self, content: str) -> str:
        """The memo key of a content under this feature: that of the last one is known, as each file's is asked for several times."""
        last, key = self._last_key
        if content != last:
            key = self._kept(partials.memo_key(self._prefix, content))
            self._last_key = content, key
        return key

    def whole_key(self, contents: Iterable[str]) -> str:
        """The memo key of the whole source; `incremental=False` shows in it."""
        return self._kept(partials.whole_key(self._prefix, contents, self._feature))

    def key_in_use(self, key: str) -> str:
        """The key itself, or that of a further partial of the content where the stored one was made for other needs.

        A feature with metrics sets columns aside that it cannot hold unless a metric needs them, so that the events of
        a content depend on its needs. Versions that were made of the stored partial keep it.
        """
        partial = self._new.get(key) or (self._described(key) if key in self._stored else None)
        otherwise = partial and self._otherwise(partial)
        return self._kept(partials.memo_key(key, json.dumps(otherwise))) if otherwise else key

    def _is_served(self, hash_: str) -> bool:
        return hash_ in self._of_latest

    def _kept(self, key: str) -> str:
        """The key itself, or that of the partial which is kept in its place without rows that were forgotten."""
        return self._rewritten.get(key, key) if self._rewritten else key

    def missing(self, partials: Sequence[Partial]) -> Set[str]:
        """Hashes of those among some partials that are to be computed again."""
        if self._is_afresh:
            return {partial.hash for partial in partials}
        return self._store.missing_partials(self._feature.name, partials, self._stored)

    def is_new(self, content: str) -> bool:
        """Whether no partial of a content is known by its plain key; threads may ask."""
        key = self._kept(partials.memo_key(self._prefix, content))
        return key not in self._new and key not in self.on_disk

    def find(self, key: str) -> Partial | None:
        """A partial that this or another refresh has computed before, if the feature can hold its times."""
        if key in self._new or key not in self.on_disk:
            return self._new.get(key)
        partial = self._described(key)
        return partial if partial and self._feature.spec.holds(partial.times) else None

    def is_as_needed(self, partial: Partial) -> bool:
        """Whether a partial holds the events that its content has for this feature's needs."""
        return not self._otherwise(partial)

    def holds_what_is_needed(self, partial: Partial) -> bool:
        """Whether a partial, whose content may be gone, has each column that this feature needs, in a dtype that the feature takes."""
        needs, spec = self._needs, self._feature.spec
        present = {column.name for column in partial.schema}
        absent = (needs.columns or frozenset()) - present - {*spec.identity}
        return not absent and not any(map(needs.refuse, partial.schema))

    def add(self, partial: Partial, events: pl.DataFrame) -> Partial:
        """Queue a partial for writing; small partials are written together. Returns it as it is stored.

        Where a version names its hash, for rows of which some were forgotten since, it has that of one without them.
        """
        named = self._of_latest.get(partial.hash) if partial.dropped.get(FORGOTTEN) else None
        if named is not None and named.digest != partial.digest:
            partial = partial._replace(hash=self._store.forgotten().rewritten(partial.hash))
        self.add_each([partial], events)
        return partial

    def add_each(self, new: Sequence[Partial], events: pl.DataFrame) -> None:
        """Queue partials whose events lie one's behind the other's, as `add` does each."""
        stored, start = partials.stored(events), 0
        for partial in new:
            self._new[partial.hash] = partial
            is_alone = partial.rows == stored.height  # then other features' may be these very rows
            own = stored if is_alone else stored.slice(start, partial.rows)
            self._unwritten.append(PartialWrite(partial, own))
            start += partial.rows
        self._unwritten_bytes += int(stored.estimated_size())
        if self._unwritten_bytes >= _BATCH_BYTES:
            batch = self._held_back()
            if self._beside:
                self._behind.call(lambda: self._write(batch))
            else:
                self._write(batch)

    def finish(self) -> None:
        """Store what is held back; the last of it goes on being written behind the caller, as the store does that."""
        self._behind.wait()
        if self._unwritten:
            self._write_last(self._held_back())

    def settle(self) -> None:
        """Return once no thread stores anything any more, whether it could or not."""
        self._behind.settle()

    def _held_back(self) -> list[PartialWrite]:
        batch, self._unwritten, self._unwritten_bytes = self._unwritten, [], 0
        return batch

    def note(self, partial: Partial) -> Partial:
        """Know a partial that another process has computed and the store has by now."""
        self._new[partial.hash] = partial
        return partial

    def _store_each(self, batch: Sequence[PartialWrite]) -> None:
        self._store.write_partials(self._feature.name, batch, self._feature.spec.timestamp)

    def _begin_each(self, batch: Sequence[PartialWrite]) -> None:
        self._store.begin_partials(self._feature.name, batch, self._feature.spec.timestamp)

    def _described(self, key: str) -> Partial | None:
        return self._in_latest(key) or self._store.find_partial(self._feature.name, key)

    def _otherwise(self, partial: Partial) -> list[str]:
        """The columns that a partial lacks, or may lack, and with a sign those that it has, because it was made for other needs."""
        if partial.hash in self._new:
            return []
        spec, needs = self._feature.spec, self._needs
        present = {column.name for column in partial.schema}
        needed = present if needs.columns is None else needs.columns
        extra = {c.name for c in partial.schema if c.name not in needed and nested(c.dtype)}
        lacking = set[str]()
        if extra or not self._needed_before or self._in_latest(partial.hash) is None:
            untyped = {column.name for column in partial.schema if column.dtype == "Null"}
            lacking = ((untyped & needed) | (needed - present)) - {*spec.identity}
        refused = {column.name for column in partial.schema if needs.refuse(column)}
        marked = [f"-{name}" for name in sorted(extra)] + [f"<{name}" for name in sorted(refused)]
        return [*sorted(lacking), *marked]

    @cached_property
    def needs_as_before(self) -> bool:
        """Whether the latest version needed the very columns that the feature needs, for the same aggregations."""
        return self._latest is not None and Needs.of(self._latest.spec) == self._needs

    @cached_property
    def _needed_before(self) -> bool:
        """Whether the latest version needed each column that the feature needs."""
        return self._latest is not None and self._needs.are_of(Needs.of(self._latest.spec))

    @cached_property
    def _needs(self) -> Needs:
        return Needs.of(self._feature.spec)

    def _in_latest(self, key: str) -> Partial | None:
        """The latest version's partial with this key; mostly that of a file which was too young to be known by its stat, one of the last."""
        if self._sought >= _FEW or self._latest is None:
            return self._of_latest.get(key)
        self._sought += 1
        newest_first = reversed(self._latest.partials)
        return next((partial for partial in newest_first if partial.hash == key), None)

    @cached_property
    def _of_latest(self) -> dict[str, Partial]:
        latest = self._latest
        return {partial.hash: partial for partial in latest.partials} if latest else {}


@dataclass(frozen=True, slots=True)
class Needs:
    """The columns that a feature needs, None for all of them, as without metrics; the aggregations of each, and those that say which events count.

    aggregations: pairs of a column and the name of an aggregation; none of keys, which events have in any case.
    """

    columns: frozenset[str] | None
    aggregations: frozenset[tuple[str, str]]
    conditions: frozenset[str]

    @classmethod
    def of(cls, spec: FeatureSpec) -> Needs:
        """The needs of a feature."""
        asked = ((m.column, m.aggregation) for m in spec.columns if m.column not in spec.keys)
        columns = frozenset(spec.needed()) if spec.columns else None
        return cls(columns, frozenset(asked), frozenset(spec.conditions))

    def are_of(self, others: Needs) -> bool:
        """Whether the columns are among others."""
        mine, theirs = self.columns, others.columns
        return theirs is None or (mine is not None and mine <= theirs)

    def refuse(self, column: Column) -> bool:
        """Whether a file whose events have such a column is set aside, as an aggregation of it is not possible, or it is no condition."""
        if column.dtype == "Null":
            return False
        if column.name in self.conditions and column.dtype != "Boolean":
            return True
        names = [name for of, name in self.aggregations if of == column.name]
        if column.listed and not {"min", "max"}.isdisjoint(names):
            return True
        return any(aggregation(name).kind.dtype(column.dtype) is None for name in names)
