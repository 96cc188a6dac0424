"""Unchanged files: as they were when the latest version was made of them.

Most files are, so each costs as little as it can. Their records are kept from one refresh to the next,
and a look at ten thousand files is a comparison of two dictionaries.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from mlforge.core.list_diff import lacking
from mlforge.core.manifest import Manifest, Partial, SourceRecord
from mlforge.sources.parquet_reader import Stat
from mlforge.store import FileState

FilePartial = tuple[SourceRecord, Partial]
Records = tuple[SourceRecord, ...]
Partials = tuple[Partial, ...]
_path = attrgetter("path")
_REMEMBERED = 8


@dataclass(frozen=True, slots=True)
class UnchangedFiles:
    """Records sorted by path, the partial of each, and each file's stat by path."""

    records: tuple[SourceRecord, ...] = ()
    partials: tuple[Partial, ...] = ()
    stats: Mapping[str, Stat] = field(default_factory=dict)

    def among(self, stats: Mapping[str, Stat]) -> UnchangedFiles:
        """The files that are listed with the same stat."""
        there = dict(stats)
        for path in lacking(stats, self.stats):
            del there[path]
        if there == self.stats:
            return self
        return self._of({path for path, stat in there.items() if stat == self.stats[path]})

    def whose(self, fits: Callable[[Partial], bool]) -> UnchangedFiles:
        """The files whose partials fit."""
        pairs = zip(self.records, self.partials, strict=True)
        return self._of({record.path for record, partial in pairs if fits(partial)})

    def without(self, paths: Collection[str]) -> UnchangedFiles:
        """The files at other paths."""
        return self._of({path for path in self.stats if path not in paths})

    def joined(self, others: Sequence[FilePartial]) -> tuple[Records, Partials]:
        """Records and partials of these files and of others, sorted by path."""
        if not others:
            return self.records, self.partials
        records, partials = list(self.records), list(self.partials)
        for record, partial in others:
            place = bisect_right(records, record.path, key=_path)
            records.insert(place, record)
            partials.insert(place, partial)
        return tuple(records), tuple(partials)

    def grown(
        self,
        others: Sequence[FilePartial],
        joined: tuple[Records, Partials],
        file_states: Mapping[str, FileState],
    ) -> UnchangedFiles:
        """This set plus newly read files whose stat has settled; `joined`: both sets together."""
        settled = [pair for pair in others if _settled(pair[0], file_states.get(pair[0].path))]
        stats = {record.path: file_states[record.path][:4] for record, _ in settled}
        records, partials = joined if len(settled) == len(others) else self.joined(settled)
        return UnchangedFiles(records, partials, {**self.stats, **stats})

    def _of(self, paths: set[str]) -> UnchangedFiles:
        pairs = zip(self.records, self.partials, strict=True)
        kept = [pair for pair in pairs if pair[0].path in paths]
        return UnchangedFiles(
            tuple(record for record, _ in kept),
            tuple(partial for _, partial in kept),
            {path: self.stats[path] for path in paths},
        )


def of_version(latest: Manifest, file_states: Mapping[str, FileState]) -> UnchangedFiles:
    """The files of a version that are as they were when they were last seen."""
    for records, known, rest in _kept:
        if records is latest.sources and known is file_states:
            return rest
    partials = {partial.hash: partial for partial in latest.partials}
    own = tuple(partials[record.partial] for record in latest.sources)
    pairs = list(zip(latest.sources, own, strict=True))
    return keep(
        latest.sources,
        file_states,
        UnchangedFiles().grown(pairs, (latest.sources, own), file_states),
    )


def keep(
    records: Records, file_states: Mapping[str, FileState], rest: UnchangedFiles
) -> UnchangedFiles:
    """Remember unchanged files for `of_version`, under a version's records and the states they were found with."""
    _kept.insert(0, (records, file_states, rest))
    del _kept[_REMEMBERED:]
    return rest


_kept: list[tuple[Records, Mapping[str, FileState], UnchangedFiles]] = []


def _settled(record: SourceRecord, state: FileState | None) -> bool:
    """Whether a record is of the file's last known state, which is neither set aside nor too young."""
    return (
        state is not None
        and record.hash == state.hash == state.good
        and record.mtime == state.mtime_ns // 1000
    )
