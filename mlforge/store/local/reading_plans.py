"""Which packs are read whole for some partials. Of very many it is told from what it was for those of the version before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlforge.core.list_diff import differing
from mlforge.core.manifest import Partial
from mlforge.store.file_tasks import FileScanTask
from mlforge.store.local.live_packs import Packed

MANY = 100
"""With fewer partials each plan is made anew."""
_MOST_OTHERS = 1_000
"""A plan that so many partials differ from is no help."""


@dataclass(frozen=True, slots=True)
class ReadingPlan:
    """A plan to read some partials. whole: the tasks of packs that are read whole. others: the partials that are in none of these."""

    partials: Sequence[Partial]
    packed: Packed
    whole: Sequence[FileScanTask]
    others: Sequence[Partial]

    @classmethod
    def of(cls, partials: Sequence[Partial], packed: Packed) -> ReadingPlan:
        """The plan for these partials; one that counts twice is read twice."""
        by_hash = {partial.hash: partial for partial in partials}
        outside, whole = set(by_hash), list[FileScanTask]()
        if len(outside) == len(partials):
            for pack in packed.whole:
                if outside.issuperset(pack.hashes):
                    outside.difference_update(pack.hashes)
                    pack.tell(by_hash)
                    whole.append(pack.task)
        others = [partial for partial in partials if partial.hash in outside] if outside else []
        return cls(partials, packed, whole, others)

    def after(self, partials: Sequence[Partial], packed: Packed) -> ReadingPlan | None:
        """The plan for other partials, if they differ from these in what lies in no pack; else None."""
        if packed is not self.packed:
            return None
        if partials is self.partials:
            return self
        went, came = differing(self.partials, partials)
        gone, new = {partial.hash for partial in went}, {partial.hash for partial in came}
        both = gone | new
        if len(both) > _MOST_OTHERS or not packed.places.keys().isdisjoint(both):
            return None
        kept = [partial for partial in self.others if partial.hash not in both]
        if len(kept) + len(went) != len(self.others) or len(new) != len(came):
            return None
        return ReadingPlan(partials, packed, self.whole, [*kept, *came])


class ReadingPlans:
    """The last plan for very many partials, from which the next one is made."""

    def __init__(self) -> None:
        self._last: ReadingPlan | None = None

    def of(self, partials: Sequence[Partial], packed: Packed) -> ReadingPlan:
        """The plan to read some partials."""
        if len(partials) < MANY:
            return ReadingPlan.of(partials, packed)
        plan = self._last and self._last.after(partials, packed)
        self._last = plan = plan or ReadingPlan.of(partials, packed)
        return plan
