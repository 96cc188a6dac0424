"""A refresh that is to be requested of a feature: what one change of its files, or several that are merged, ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from worker.state.named_paths import together


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A refresh that is to be requested.

    closed_at: when the first file that it is about was closed, in UTC microseconds; None where it is about no file.
    afresh: forget failures, since something has changed; otherwise their pauses go on.
    paths: the files that alone can have changed since the requests before; None for any.
    """

    reason: str
    closed_at: int | None = None
    afresh: bool = True
    paths: frozenset[str] | None = None

    def merged(self, later: PendingRequest) -> PendingRequest:
        """The two requests merged into one."""
        times = [time for time in (self.closed_at, later.closed_at) if time is not None]
        afresh, paths = self.afresh or later.afresh, together(self.paths, later.paths)
        return PendingRequest(later.reason, min(times, default=None), afresh, paths)


def merge_into(requests: dict[str, PendingRequest], more: Mapping[str, PendingRequest]) -> None:
    """Add requests, by their features, to others; two of one feature become the merged one."""
    for feature, later in more.items():
        before = requests.get(feature)
        requests[feature] = before.merged(later) if before else later
