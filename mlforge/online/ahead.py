"""Rows of a push that are encoded, and evaluated where they are not yet, while their version is written. None is sent before its push begins."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, replace

from mlforge.core.side_by_side import begin
from mlforge.engines import Engine
from mlforge.engines.versions_diff import VersionsDiff
from mlforge.engines.views import Gathered
from mlforge.online.base import OnlineStore
from mlforge.online.batches import Batch, evaluated

ENCODED_ROWS = 20_000
"""More rows than these are encoded a chunk at a time, as they are sent: all their texts at once would take much memory."""


@dataclass(frozen=True)
class RowsAhead:
    """The rows of gathered events, evaluated by an engine and encoded for an online store by another thread."""

    gathered: Gathered
    engine: Engine
    online: OnlineStore
    batch: Future[Batch]

    @classmethod
    def begun(cls, gathered: Gathered, engine: Engine, online: OnlineStore) -> RowsAhead:
        """Begin with them."""
        return cls(gathered, engine, online, begin(_encoded, gathered, engine, online))

    def of(self, gathered: Gathered, engine: Engine, online: OnlineStore) -> Batch | None:
        """The rows of these very events, if this engine has evaluated them for this store. Raises what that has raised."""
        is_for = self.gathered is gathered and self.online is online
        return self.batch.result() if is_for and type(self.engine) is type(engine) else None


@dataclass(frozen=True)
class DiffAhead(VersionsDiff):
    """How two versions differ, with the rows that the push of the later one is going to write."""

    rows: RowsAhead | None = None

    @classmethod
    def of(cls, diff: VersionsDiff, rows: RowsAhead) -> DiffAhead:
        """The same difference with rows beside it."""
        return cls(diff.before, diff.after, diff.events, diff.gathered, rows)

    def __reduce__(self) -> tuple[object, ...]:
        """The difference alone: what a thread makes is in no pickle, and a push in another process makes it anew."""
        return VersionsDiff, (self.before, self.after, self.events, self.gathered)


def _encoded(gathered: Gathered, engine: Engine, online: OnlineStore) -> Batch:
    """The rows as they will be sent."""
    batch = evaluated(engine, gathered)
    if batch.rows.height > ENCODED_ROWS:
        return batch
    return replace(batch, encoded=online.encoded(batch.rows, gathered.views[0].events.spec.keys))
