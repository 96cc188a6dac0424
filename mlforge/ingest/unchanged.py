"""Unchanged files: as they were when the latest version was made of them.

Most files are, so each costs as little as it can. Their records are kept with the states of files
from one refresh to the next, and a look at ten thousand files is a comparison of two dictionaries.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from types import MappingProxyType

from mlforge.core.collection import collection_paused
from mlforge.core.list_diff import appended, lacking
from mlforge.core.manifest import Manifest, Partial, SourceRecord
from mlforge.core.schema import Schema
from mlforge.ingest.fit import schemas_of
from mlforge.sources.listing import Listing
from mlforge.sources.source_file import Stat
from mlforge.store import FileState, FileStateMap

FilePartial = tuple[SourceRecord, Partial]
Records = tuple[SourceRecord, ...]
Partials = tuple[Partial, ...]
_path = attrgetter("path")


@dataclass(frozen=True, slots=True)
class UnchangedFiles:
    """Records sorted by path, the partial of each, and each file's stat by path. schemas: those of the partials, by their identity."""

    records: tuple[SourceRecord, ...] = ()
    partials: tuple[Partial, ...] = ()
    stats: Mapping[str, Stat] = field(default_factory=dict)
    schemas: Mapping[int, Schema] = field(default_factory=dict)

    def among(self, listing: Listing) -> UnchangedFiles:
        """The files that are listed with the same stat."""
        unlike = listing.unlike(self.stats)
        return self.without(set(unlike)) if unlike else self

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
        if not self.records or self.records[-1].path < min(record.path for record, _ in others):
            in_order = sorted(others, key=lambda pair: pair[0].path)  # as of new files mostly
            newest = tuple(record for record, _ in in_order), tuple(p for _, p in in_order)
            return appended(self.records, newest[0]), appended(self.partials, newest[1])
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
        file_states: FileStateMap,
        listed: Mapping[str, Stat] = MappingProxyType({}),
    ) -> UnchangedFiles:
        """This set plus newly read files whose stat has settled; `joined`: both sets together. listed: the stats of all files, if they are known."""
        settled, stats = list[FilePartial](), dict[str, Stat]()
        for pair in others:
            state = file_states.get(pair[0].path)
            if state is not None and _settled(pair[0], state):
                settled.append(pair)
                stats[pair[0].path] = state[:4]
        records, partials = joined if len(settled) == len(others) else self.joined(settled)
        schemas = schemas_of(partial for _, partial in settled)
        new = lacking(stats, self.stats)
        is_all = len(self.stats) + len(new) == len(listed)  # then a copy would say the same
        together = listed if is_all else {**self.stats, **stats}
        return UnchangedFiles(records, partials, together, {**self.schemas, **schemas})

    def _of(self, paths: set[str]) -> UnchangedFiles:
        pairs = zip(self.records, self.partials, strict=True)
        kept = [pair for pair in pairs if pair[0].path in paths]
        partials = tuple(partial for _, partial in kept)
        return UnchangedFiles(
            tuple(record for record, _ in kept),
            partials,
            {path: self.stats[path] for path in paths},
            schemas_of(partials),
        )


def of_version(latest: Manifest, file_states: FileStateMap) -> UnchangedFiles:
    """The files of a version that are as they were when they were last seen."""
    if file_states.memo is not None:
        records, unchanged_files = file_states.memo
        if records is latest.sources:
            assert isinstance(unchanged_files, UnchangedFiles)
            return unchanged_files
    with collection_paused():
        partials = {partial.hash: partial for partial in latest.partials}
        own = tuple([partials[record.partial] for record in latest.sources])
        pairs = list(zip(latest.sources, own, strict=True))
        unchanged_files = UnchangedFiles().grown(pairs, (latest.sources, own), file_states)
    keep(latest.sources, file_states, unchanged_files)
    return unchanged_files


def keep(records: Records, file_states: FileStateMap, unchanged_files: UnchangedFiles) -> None:
    """Note the unchanged files of a version's records for `of_version`, with the states that tell them."""
    file_states.memo = records, unchanged_files


def _settled(record: SourceRecord, state: FileState) -> bool:
    """Whether a record is of the file's last known state, which is neither set aside nor too young."""
    is_same = record.hash == state.hash == state.good
    return is_same and record.mtime == state.mtime_ns // 1000
