"""From the files of a source to partials: what is bad is set aside, what is good goes on."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter

from mlforge.core.list_diff import lacking
from mlforge.core.manifest import Manifest, Partial, SourceRecord
from mlforge.errors import SourceError
from mlforge.features.feature import Feature
from mlforge.ingest import unchanged
from mlforge.ingest.fit import Fit, fit, misfit, strict_columns
from mlforge.ingest.intake import FAULTS, Intake, NotProvenError, Outvoted
from mlforge.ingest.session import Session
from mlforge.ingest.transform import FileRows
from mlforge.ingest.unchanged import FilePartial, UnchangedFiles
from mlforge.ingest.whole_source import ingest_whole_source, was_unproven
from mlforge.sources.source import Listing, SourceFile
from mlforge.store import Store

__all__ = ["Intake", "ingest"]

_hash_of = attrgetter("hash")


def ingest(
    feature: Feature,
    listing: Listing,
    store: Store,
    latest: Manifest | None,
    max_bytes: int | None = None,
    *,
    afresh: bool = False,
    careful: bool = False,
) -> Intake:
    """Bring the partials of the files that exist now up to date.

    max_bytes: a file that would take more memory is set aside unread. afresh: trust no stored partial.
    careful: decode each file in a process of its own.
    """

    def session() -> Session:
        return Session.open(
            feature, listing, store, latest, max_bytes, afresh=afresh, careful=careful
        )

    if feature.incremental is False:
        return ingest_whole_source(session(), "incremental=False")
    if feature.incremental:
        return _by_file(session(), "incremental=True")
    if latest is not None and not latest.rowwise and was_unproven(session(), latest):
        return ingest_whole_source(session(), latest.why)
    try:
        return _by_file(session(), "proven row-wise")
    except NotProvenError as unproven:
        return ingest_whole_source(session(), unproven.reason)


def _by_file(session: Session, why: str) -> Intake:
    """Each file by itself: a partial a file."""
    rest, pairs = _unchanged_files(session), dict[str, FilePartial]()
    for file in session.listing.among(lacking(session.listing.stats, rest.stats)):
        try:
            partial = _partial_of(session, file)
            pairs[file.path] = session.record(file, partial.rows, partial, alone=True), partial
        except FAULTS as error:
            session.reject(file, error)
    strict = strict_columns(session.feature.spec)
    fitted = fit([*rest.partials, *(partial for _, partial in pairs.values())], strict)
    outvoted = None
    if fitted is not None and fitted.misfits:
        rest, pairs, outvoted = _fitting(session, rest, pairs, fitted.misfits)
    if kept := _last_good(session, fitted):
        fitted = fit([*rest.partials, *(p for _, p in (*pairs.values(), *kept))], strict)
    usable = [*pairs.values(), *kept]
    return session.close(usable, why, fitted, rowwise=True, rest=rest, outvoted=outvoted)


def _unchanged_files(session: Session) -> UnchangedFiles:
    """The files of the latest version that are as they were: a short way, for most are.

    All records of a version come from one feature as it was then.
    """
    latest, cache, states = session.latest, session.cache, session.states
    records = latest.sources if latest and latest.rowwise else ()
    if latest is None or not records or cache.key(records[0].hash) != records[0].partial:
        return UnchangedFiles()
    files = unchanged.of_version(latest, states.before).among(session.listing.stats)
    if lost := set(lacking(map(_hash_of, latest.partials), cache.on_disk)):
        files = files.whose(lambda partial: partial.hash not in lost)
    if latest.spec.interval != session.feature.spec.interval:
        files = files.whose(lambda partial: session.feature.spec.holds(partial.times))
    states.start_from(files.stats)
    return files


def _fitting(
    session: Session,
    rest: UnchangedFiles,
    pairs: Mapping[str, FilePartial],
    misfits: Mapping[int, str],
) -> tuple[UnchangedFiles, dict[str, FilePartial], Outvoted | None]:
    """Set aside the files whose schemas do not fit; the others, and how many of the former counted until now."""
    fitting = rest.whose(lambda partial: id(partial.schema) not in misfits)
    kept = {path: pair for path, pair in pairs.items() if id(pair[1].schema) not in misfits}
    unfit = {
        record.path: partial
        for record, partial in zip(*rest.joined([*pairs.values()]), strict=True)
        if id(partial.schema) in misfits
    }
    for file in session.listing.among(unfit):
        reason = misfits[id(unfit[file.path].schema)]
        session.reject(file, SourceError(f"{file.path}: {reason}"))
    counting = {partial.hash for partial in session.latest.partials} if session.latest else set()
    outvoted = [partial for partial in unfit.values() if partial.hash in counting]
    if not outvoted:
        return fitting, kept, None
    rows = sum(partial.rows for partial in outvoted)
    return fitting, kept, Outvoted(len(outvoted), rows, misfits[id(outvoted[0].schema)])


def _partial_of(session: Session, file: SourceFile) -> Partial:
    """A file's partial, stored or computed. Raises one of FAULTS, or NotProvenError."""
    cache = session.cache
    key = cache.key(session.states.content(file))
    if (partial := cache.find(key)) is not None:
        return partial
    if (reason := session.quarantine.repeats(file.path, session.memo(file.path))) is not None:
        raise SourceError(reason)
    content = session.states.read(file)
    key = cache.key(content.hash)
    rows = FileRows(content.frame, file.path, content.left_out)
    return cache.find(key) or session.compute(key, rows, alone=True)


def _last_good(session: Session, fitted: Fit | None) -> list[FilePartial]:
    """A good file replaced by a bad one keeps its last good content, while that is still good.

    File states tell what that content was, not the latest version: renames make none.
    """
    kept = []
    strict = strict_columns(session.feature.spec)
    sources = session.latest.sources if session.latest else ()
    known = {record.hash: record for record in sources}
    for path in session.quarantine.now:
        content = session.states.last_good(path)
        partial = session.cache.find(session.cache.key(content)) if content else None
        if partial is None or (fitted and misfit(partial.schema, fitted.schema, strict)):
            continue
        record = known.get(content)
        size, mtime = (record.size, record.mtime) if record else (0, 0)
        lineage = SourceRecord(
            path, size, mtime, content, partial.rows, partial.times, partial.hash
        )
        kept.append((lineage, partial))
    return kept
