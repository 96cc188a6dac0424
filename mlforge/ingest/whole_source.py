"""The whole source as one partial: for functions that look beyond a row."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from mlforge.core.manifest import Manifest, Partial, SourceRecord
from mlforge.core.text import plural
from mlforge.errors import MlforgeError, SourceError
from mlforge.frames.common_form import in_common_form
from mlforge.frames.milliseconds import in_microseconds
from mlforge.ingest import union
from mlforge.ingest.fit import Fit, fit
from mlforge.ingest.intake import FAULTS, Intake
from mlforge.ingest.null_columns import UNREADABLE
from mlforge.ingest.session import Session
from mlforge.ingest.transform import FileRows
from mlforge.ingest.unchanged import FilePartial, UnchangedFiles
from mlforge.ingest.whole_columns import WholeColumns, without_stray
from mlforge.sources.source_file import SourceFile


def ingest_whole_source(session: Session, why: str) -> Intake:
    """A single partial for all files: the function sees them together, in the order of their paths."""
    files = _contents(session)
    partial = _known_partial(session, files)
    if partial is None:
        partial = _computed_partial(session, files)
    if (kept := _last_good(session)) is not None:
        return _closed(session, kept, why)
    if partial is None:
        return _closed(session, [], why)
    states = session.states.now
    pairs = [
        (session.record(file, states[path].rows, partial, alone=False), partial)
        for path, file in files.items()
    ]
    return _closed(session, pairs, why)


def was_unproven(session: Session, latest: Manifest) -> bool:
    """Whether the latest version read the whole source because this very code is not proven row-wise."""
    key = session.cache.whole_key(record.hash for record in latest.sources)
    hashes = [partial.hash for partial in latest.partials]
    return hashes == [key] or hashes == [session.cache.key_in_use(key)]


def _closed(session: Session, pairs: list[FilePartial], why: str) -> Intake:
    fitted = Fit(pairs[0][1].schema) if pairs else None
    return session.close(pairs, why, fitted, rowwise=False, unchanged_files=UnchangedFiles())


def _contents(session: Session) -> dict[str, SourceFile]:
    """The readable files' contents, by path; unreadable files are quarantined."""
    files = {}
    for file in session.listing.files:
        try:
            session.states.content(file)
            files[file.path] = file
        except FAULTS as error:
            session.reject(file, error)
    return files


def _known_partial(session: Session, files: dict[str, SourceFile]) -> Partial | None:
    """The stored partial of all files but the already quarantined ones, which are removed from `files`."""
    among = _whole_key(session, list(files))
    still_bad: dict[str, tuple[str, str]] = {}
    for path in files:
        others = "" if _is_unreadable(session, path) else among
        reason = session.quarantine.repeats(path, session.memo(path, others))
        if reason is not None:
            still_bad[path] = reason, others
    key = _whole_key(session, [path for path in files if path not in still_bad])
    if (partial := session.cache.find(key)) is not None:
        for path, (reason, others) in still_bad.items():
            session.reject(files.pop(path), SourceError(reason), others)
    return partial


def _is_unreadable(session: Session, path: str) -> bool:
    """Whether a file was not read: what is wrong with it is its own; a readable one is set aside because of others."""
    return session.states.now[path].shape in ("", UNREADABLE)


def _computed_partial(session: Session, files: dict[str, SourceFile]) -> Partial | None:
    """The partial of all files that can be read and fit together; other files are removed from `files`."""
    left_out: dict[str, str] = {}
    frames = _read_all(session, files, left_out)
    for path in [path for path in files if path not in frames]:
        del files[path]
    key = _whole_key(session, list(files))
    partial = session.cache.find(key)
    if partial is not None or not frames:
        return partial
    rows = FileRows(pl.concat(frames.values()), "the whole source", left_out, len(frames))
    try:
        return session.compute(key, rows, alone=False)
    except FAULTS as error:
        if rows.frame.height:  # no rows at all give no events
            session.quarantine.errors.append(error)
        return None


def _last_good(session: Session) -> list[FilePartial] | None:
    """The latest version's files, while a bad file stands in for one of them, whose content exists nowhere else."""
    latest = session.latest
    if latest is None or latest.rowwise or not was_unproven(session, latest):
        return None
    if not any(_stands_in(session, record) for record in latest.sources):
        return None
    if not session.cache.holds_what_is_needed(latest.partials[0]):
        return None
    return [(record, latest.partials[0]) for record in latest.sources]


def _stands_in(session: Session, record: SourceRecord) -> bool:
    """Whether a content counts in place of a bad one, not only where the very content is set aside now, or was before."""
    path = record.path
    if path not in session.quarantine.now:
        return False
    state = session.states.now.get(path)
    is_replaced = state is None or state.hash != record.hash
    return is_replaced and session.states.last_good(path) == record.hash


def _whole_key(session: Session, paths: list[str]) -> str:
    hashes = (session.states.now[path].hash for path in paths)
    return session.cache.key_in_use(session.cache.whole_key(hashes))


def _read_all(
    session: Session, files: Mapping[str, SourceFile], left_out: dict[str, str]
) -> dict[str, pl.DataFrame]:
    """The rows of every file that can be read and fits, all with the same columns and dtypes.

    left_out: takes up the columns that files have and frames have not, with reasons.
    """
    frames: dict[str, pl.DataFrame] = {}
    among = _whole_key(session, list(files))
    for path, file in files.items():
        try:
            content = session.states.read(file)
            frames[path] = in_microseconds(session.feature.spec, content.frame, path)
            left_out.update(content.left_out)
        except FAULTS as error:
            session.reject(file, error)
    frames = in_common_form(frames, session.feature.spec.timestamp)
    frames, stray = without_stray(session.transform, frames)
    for name, paths in stray.items():
        left_out[name] = "most files lack it"
        others = f" and {plural(len(paths) - 1, 'more file')}" if len(paths) > 1 else ""
        session.warnings.append(
            f"{paths[0]}{others}: column {name!r} is left out, as most files of the source lack it"
        )
    shapes = {path: union.shape(path, frame) for path, frame in frames.items()}
    columns = WholeColumns.of(session.transform, frames)
    used = columns.used
    fitted = fit(shapes.values(), used)
    if fitted is None:
        return {}
    for path, shape in shapes.items():
        reason = fitted.misfits.get(id(shape.schema))
        fault: MlforgeError | None = SourceError(f"{path}: {reason}") if reason else None
        if shape.rows and fault is None:
            fault = columns.lacking(path, frames[path])
        if fault is not None:
            session.reject(files[path], fault, among)
            del frames[path]
    fitting = fit([shape for path, shape in shapes.items() if path in frames], used)
    if fitting is None:
        return {}
    return union.alike(frames, shapes, fitting)
