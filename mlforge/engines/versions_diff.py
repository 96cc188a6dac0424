"""How two versions differ, handed on by whoever has computed it, so that nobody compares or gathers their events again."""

from __future__ import annotations

from dataclasses import dataclass

from mlforge.core.manifest import Manifest
from mlforge.engines.views import Gathered
from mlforge.store.changes import EventDiff


@dataclass(frozen=True)
class VersionsDiff:
    """The events that differ between two versions.

    gathered: the events of all entities whose values may differ, in memory: of the later version as of when it came, and of the
    earlier one as of before; None where nobody has gathered them.
    """

    before: Manifest
    after: Manifest
    events: EventDiff
    gathered: Gathered | None = None

    @property
    def alone(self) -> VersionsDiff:
        """The same difference without the events that were gathered, or what was made of them."""
        return VersionsDiff(self.before, self.after, self.events)

    def is_between(self, before: Manifest, after: Manifest) -> bool:
        """Whether it tells how these versions differ: versions of one `rows_hash` hold the same events."""
        known = (self.before.rows_hash, self.after.rows_hash)
        return known == (before.rows_hash, after.rows_hash)
