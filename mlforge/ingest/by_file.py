"""Files ingested one by one: each gives its record and its partial, waits for others' dtypes, or is rejected."""

from __future__ import annotations

from collections.abc import Sequence

from mlforge.errors import SourceError
from mlforge.ingest.intake import FAULTS
from mlforge.ingest.null_columns import has_null_columns
from mlforge.ingest.session import Session
from mlforge.ingest.small_files import SmallFiles
from mlforge.ingest.transform import FileRows
from mlforge.ingest.unchanged import FilePartial
from mlforge.sources.parquet_reader import Content
from mlforge.sources.source_file import SourceFile

_WAITING_BYTES = 1_000_000


def read_each(
    session: Session, files: Sequence[SourceFile], pairs: dict[str, FilePartial]
) -> dict[str, Content | None]:
    """Put the record and the partial of each file into `pairs`; returns the files that wait for others' dtypes."""
    waiting: dict[str, Content | None] = {}
    small_files = SmallFiles(session, pairs)
    with session.ahead(files) as in_turn:
        for file in in_turn:
            try:
                content = _new_content(session, file, small_files)
                if has_null_columns(session.states.now[file.path].shape):
                    waiting[file.path] = _if_small(content)
                elif content is None or not small_files.take(file, content):
                    small_files.finish()
                    pairs[file.path] = pair_of(session, file, content)
            except FAULTS as error:
                small_files.finish()
                session.reject(file, error)
            if file.path not in waiting:
                session.amended.forget(file.path)
        small_files.finish()
    return waiting


def pair_of(session: Session, file: SourceFile, content: Content | None) -> FilePartial:
    """A file's record and partial, stored or computed. Raises one of FAULTS, or NotProvenError."""
    cache, key = session.cache, session.key(file.path)
    partial = cache.find(key)
    if partial is None:
        reason = session.repeats(file.path)
        if reason is not None and content is None:
            raise SourceError(reason)
        content = content or session.read(file)
        frame = session.nulls.mended(content.frame)
        rows = FileRows(frame, file.path, content.left_out)
        partial = session.compute(session.key(file.path), rows, alone=True)
    return session.record(file, partial.rows, partial, alone=True), partial


def _new_content(session: Session, file: SourceFile, small_files: SmallFiles) -> Content | None:
    """The content of a file that must be read, None for one whose events or columns are known.

    Raises one of FAULTS for a file that was set aside before and is as it was, or that cannot be read.
    """
    cache, states = session.cache, session.states
    session.expect(file)
    key = cache.key(states.content(file))
    if key in small_files:
        small_files.finish()
    key = cache.key_in_use(key)
    state = states.now[file.path]
    # Of a content that went and comes back nobody knows whether it has columns that take others' dtypes.
    if state.shape and (cache.find(key) is not None or has_null_columns(state.shape)):
        return None
    reason = session.repeats(file.path)
    if reason is not None and state.shape:
        raise SourceError(reason)
    return session.read(file)


def _if_small(content: Content | None) -> Content | None:
    """A content that may wait in memory; a large one is read again."""
    return content if content and content.frame.estimated_size() <= _WAITING_BYTES else None
