"""Loss: events that would stop counting with the next version. A pure comparison of two manifests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlforge.core.list_diff import differing
from mlforge.core.manifest import Manifest, SourceRecord
from mlforge.core.text import plural
from mlforge.store.changes import EventDiff

_NAMED = 3


@dataclass(frozen=True, slots=True)
class Files:
    """Source files with one fate: their paths, and the number of events that they contributed."""

    paths: tuple[str, ...] = ()
    events: int = 0

    def sentence(self, of: int, fate: str) -> str:
        """A sentence on the files, their events and the first paths; empty without files. of: the number of all files."""
        if not self.paths:
            return ""
        count = len(self.paths)
        named = ", ".join(self.paths[:_NAMED]) + (", ..." if count > _NAMED else "")
        return f"{count:,} of {of:,} files are {fate} ({plural(self.events, 'event')}: {named})"


@dataclass(frozen=True)
class Loss:
    """Events of the served version that its successor would not count.

    before, after: the number of events that count now, and then. files_before, files: how many files
    give them. lost: the events that would stop counting; replaced events are not lost. gone, set_aside: the files concerned.
    outvoted: why files that counted do not fit any more, None where no other dtype won.
    """

    before: int
    after: int
    files_before: int
    files: int
    lost: int
    gone: Files
    set_aside: Files
    outvoted: str | None = None

    def is_above(self, share: float) -> bool:
        """Whether more than a share of the events is lost, or any of them by a change of the dtype that wins."""
        if self.outvoted and self.set_aside.events:
            return True
        return self.before > 0 and self.lost / self.before > share

    def sentence(self, feature: str) -> str:
        """The reason for a hold, in numbers: what is gone, what is set aside, what `approve` would do."""
        causes = [
            self.gone.sentence(self.files_before, "gone"),
            self.set_aside.sentence(self.files_before, "set aside"),
        ]
        thinned = self.lost - self.gone.events - self.set_aside.events
        if thinned > 0:
            causes.append(
                f"{thinned:,} of {self.before:,} events are gone from files that are still there"
            )
        votes = f"; most files have another dtype by now: {self.outvoted}" if self.outvoted else ""
        return (
            f"{'; '.join(filter(None, causes))}, so {self.lost:,} of {self.before:,} events would stop counting; "
            f"'mlforge approve {feature}' or a build goes on with {plural(self.after, 'event')} "
            f"of {plural(self.files, 'file')}{votes}"
        )


def loss_of(
    latest: Manifest | None,
    candidate: Manifest,
    diff: EventDiff | None,
    set_aside: Mapping[str, str],
    outvoted: str | None = None,
) -> Loss | None:
    """The loss of events that would stop counting; None if none would.

    diff: of the two manifests' events, None where they cannot be compared row by row. set_aside: the hash
    of the content of each file that is set aside, by path; empty where it was not read. outvoted: why files that counted until now
    do not fit what most files have by now, None where none does.
    """
    if latest is None or (diff is not None and diff.went == 0):
        return None
    before, after = (sum([p.rows for p in m.partials]) for m in (latest, candidate))
    gone, aside = _without_successor(latest, candidate, set_aside)
    # What comes does not make up for events that are set aside: they are there, and counted before.
    lost = max(aside.events, before - after)
    lost = min(lost, before if diff is None else diff.went)
    if lost <= 0:
        return None
    return Loss(
        before=before,
        after=after,
        files_before=len(latest.sources),
        files=len(candidate.sources),
        lost=lost,
        gone=gone,
        set_aside=aside,
        outvoted=outvoted,
    )


def _without_successor(
    latest: Manifest, candidate: Manifest, set_aside: Mapping[str, str]
) -> tuple[Files, Files]:
    """The files whose content does not count any more: missing files, and files set aside."""
    old, new = differing(latest.sources, candidate.sources)
    now = {record.path: record.hash for record in new}
    before = {record.path: record.hash for record in old}
    moved = Counter([h for path, h in now.items() if before.get(path) != h])
    aside_contents = set(set_aside.values()) - {""}
    gone: dict[str, int] = {}
    aside: dict[str, int] = {}
    for record, events in zip(old, _events_of(latest, old), strict=True):
        if now.get(record.path) == record.hash:
            continue
        if moved[record.hash] > 0:
            moved[record.hash] -= 1
        elif record.path not in now:
            is_aside = record.path in set_aside or record.hash in aside_contents
            (aside if is_aside else gone)[record.path] = events
    return _files(gone), _files(aside)


def _files(events: Mapping[str, int]) -> Files:
    return Files(tuple(events), sum(events.values()))


def _events_of(latest: Manifest, records: Sequence[SourceRecord]) -> list[int]:
    """The number of events of each file, by path; its number of rows where the whole source is one partial."""
    if not latest.rowwise:
        return [record.rows for record in records]
    rows = {partial.hash: partial.rows for partial in latest.partials}
    return [rows[record.partial] for record in records]
