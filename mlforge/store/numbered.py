"""The rows of many partials in one frame, each with the number of its partial, whichever files hold them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import polars as pl

from mlforge.core.schema import Column, Schema, dtypes
from mlforge.frames import polars_schema
from mlforge.store import file_tasks
from mlforge.store.file_tasks import FileScanTask, PartialLocation
from mlforge.store.resident import NUMBER

_NUMBER = Column(NUMBER, "UInt32")


def numbered_rows(
    tasks: Iterable[FileScanTask],
    places: Mapping[int, PartialLocation],
    columns: Schema,
    time: str,
    since: int,
) -> pl.DataFrame:
    """Columns of the tasks' rows from an instant on, and NUMBER. places: where each partial lies, by its number."""
    plans = numbered_scans(tasks, places, columns)
    since_then = pl.col(time) >= polars_schema.instant(since)
    if not plans:
        return polars_schema.empty((*columns, _NUMBER))
    return pl.concat(pl.collect_all(plan.filter(since_then) for plan in plans))


def numbered_scans(
    tasks: Iterable[FileScanTask], places: Mapping[int, PartialLocation], columns: Schema
) -> list[pl.LazyFrame]:
    """Columns of the rows of each task, and NUMBER, lazily."""
    by_file: dict[str, dict[int | None, int]] = defaultdict(dict)
    for number, place in places.items():
        by_file[place.file][place.number] = number
    return [_scan(task, by_file[task.file], columns) for task in tasks]


def _scan(task: FileScanTask, numbers: Mapping[int | None, int], columns: Schema) -> pl.LazyFrame:
    """The rows of one file. numbers: of its partials, by their numbers within the file, None in one that holds one alone."""
    rows = pl.scan_parquet(task.file, glob=False)
    if task.numbers is not None:
        rows = rows.filter(pl.col(file_tasks.NUMBER).is_in(task.numbers))
    number: pl.Expr = pl.lit(numbers.get(None), dtype=pl.UInt32)
    if task.packed:
        within = pl.col(file_tasks.NUMBER)
        number = within.replace_strict([*numbers], [*numbers.values()], return_dtype=pl.UInt32)
    rows = rows.with_columns(number.alias(NUMBER))
    present = dtypes(task.schema) | {NUMBER: _NUMBER.dtype}
    return polars_schema.select_typed(rows, present, (*columns, _NUMBER))
