"""The whole source as one partial: for functions that look beyond a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl
from polars.io.plugins import register_io_source

from mlforge.core.manifest import Manifest, Partial, SourceRecord
from mlforge.core.schema import dtypes
from mlforge.errors import SourceError
from mlforge.features.feature import Function
from mlforge.frames import polars_schema
from mlforge.ingest import partials
from mlforge.ingest.session import FAULTS, Desk, Intake
from mlforge.ingest.unchanged import UnchangedFiles
from mlforge.sources.source import SourceFile


def as_one(desk: Desk, why: str) -> Intake:
    """The whole source as one partial: for functions that look beyond a row."""
    files: dict[str, SourceFile] = {}
    for file in desk.listing.files:
        try:
            desk.content(file)
            files[file.path] = file
        except FAULTS as error:
            desk.reject(file, error)
    still_bad = {
        path: bad
        for path, bad in desk.set_aside_before.items()
        if path in files and bad.memo == desk.verdict(path)
    }
    partial = desk.stored(_whole_key(desk, [path for path in files if path not in still_bad]))
    if partial is not None:
        for path, bad in still_bad.items():
            desk.reject(files.pop(path), SourceError(bad.reason))
    else:
        read = _read_all(desk, files)
        files = {path: files[path] for path in read}
        key = _whole_key(desk, list(files))
        partial = desk.stored(key)
        if partial is None and read:
            try:
                partial = desk.compute(
                    key,
                    pl.concat(read.values(), how="vertical_relaxed"),
                    "the whole source",
                    alone=False,
                )
            except FAULTS as error:
                desk.errors.append(error)
    if (kept := _last_good(desk)) is not None:
        return desk.intake(kept, why, kept[0][1].schema, rowwise=False, at_rest=UnchangedFiles())
    if partial is None:
        return desk.intake([], why, None, rowwise=False, at_rest=UnchangedFiles())
    pairs = [
        (desk.record(f, desk.seen[p].rows, partial, alone=False), partial) for p, f in files.items()
    ]
    return desk.intake(pairs, why, partial.schema, rowwise=False, at_rest=UnchangedFiles())


def _last_good(desk: Desk) -> list[tuple[SourceRecord, Partial]] | None:
    """What the latest version was made of, while a file of it is set aside: its content is nowhere else."""
    latest = desk.latest
    if latest is None or latest.rowwise or not was_unproven(desk, latest):
        return None
    if not any(record.path in desk.set_aside for record in latest.sources):
        return None
    return [(record, latest.partials[0]) for record in latest.sources]


def was_unproven(desk: Desk, latest: Manifest) -> bool:
    """Whether the latest version was made of the whole source for want of a proof for this very code."""
    made_of = desk.whole_key(record.hash for record in latest.sources)
    return [partial.hash for partial in latest.partials] == [made_of]


def _whole_key(desk: Desk, paths: list[str]) -> str:
    return desk.whole_key(desk.seen[path].hash for path in paths)


def _read_all(desk: Desk, files: Mapping[str, SourceFile]) -> dict[str, pl.DataFrame]:
    """Every file that can be read and has the columns that most have, as far as they are used."""
    read: dict[str, pl.DataFrame] = {}
    for path, file in files.items():
        try:
            read[path] = polars_schema.in_microseconds(desk.read(file))
        except FAULTS as error:
            desk.reject(file, error)
    shapes = {
        path: Partial(path, frame.height, None, polars_schema.schema_of(frame), {}, 0)
        for path, frame in read.items()
    }
    schema = partials.common_schema(shapes.values())
    if schema is None:
        return {}
    like_most = next(read[path] for path, shape in shapes.items() if shape.schema == schema)
    used = _columns_read(desk.feature.function, like_most.schema)
    needed = tuple(column for column in schema if used is None or column.name in used)
    for path, shape in shapes.items():
        if (reason := partials.misfit(shape, needed)) is not None:
            desk.reject(files[path], SourceError(f"{path}: {reason}{desk.hint()}"))
            del read[path]
    return {
        path: polars_schema.select_typed(
            frame.lazy(), dtypes(shapes[path].schema), schema
        ).collect()
        for path, frame in read.items()
    }


def _columns_read(function: Function, schema: pl.Schema) -> set[str] | None:
    """The columns that the function's plan reads of such frames; None where that cannot be told."""
    asked: list[list[str] | None] = []

    def source(columns: list[str] | None, *_: object) -> Iterator[pl.DataFrame]:
        asked.append(columns)
        yield pl.DataFrame(schema=schema).select(columns or pl.all())

    try:
        plan = function(register_io_source(source, schema=schema))
        if asked or not isinstance(plan, pl.LazyFrame):
            return None
        plan.collect()
    except (Exception, SystemExit, pl.exceptions.PanicException):  # noqa: BLE001 - a user's function
        return None
    return None if None in asked else {name for columns in asked for name in columns or ()}
