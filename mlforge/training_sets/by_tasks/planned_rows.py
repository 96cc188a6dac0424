"""Rows of a planned spine, read from its files: the slices that are joined, and the rows of parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from mlforge.core.values import TimeRange
from mlforge.frames import polars_schema
from mlforge.frames.normalize import as_utc
from mlforge.retrieval.spine import spine_instants
from mlforge.training_sets.by_tasks.set_plan import SetPlan, SpineFile
from mlforge.training_sets.joining import HEAP, ROW
from mlforge.training_sets.spines import Readable


def slices_of(plan: SetPlan, first: int, end: int) -> Iterator[pl.DataFrame]:
    """The slices from `first` until before `end`, each with the columns that the join reads and the rows' numbers."""
    if plan.slices is None:
        for number in range(first, end):
            yield _numbered(plan, number * plan.part_rows)
        return
    heaps: dict[int, list[pl.DataFrame]] = {}
    times, nulls = plan.slices.bounds(first, end)
    for file in plan.files:
        if not file.may_have(times, nulls):
            continue
        slices = plan.slices.from_row(file.seen)
        for rows in _within(plan, file, times, nulls=nulls):
            numbers = slices.numbers(spine_instants(rows[str(plan.time)])).alias(HEAP)
            own = rows.hstack([numbers]).filter(pl.col(HEAP).is_between(first, end, closed="left"))
            for (heap,), part in own.partition_by(HEAP, as_dict=True, include_key=False).items():
                heaps.setdefault(int(str(heap)), []).append(part)
    for number in sorted(heaps):
        yield pl.concat(heaps.pop(number))


def rows_of(
    plan: SetPlan, first: int, count: int, columns: list[str] | None = None
) -> pl.DataFrame:
    """So many rows of the spine from a number on, or fewer at its end: some columns or all."""
    end = first + count
    scans = []
    for file in plan.files:
        begin = max(first, file.first)
        length = min(end, file.first + file.rows) - begin
        if length > 0:
            scans.append(_scan(file).slice(begin - file.first, length))
    rows = pl.concat(scans)
    with _readable(plan):
        return (rows if columns is None else rows.select(columns)).collect()


def _numbered(plan: SetPlan, begin: int) -> pl.DataFrame:
    """A part's rows with their numbers, where no feature has a time."""
    end = min(begin + plan.part_rows, plan.rows)
    numbers = pl.Series(ROW, range(begin, end), dtype=pl.UInt64)
    if not plan.needed:  # rows without a column would be none
        return numbers.to_frame()
    return rows_of(plan, begin, plan.part_rows, list(plan.needed)).hstack([numbers])


def _within(
    plan: SetPlan, file: SpineFile, times: TimeRange | None, *, nulls: bool
) -> Iterator[pl.DataFrame]:
    """The rows of a file within a range of time, and those without one, in order, some at a time."""
    name, dtype = str(plan.time), plan.head.schema[str(plan.time)]
    scan = _scan(file, numbered=True).select(*plan.needed, pl.col(ROW).cast(pl.UInt64))
    is_own = pl.col(name).is_null() if nulls else pl.lit(value=False)
    if times is not None:
        start, end = polars_schema.instant(times.start), polars_schema.instant(times.end)
        is_own |= as_utc(pl.col(name), dtype).is_between(start, end)
    with _readable(plan):
        yield from scan.filter(is_own).collect_batches(
            chunk_size=plan.part_rows, maintain_order=True, engine="streaming"
        )


def _scan(file: SpineFile, *, numbered: bool = False) -> pl.LazyFrame:
    name = ROW if numbered else None
    return pl.scan_parquet(
        file.path,
        glob=False,
        hive_partitioning=False,
        row_index_name=name,
        row_index_offset=file.first,
    )


def _readable(plan: SetPlan) -> Readable:
    return Readable([Path(file.path) for file in plan.files])
