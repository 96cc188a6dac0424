"""From the files of a source to partials: what is bad is set aside, what is good goes on."""

from __future__ import annotations

from collections.abc import Mapping

from mlforge.core.list_diff import lacking
from mlforge.core.manifest import Manifest, Partial, SourceRecord
from mlforge.core.schema import Schema
from mlforge.errors import SourceError
from mlforge.features.feature import Feature
from mlforge.ingest import partials
from mlforge.ingest.session import FAULTS, Desk, Intake, NotProvenError
from mlforge.ingest.unchanged import Found, UnchangedFiles
from mlforge.ingest.whole_source import as_one, was_unproven
from mlforge.sources.source import Listing, SourceFile
from mlforge.store import Store

__all__ = ["Intake", "take_in"]


def take_in(
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

    def desk() -> Desk:
        return Desk(feature, listing, store, latest, max_bytes, afresh=afresh, careful=careful)

    if feature.incremental is False:
        return as_one(desk(), "incremental=False")
    if feature.incremental:
        return _by_file(desk(), "incremental=True")
    if latest is not None and not latest.rowwise and was_unproven(desk(), latest):
        return as_one(desk(), latest.why)
    try:
        return _by_file(desk(), "proven row-wise")
    except NotProvenError as unproven:
        return as_one(desk(), unproven.reason)


def _by_file(desk: Desk, why: str) -> Intake:
    """Each file by itself: a partial a file."""
    rest, found = desk.at_rest(), dict[str, Found]()
    for file in desk.listing.among(lacking(desk.listing.stats, rest.stats)):
        try:
            partial = _partial_of(desk, file)
            found[file.path] = desk.record(file, partial.rows, partial, alone=True), partial
        except FAULTS as error:
            desk.reject(file, error)
    every = [*rest.partials, *(partial for _, partial in found.values())]
    schema = partials.common_schema(every)
    if schema is not None and (unfit := partials.misfits(every, schema)):
        rest, found = _fitting(desk, rest, found, unfit)
    pairs = [*found.values(), *_last_good(desk, schema)]
    schema = schema or partials.common_schema([partial for _, partial in pairs])
    return desk.intake(pairs, why, schema, rowwise=True, at_rest=rest)


def _fitting(
    desk: Desk, rest: UnchangedFiles, found: Mapping[str, Found], unfit: Mapping[int, str]
) -> tuple[UnchangedFiles, dict[str, Found]]:
    """Set aside the files whose schemas do not fit, and give the others."""
    fitting = rest.whose(lambda partial: id(partial.schema) not in unfit)
    kept = {path: pair for path, pair in found.items() if id(pair[1].schema) not in unfit}
    reasons = {
        record.path: unfit[id(partial.schema)]
        for record, partial in zip(*rest.joined([*found.values()]), strict=True)
        if id(partial.schema) in unfit
    }
    for file in desk.listing.among(reasons):
        desk.reject(file, SourceError(f"{file.path}: {reasons[file.path]}"))
    return fitting, kept


def _partial_of(desk: Desk, file: SourceFile) -> Partial:
    key = desk.key(desk.content(file))
    bad = desk.set_aside_before.get(file.path)
    if (partial := desk.stored(key)) is not None:
        return partial
    if bad is not None and bad.memo == desk.verdict(file.path):
        raise SourceError(bad.reason)
    frame = desk.read(file)
    key = desk.key(desk.seen[file.path].hash)
    return desk.stored(key) or desk.compute(key, frame, file.path, alone=True)


def _last_good(desk: Desk, schema: Schema | None) -> list[tuple[SourceRecord, Partial]]:
    """A good file replaced by a bad one keeps its last good content, while that is still good.

    What its content was is in what was seen, not in the latest version: renames make none.
    """
    kept = []
    known = {record.hash: record for record in (desk.latest.sources if desk.latest else ())}
    for path in desk.set_aside:
        content = desk.good(path)
        partial = desk.stored(desk.key(content)) if content else None
        if partial is None or (schema is not None and partials.misfit(partial, schema)):
            continue
        record = known.get(content)
        size, mtime = (record.size, record.mtime) if record else (0, 0)
        kept.append(
            (
                SourceRecord(path, size, mtime, content, partial.rows, partial.times, partial.hash),
                partial,
            )
        )
    return kept
