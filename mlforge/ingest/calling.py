"""A call of a feature's function with rows: its result collected, within a bound, with the files that it read told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from mlforge.features.file_reads import scans_files
from mlforge.features.purity import hearing_reads
from mlforge.frames.polars_schema import in_memory, row_by_row

_FEW_ROWS = 10_000
"""Of more rows hardly a piece is a lone one, and a plan is not run twice."""


class ReadsFilesError(Exception):
    """The way in which a function was seen to read files by itself, as the end of a sentence."""


class FunctionFaultError(Exception):
    """The fault of a function in a process of its own, as the end of a sentence."""


class TooLargeError(Exception):
    """A function's result of more bytes than a file may take."""

    @classmethod
    def of(cls, size: int, most: int) -> TooLargeError:
        """The error with both sizes in words."""
        return cls(f"makes {size:,} bytes or more, above the {most:,} allowed by max_file_memory")


def collected(
    function: Callable[..., Any],
    frame: pl.DataFrame | pl.LazyFrame,
    tables: Mapping[str, pl.DataFrame],
    most: int | None,
) -> Any:
    """The function's result for a frame and its tables, collected if it is a plan; a LazyFrame gets lazy tables.

    most: bytes that a plan's rows may take; a proven function's plan, made of a LazyFrame, is not bounded.
    Raises ReadsFilesError for files that the function reads only when it gets rows, TooLargeError, and all that
    the function raises.
    """
    is_proven = isinstance(frame, pl.LazyFrame)
    further = {name: table.lazy() for name, table in tables.items()} if is_proven else tables
    with hearing_reads() as reads:
        returned = function(frame, **further)
    if isinstance(returned, pl.LazyFrame):
        if isinstance(frame, pl.LazyFrame):
            returned = in_memory(returned)
        else:
            if scans_files(returned):
                reads.append("its plan has a scan of files")
            returned = _bounded(returned, frame.height, most)
    if reads:
        raise ReadsFilesError(reads[0])
    if isinstance(returned, pl.DataFrame):
        _check_size([returned], most)
    return returned


def collected_each(
    function: Callable[..., Any], frames: Sequence[pl.DataFrame], most: int | None
) -> list[pl.DataFrame]:
    """The results of a proven function for several frames, each as `collected` gives it for the frame's plan.

    most: bytes that all of them may take together. Raises as `collected` does, if any of them would.
    """
    with hearing_reads() as reads:
        plans = [function(among_several(frame).lazy()) for frame in frames]
    returned = pl.collect_all(plans, engine="in-memory")
    returned = [own.head(each.height) for own, each in zip(returned, frames, strict=True)]
    if reads:
        raise ReadsFilesError(reads[0])
    _check_size(returned, most)
    return returned


def among_several(frame: pl.DataFrame) -> pl.DataFrame:
    """A frame whose first rows are those of another, as a proven function gets them: a lone row twice.

    polars divides a lone row by a number, and multiplies several by its reciprocal: last bits of a row's values would tell of how many
    rows its file is. For the same reason a plan runs in memory, as others hand it rows in as many pieces as there are cores.
    """
    return row_by_row(pl.concat([frame, frame])) if frame.height == 1 else frame


def _bounded(plan: pl.LazyFrame, height: int, most: int | None) -> pl.DataFrame:
    """The rows of a plan over so many, gathered in batches, so that one that makes far too many is stopped on its way.

    Few rows are in pieces by the number of cores then, as told in `among_several`: if all is well, their plan runs in memory, too.
    """
    if most is None:
        return in_memory(plan)
    batches, size = [pl.DataFrame(schema=plan.collect_schema())], 0
    for batch in plan.collect_batches(maintain_order=True):
        batches.append(batch)
        size += _own_size(batch, most)
        if size > most:
            raise TooLargeError.of(size, most)
    return in_memory(plan) if height <= _FEW_ROWS else pl.concat(batches)


def _check_size(frames: Sequence[pl.DataFrame], most: int | None) -> None:
    """Raise TooLargeError for frames of more bytes than they may take together."""
    if most is None:
        return
    size = sum(_own_size(frame, most) for frame in frames)
    if size > most:
        raise TooLargeError.of(size, most)


def _own_size(frame: pl.DataFrame, most: int) -> int:
    """The bytes of a frame, once each row has its own values, long ones too: a constant is held once for all rows.

    Long values are only looked at where they could take more than `most` bytes.
    """
    size = size_of(frame)
    if size > most or frame.height * size <= most:
        return size
    long = [_long(pl.nth(place), dtype) for place, dtype in enumerate(frame.dtypes)]
    lengths = [expr.alias(str(place)) for place, expr in enumerate(long) if expr is not None]
    return max(size, sum(frame.select(lengths).row(0))) if lengths else size


def _long(values: pl.Expr, dtype: Any) -> pl.Expr | None:
    """The bytes of all values of a column of texts or lists, a list's items of one width; None for other columns."""
    if isinstance(dtype, pl.String):
        return values.str.len_bytes().cast(pl.Int64).sum()
    if isinstance(dtype, pl.Binary):
        return values.bin.size().cast(pl.Int64).sum()
    if isinstance(dtype, pl.List):
        return values.list.len().cast(pl.Int64).sum() * _width(dtype.inner)
    if isinstance(dtype, pl.Array):
        return values.len().cast(pl.Int64) * dtype.size * _width(dtype.inner)
    if isinstance(dtype, pl.Struct):
        fields = [_long(values.struct.field(field.name), field.dtype) for field in dtype.fields]
        present = [field for field in fields if field is not None]
        return pl.sum_horizontal(present) if present else None
    return None


_WIDTHS = {pl.Boolean: 0, pl.Null: 0, pl.Int8: 1, pl.UInt8: 1, pl.Int16: 2, pl.UInt16: 2}
_WIDTHS |= dict.fromkeys((pl.Int32, pl.UInt32, pl.Float32, pl.Date), 4)


def _width(dtype: Any) -> int:
    """The bytes of a value, without what it refers to."""
    return _WIDTHS.get(dtype.base_type(), 8)


def size_of(frame: pl.DataFrame) -> int:
    """The bytes of a frame, once each row has its own: polars counts pieces that share memory once."""
    row = sum(_width(dtype) for dtype in frame.dtypes)
    return max(int(frame.estimated_size()), frame.height * row)
