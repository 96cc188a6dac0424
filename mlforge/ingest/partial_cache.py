"""Stored partials by memo key: each content's events are computed once and written in batches."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cached_property

import polars as pl

from mlforge.core.manifest import Manifest, Partial
from mlforge.features.feature import Feature
from mlforge.ingest import partials
from mlforge.store import Store
from mlforge.store.file_tasks import PartialWrite

# So many bytes of events are held back at most, to be written together.
_BATCH_BYTES = 32_000_000


class PartialCache:
    """The partials of one feature: the stored ones, and new ones waiting to be written.

    tables: the content hashes of its tables. afresh: compute every partial again, whatever is stored.
    """

    def __init__(
        self,
        feature: Feature,
        store: Store,
        latest: Manifest | None,
        tables: Mapping[str, str],
        *,
        afresh: bool,
    ) -> None:
        self._prefix = partials.memo_prefix(feature, tables)
        self._feature, self._store, self._latest = feature, store, latest
        self._stored = store.partials(feature.name)
        self.on_disk = set() if afresh else self._stored
        self._new: dict[str, Partial] = {}
        self._unwritten: list[PartialWrite] = []
        self._unwritten_bytes = 0

    def key(self, content: str) -> str:
        """The memo key of a content under this feature."""
        return partials.memo_key(self._prefix, content)

    def whole_key(self, contents: Iterable[str]) -> str:
        """The memo key of the whole source; `incremental=False` shows in it."""
        return partials.whole_key(self._prefix, contents, self._feature)

    def key_in_use(self, key: str) -> str:
        """The key itself, or that of a further partial of the content where the stored one lacks what is needed now.

        A feature with metrics sets columns aside that it cannot hold unless a metric needs them; versions that were made
        of such a partial keep it.
        """
        partial = self._new.get(key) or (self._described(key) if key in self._stored else None)
        lacking = partial and self._lacking(partial)
        return partials.memo_key(key, json.dumps(lacking)) if lacking else key

    def find(self, key: str) -> Partial | None:
        """A partial that this or another refresh has computed before, if the feature can hold its times."""
        if key in self._new or key not in self.on_disk:
            return self._new.get(key)
        partial = self._described(key)
        return partial if partial and self._feature.spec.holds(partial.times) else None

    def has_needed(self, partial: Partial) -> bool:
        """Whether no column that the feature needs may have been set aside when a partial was made."""
        return not self._lacking(partial)

    def add(self, partial: Partial, events: pl.DataFrame) -> Partial:
        """Queue a partial for writing; small partials are written together."""
        self._new[partial.hash] = partial
        stored = partials.stored(events)
        self._unwritten.append(PartialWrite(partial, stored))
        self._unwritten_bytes += int(stored.estimated_size())
        if self._unwritten_bytes >= _BATCH_BYTES:
            self.write()
        return partial

    def write(self) -> None:
        """Store what is held back."""
        batch, self._unwritten, self._unwritten_bytes = self._unwritten, [], 0
        if batch:
            self._store.write_partials(self._feature.name, batch, self._feature.spec.timestamp)

    def _described(self, key: str) -> Partial | None:
        return self._of_latest.get(key) or self._store.find_partial(self._feature.name, key)

    def _lacking(self, partial: Partial) -> list[str]:
        """The needed columns without a dtype in a partial that was made for other needs."""
        if partial.hash in self._new or (self.needs_as_before and partial.hash in self._of_latest):
            return []
        spec = self._feature.spec
        untyped = {column.name for column in partial.schema if column.dtype == "Null"}
        return sorted(
            (untyped.intersection(spec.needed()) if spec.columns else untyped) - {*spec.identity}
        )

    @cached_property
    def needs_as_before(self) -> bool:
        """Whether the latest version needed each column that the feature needs; without metrics it needed all."""
        if self._latest is None:
            return False
        spec, before = self._feature.spec, self._latest.spec
        return not before.columns or (bool(spec.columns) and {*spec.needed()} <= {*before.needed()})

    @cached_property
    def _of_latest(self) -> dict[str, Partial]:
        latest = self._latest
        return {partial.hash: partial for partial in latest.partials} if latest else {}
