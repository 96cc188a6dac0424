"""Files at rest: those that are as they were when the latest version was made of them.

Most are, so each costs as little as it can. What is known of all of them is kept from one refresh to
the next, and a look at ten thousand files is a comparison of two dictionaries.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from mlforge.core.list_diff import lacking
from mlforge.core.manifest import Manifest, Partial, SourceRecord
from mlforge.sources.parquet_reader import Stat
from mlforge.store import Seen

Found = tuple[SourceRecord, Partial]
Records = tuple[SourceRecord, ...]
Partials = tuple[Partial, ...]
_path = attrgetter("path")
_REMEMBERED = 8


@dataclass(frozen=True, slots=True)
class UnchangedFiles:
    """Files and what they give: records by their paths, the partial of each, and each file's stat."""

    records: tuple[SourceRecord, ...] = ()
    partials: tuple[Partial, ...] = ()
    stats: Mapping[str, Stat] = field(default_factory=dict)

    def among(self, stats: Mapping[str, Stat]) -> UnchangedFiles:
        """Those that are there with the same stat."""
        there = dict(stats)
        for path in lacking(stats, self.stats):
            del there[path]
        if there == self.stats:
            return self
        return self._of({path for path, stat in there.items() if stat == self.stats[path]})

    def whose(self, fits: Callable[[Partial], bool]) -> UnchangedFiles:
        """Those whose partials do."""
        pairs = zip(self.records, self.partials, strict=True)
        return self._of({record.path for record, partial in pairs if fits(partial)})

    def joined(self, found: Sequence[Found]) -> tuple[Records, Partials]:
        """Records and partials of these files and of others, by their paths."""
        if not found:
            return self.records, self.partials
        records, partials = list(self.records), list(self.partials)
        for record, partial in found:
            place = bisect_right(records, record.path, key=_path)
            records.insert(place, record)
            partials.insert(place, partial)
        return tuple(records), tuple(partials)

    def grown(
        self, found: Sequence[Found], joined: tuple[Records, Partials], seen: Mapping[str, Seen]
    ) -> UnchangedFiles:
        """These and those of the others that are at rest by now; `joined` is what both are together."""
        settled = [pair for pair in found if _settled(pair[0], seen.get(pair[0].path))]
        stats = {record.path: seen[record.path][:4] for record, _ in settled}
        records, partials = joined if len(settled) == len(found) else self.joined(settled)
        return UnchangedFiles(records, partials, {**self.stats, **stats})

    def _of(self, paths: set[str]) -> UnchangedFiles:
        pairs = zip(self.records, self.partials, strict=True)
        kept = [pair for pair in pairs if pair[0].path in paths]
        return UnchangedFiles(
            tuple(record for record, _ in kept),
            tuple(partial for _, partial in kept),
            {path: self.stats[path] for path in paths},
        )


def of_version(latest: Manifest, seen: Mapping[str, Seen]) -> UnchangedFiles:
    """The files of a version that are as they were when they were last seen."""
    for records, known, rest in _kept:
        if records is latest.sources and known is seen:
            return rest
    partials = {partial.hash: partial for partial in latest.partials}
    own = tuple(partials[record.partial] for record in latest.sources)
    found = list(zip(latest.sources, own, strict=True))
    return keep(latest.sources, seen, UnchangedFiles().grown(found, (latest.sources, own), seen))


def keep(records: Records, seen: Mapping[str, Seen], rest: UnchangedFiles) -> UnchangedFiles:
    """Have `of_version` know it of the version with these very records."""
    _kept.insert(0, (records, seen, rest))
    del _kept[_REMEMBERED:]
    return rest


_kept: list[tuple[Records, Mapping[str, Seen], UnchangedFiles]] = []


def _settled(record: SourceRecord, seen: Seen | None) -> bool:
    """Whether the record tells of what was seen, and that is neither set aside nor about to change."""
    return (
        seen is not None
        and record.hash == seen.hash == seen.good
        and record.mtime == seen.mtime_ns // 1000
    )
