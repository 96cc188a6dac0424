"""The look at a source that a refresh begins with: at all of it, or at the files alone that are named to it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from mlforge.build.result import Options
from mlforge.build.usable import complete
from mlforge.core.list_diff import differing, lacking
from mlforge.features.feature import Feature
from mlforge.ingest.unchanged import UnchangedFiles, of_version
from mlforge.sources.listing import Listing
from mlforge.sources.row_source import RowSource
from mlforge.sources.source_file import Stat
from mlforge.sources.walk import Ignored
from mlforge.store import Snapshot

MANY_FILES = 100
"""With fewer files all are looked at, as that costs next to nothing; some hundreds take a millisecond and more of each drop."""


@contextmanager
def looking(
    feature: Feature, source: RowSource, snapshot: Snapshot, options: Options
) -> Iterator[Listing]:
    """A listing of the source, whose files stay for as long as the block runs, where the source can promise it."""
    unchanged = _unchanged(snapshot)
    if options.paths is not None and unchanged is not None and not options.full:
        listing = _named(feature, source, snapshot, unchanged, options.paths)
        if listing is not None:
            yield listing
            return
    known: Mapping[str, Stat] | None = None if unchanged is None else unchanged.stats
    with source.reading(known) as listing:  # which reuses stats that are equal
        yield complete(listing, source, snapshot.latest)


def _unchanged(snapshot: Snapshot) -> UnchangedFiles | None:
    """The source's files that are as the latest version was made of them when they were last looked at; None where that is not told by file."""
    latest = snapshot.latest
    if latest is None or not latest.rowwise:
        return None
    return of_version(latest, snapshot.file_states)


def _named(
    feature: Feature,
    source: RowSource,
    snapshot: Snapshot,
    unchanged: UnchangedFiles,
    paths: Collection[str],
) -> Listing | None:
    """A listing of the unchanged files, for which only named ones are looked at and those that are not known to be unchanged.

    None where they are few, or the version was made by another definition, or of a file whose state is lost.
    """
    latest, states = snapshot.latest, snapshot.file_states
    assert latest is not None
    if len(unchanged.stats) < MANY_FILES:
        return None
    if (latest.code_hash, latest.spec) != (feature.code_hash, feature.spec):
        return None
    if latest.source != source.text:
        return None
    others, _ = differing(latest.sources, unchanged.records)  # few, as the rest is unchanged
    if not all(record.path in states for record in others):
        return None
    unsure = lacking((record.path for record in others), unchanged.stats)
    # Some are of files that the version lacks.
    if len(states) != len(unchanged.stats) + len(unsure):
        unsure = lacking(states, unchanged.stats)
    books = snapshot.books
    listing = source.look({*paths, *unsure, *books.quarantine}, unchanged.stats)
    if listing is None:
        return None
    ignored = [Ignored(path, why) for path, why in books.ignored.items()]
    return replace(listing, ignored=tuple(i for i in ignored if i.path not in listing.stats))
