"""From the files of a source to partials: what is bad is set aside, what is good goes on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack

from mlforge.core.manifest import Manifest, SourceRecord
from mlforge.core.schema import dtypes
from mlforge.errors import SourceError
from mlforge.features.feature import Feature
from mlforge.ingest import unchanged
from mlforge.ingest.elsewhere import Elsewhere, nowhere
from mlforge.ingest.fit import Fit, Misfit, fit, misfit, schemas_of, strict_columns
from mlforge.ingest.function_process import FunctionProcess
from mlforge.ingest.intake import AS_DECLARED, Intake, NotProvenError, Outvoted
from mlforge.ingest.new_files import read_new, read_waiting, told_of
from mlforge.ingest.null_columns import has_null_columns
from mlforge.ingest.session import Session
from mlforge.ingest.unchanged import FilePartial, UnchangedFiles
from mlforge.ingest.whole_source import ingest_whole_source, was_unproven
from mlforge.sources.listing import Listing
from mlforge.sources.parquet_reader import Content
from mlforge.sources.source_reading import SourceReading
from mlforge.store import FileStateMap, Store

_FIRST = 16


def ingest(
    feature: Feature,
    listing: Listing,
    store: Store,
    latest: Manifest | None,
    reading: SourceReading,
    *,
    afresh: bool = False,
    careful: bool = False,
    process: FunctionProcess | None = None,
    elsewhere: Elsewhere = nowhere,
) -> Intake:
    """Bring the partials of the files that exist now up to date.

    reading: through which other features of the source have read its files; one that would take more memory than it allows is set aside
    unread. afresh: trust no stored partial. careful: decode each file in a process of its own. process: where a function that is not proven row-wise is
    bounded in the memory that it takes; by default its result alone is judged. elsewhere: processes that read some of the
    files of a function that treats each row alone.
    """
    with ExitStack() as stack:

        def session() -> Session:
            opened = Session.open(
                feature,
                listing,
                store,
                latest,
                reading,
                afresh=afresh,
                careful=careful,
                process=process,
            )
            stack.callback(opened.cache.settle)
            return opened

        return _ingested(feature, latest, session, elsewhere)


def _ingested(
    feature: Feature,
    latest: Manifest | None,
    session: Callable[[], Session],
    elsewhere: Elsewhere,
) -> Intake:
    """The intake of a pass, by file where that is right; `session` opens one."""
    if feature.incremental is False:
        return ingest_whole_source(session(), AS_DECLARED)
    if feature.incremental:
        return _by_file(session(), "incremental=True", elsewhere)
    if latest is not None and not latest.rowwise and was_unproven(session(), latest):
        return ingest_whole_source(session(), latest.why)
    try:
        return _by_file(session(), "proven row-wise", elsewhere)
    except NotProvenError as unproven:
        return ingest_whole_source(session(), unproven.reason)


def _by_file(session: Session, why: str, elsewhere: Elsewhere) -> Intake:
    """Ingest each file alone: one partial per file."""
    unchanged_files, pairs = _unchanged_files(session), dict[str, FilePartial]()
    new = session.listing.among(
        session.listing.lacking(session.listing.stats, unchanged_files.stats)
    )
    unread = session.unread(new)
    waiting = read_new(session, new, told_of(session, elsewhere, unread), pairs)
    if waiting or _have_null_columns(session.states.now):
        unchanged_files = _without_stale(session, unchanged_files, waiting)
        read_waiting(session, waiting, elsewhere, pairs)
    strict = strict_columns(session.feature)
    fitted = _fitted(unchanged_files, pairs.values(), strict)
    outvoted = None
    if fitted is not None and fitted.misfits:
        unchanged_files, pairs, outvoted = _fitting(session, unchanged_files, pairs, fitted.misfits)
    if kept := _last_good(session, fitted):
        fitted = _fitted(unchanged_files, (*pairs.values(), *kept), strict)
    if fitted is not None and not set(session.feature.spec.needed()) <= set(dtypes(fitted.schema)):
        # Empty files alone.
        return session.close(
            [], why, None, rowwise=True, unchanged_files=UnchangedFiles(), unread=unread
        )
    usable = [*pairs.values(), *kept]
    if not usable and not unchanged_files.records and not _has_fitted(session):
        session.quarantine.unite()
    return session.close(
        usable,
        why,
        fitted,
        rowwise=True,
        unchanged_files=unchanged_files,
        outvoted=outvoted,
        unread=unread,
    )


def _have_null_columns(states: FileStateMap) -> bool:
    """Whether some file has a column that is null throughout. All files are gone through only where one has, or had."""
    if not any(map(has_null_columns, states.shapes)):
        return False
    return any(has_null_columns(state.shape) for state in states.values())


def _fitted(
    unchanged_files: UnchangedFiles, others: Iterable[FilePartial], strict: Collection[str] | None
) -> Fit | None:
    """How unchanged files and others fit together; None without files."""
    partials = [partial for _, partial in others]
    schemas = {**unchanged_files.schemas, **schemas_of(partials)}
    if len(schemas) == 1:  # as it mostly is
        return Fit(next(iter(schemas.values())))
    return fit([*unchanged_files.partials, *partials], strict)


def _unchanged_files(session: Session) -> UnchangedFiles:
    """The files unchanged since the latest version, which need no further look.

    All records of a version were made by the same code of the feature.
    """
    latest, cache, states = session.latest, session.cache, session.states
    if latest is None or not _is_of_this_function(session, latest):
        return UnchangedFiles()
    files = unchanged.of_version(latest, states.before).among(session.listing)
    if lost := cache.missing(latest.partials):
        files = files.whose(lambda partial: partial.hash not in lost)
    if latest.spec.interval != session.feature.spec.interval:
        files = files.whose(lambda partial: session.feature.spec.holds(partial.times))
    if not cache.needs_as_before:
        files = files.whose(cache.is_as_needed)
    states.start_without(session.listing.lacking(states.before, files.stats))
    return files


def _fitting(
    session: Session,
    unchanged_files: UnchangedFiles,
    pairs: Mapping[str, FilePartial],
    misfits: Mapping[int, Misfit],
) -> tuple[UnchangedFiles, dict[str, FilePartial], Outvoted | None]:
    """Quarantine the files whose schemas do not fit; returns the fitting files, and those outvoted that counted until now."""
    fitting = unchanged_files.whose(lambda partial: id(partial.schema) not in misfits)
    kept = {path: pair for path, pair in pairs.items() if id(pair[1].schema) not in misfits}
    unfit = {
        record.path: partial
        for record, partial in zip(*unchanged_files.joined([*pairs.values()]), strict=True)
        if id(partial.schema) in misfits
    }
    for file in session.listing.among(unfit):
        reason = misfits[id(unfit[file.path].schema)].of_function
        session.reject(file, SourceError(f"{file.path}: {reason}"))
    counting = {partial.hash for partial in session.latest.partials} if session.latest else set()
    outvoted = [partial for partial in unfit.values() if partial.hash in counting]
    if not outvoted:
        return fitting, kept, None
    rows = sum(partial.rows for partial in outvoted)
    return fitting, kept, Outvoted(len(outvoted), rows, misfits[id(outvoted[0].schema)].of_function)


def _is_of_this_function(session: Session, latest: Manifest) -> bool:
    """Whether this very function made a version's partials; a few samples show it for all.

    One match is enough: the keys of files with null columns depend on other files, too.
    """
    first = latest.sources[:_FIRST] if latest.rowwise else ()
    keys = ((record.partial, session.cache.key(record.hash)) for record in first)
    return any(used == key or used == session.cache.key_in_use(key) for used, key in keys)


def _has_fitted(session: Session) -> bool:
    """Whether the latest version was made by this very definition: then the files are at fault, not the definition."""
    latest, feature = session.latest, session.feature
    return (
        latest is not None and latest.code_hash == feature.code_hash and latest.spec == feature.spec
    )


def _without_stale(
    session: Session, unchanged_files: UnchangedFiles, waiting: dict[str, Content | None]
) -> UnchangedFiles:
    """The unchanged files whose null columns still take the same dtypes; the rest are put into `waiting`."""
    session.states.learn_shapes(session.listing.files)
    stale = {
        record.path
        for record in unchanged_files.records
        if has_null_columns(session.states.now[record.path].shape)
        and session.key(record.path) != record.partial
    }
    if not stale:
        return unchanged_files
    waiting.update(dict.fromkeys(stale))
    return unchanged_files.without(stale)


def _last_good(session: Session, fitted: Fit | None) -> list[FilePartial]:
    """The last good contents of files that were replaced by bad ones, while those contents still fit.

    Not a content that the file still holds: it is set aside now, as it would be by a rebuild. File states name that content; the latest version may not, since a rename makes no version.
    """
    if not session.quarantine.now:
        return []
    kept = []
    strict = strict_columns(session.feature)
    latest = session.latest
    sources = latest.sources if latest else ()
    known = {record.hash: record for record in sources}
    for path in session.quarantine.now:
        content = session.states.last_good(path)
        state = session.states.now.get(path)
        if state is not None and state.hash == content:
            continue
        key = session.cache.key(content) if content else ""
        if content in known and latest and _is_of_this_function(session, latest):
            key = known[content].partial
        partial = session.cache.find(key) if key else None
        if partial is None or not session.cache.holds_what_is_needed(partial):
            continue
        if fitted and misfit(partial.schema, fitted.schema, strict):
            continue
        record = known.get(content)
        size, mtime = (record.size, record.mtime) if record else (0, 0)
        lineage = SourceRecord(
            path, size, mtime, content, partial.rows, partial.times, partial.hash
        )
        kept.append((lineage, partial))
    return kept
