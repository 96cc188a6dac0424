"""Stored partials by memo key: each content's events are computed once and written in batches."""

from __future__ import annotations

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
        self.on_disk = set() if afresh else store.partials(feature.name)
        self._new: dict[str, Partial] = {}
        self._unwritten: list[PartialWrite] = []
        self._unwritten_bytes = 0

    def key(self, content: str) -> str:
        """The memo key of a content under this feature."""
        return partials.memo_key(self._prefix, content)

    def whole_key(self, contents: Iterable[str]) -> str:
        """The memo key of the whole source; `incremental=False` shows in it."""
        return partials.whole_key(self._prefix, contents, self._feature)

    def find(self, key: str) -> Partial | None:
        """A partial that this or another refresh has computed before, if the feature can hold its times."""
        if key in self._new or key not in self.on_disk:
            return self._new.get(key)
        partial = self._of_latest.get(key) or self._store.find_partial(self._feature.name, key)
        return partial if partial and self._feature.spec.holds(partial.times) else None

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

    @cached_property
    def _of_latest(self) -> dict[str, Partial]:
        latest = self._latest
        return {partial.hash: partial for partial in latest.partials} if latest else {}
