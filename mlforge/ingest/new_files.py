"""New files: some read elsewhere, all others here, one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from mlforge.ingest.by_file import pair_of, read_each
from mlforge.ingest.elsewhere import Adopted, Elsewhere, FileOutcome
from mlforge.ingest.intake import FAULTS, NotProvenError
from mlforge.ingest.session import Session
from mlforge.ingest.unchanged import FilePartial
from mlforge.sources.parquet_reader import Content
from mlforge.sources.source_file import SourceFile


def told_of(
    session: Session,
    elsewhere: Elsewhere,
    unread: Sequence[SourceFile],
    adopted: Adopted | None = None,
) -> Mapping[str, FileOutcome]:
    """The outcomes of those of the files that other processes read. adopted: as in `Elsewhere`. Raises NotProvenError."""
    outcomes = elsewhere(unread, session.transform.tables.hashes, adopted)
    if outcomes.unproven is not None:
        raise NotProvenError(outcomes.unproven)
    session.states.files_read += outcomes.files_read
    session.warnings.extend(outcomes.warnings)
    return outcomes.files


def read_new(
    session: Session,
    files: Sequence[SourceFile],
    told: Mapping[str, FileOutcome],
    pairs: dict[str, FilePartial],
) -> dict[str, Content | None]:
    """As `read_each`, with what other processes have told of some files."""
    waiting: dict[str, Content | None] = {}
    for is_told, run in groupby(files, lambda file: file.path in told):
        if not is_told:
            waiting |= read_each(session, [*run], pairs)
            continue
        for file in run:
            outcome = told[file.path]
            session.states.note(file, outcome.state(file.stat))
            if not _take(session, file, outcome, pairs):
                waiting[file.path] = None
    return waiting


def read_waiting(
    session: Session,
    waiting: Mapping[str, Content | None],
    elsewhere: Elsewhere,
    pairs: dict[str, FilePartial],
) -> None:
    """Read the files that wait, with the dtypes that their columns without a value take from other files."""
    states, nulls = session.states.now, session.nulls
    absent = session.listing.among(path for path, content in waiting.items() if content is None)
    unread = [
        file
        for file in absent
        if file.path not in session.quarantine.before
        and session.cache.find(session.key(file.path)) is None
    ]
    shapes = {states[file.path].shape for file in unread}
    adopted = {shape: nulls.adopted(shape) for shape in shapes}
    told = told_of(session, elsewhere, unread, adopted)
    for file in session.listing.among(waiting):
        outcome = told.get(file.path)
        if outcome is not None and outcome.hash == states[file.path].hash:
            _take(session, file, outcome, pairs)
            continue
        try:
            pairs[file.path] = pair_of(session, file, waiting[file.path])
        except FAULTS as error:
            session.reject(file, error)


def _take(
    session: Session, file: SourceFile, outcome: FileOutcome, pairs: dict[str, FilePartial]
) -> bool:
    """Put a file's record and partial into `pairs`, or reject it, as another process has told; False where it waits."""
    if outcome.error is not None:
        session.reject(file, outcome.error)
    elif outcome.partial is not None:
        partial = session.cache.note(outcome.partial)
        pairs[file.path] = session.record(file, partial.rows, partial, alone=True), partial
    return outcome.error is not None or outcome.partial is not None
