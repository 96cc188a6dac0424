"""The rows of a training set: a spine cut by time, joined slice by slice, and put back into its own order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from mlforge.core.disk import hash_file, system_number
from mlforge.core.manifest import MODULUS
from mlforge.core.schema import Schema
from mlforge.errors import RetrievalError, Unavailable
from mlforge.frames import polars_schema
from mlforge.frames.digest import digest
from mlforge.retrieval.spine import spine_instants
from mlforge.training_sets.document import SetPart
from mlforge.training_sets.joining import HEAP, ROW, Joining
from mlforge.training_sets.set_files import SetFiles
from mlforge.training_sets.slices import TimeHistogram
from mlforge.training_sets.spill import Spill
from mlforge.training_sets.spines import Spine

_ROW_GROUP = 100_000


@dataclass(frozen=True)
class Written:
    """The parts of a set, the columns of its spine and those behind them, and the hash of the spine's rows."""

    parts: tuple[SetPart, ...]
    spine: Schema
    columns: Schema
    spine_hash: str


def written(spine: Spine, joining: Joining, files: SetFiles, part_rows: int) -> Written:
    """Write the parts of a set; memory follows `part_rows`."""
    scratch = files.scratch
    parts = Parts(scratch, files.place)
    if spine.height <= part_rows:
        [frame] = [*spine.batches(part_rows)] or [spine.head]
        parts.write(frame, joining.values(frame.select(joining.needed)))
        return parts.outcome()
    values = _values_by_part(spine, joining, scratch, part_rows)
    for frame, columns in zip(spine.batches(part_rows), values, strict=True):
        parts.write(frame, columns)
    return parts.outcome()


@contextmanager
def held_by_parquet() -> Iterator[None]:
    """Turn the error of a spine's column that parquet cannot hold into RetrievalError; Unavailable where the system takes no file."""
    try:
        yield
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        if system_number(error) is not None:
            raise Unavailable(
                f"the training set's rows cannot be put into files ({first}); see that the disk has room and may be written"
            ) from error
        raise RetrievalError(
            f"the spine has a column that parquet cannot hold ({first}); cast it or leave it out"
        ) from error


def _values_by_part(
    spine: Spine, joining: Joining, scratch: Path, part_rows: int
) -> Iterator[pl.DataFrame]:
    """The features' columns in the spine's order, a part's rows at a time."""
    answers = Spill(scratch / "answers")
    for rows in _slices(spine, joining, scratch, part_rows):
        values = joining.values(rows.drop(ROW))
        heap = (pl.col(ROW) // part_rows).alias(HEAP)
        answers.put_by(values.hstack([rows[ROW]]).with_columns(heap), HEAP)
    for number in range(-(-spine.height // part_rows)):
        rows_of_part = answers.take(number)
        assert rows_of_part is not None, f"no row of part {number} was joined"
        yield rows_of_part.sort(ROW).drop(ROW)


def _slices(
    spine: Spine, joining: Joining, scratch: Path, part_rows: int
) -> Iterator[pl.DataFrame]:
    """The columns that the join reads, with row numbers, in slices of near instants."""
    time = joining.time
    if time is None:
        yield from _numbered(spine, joining, part_rows)
        return
    histogram = TimeHistogram()
    for times in spine.batches(part_rows, [time]):
        histogram.add(spine_instants(times[time]))
    slices = histogram.slices(part_rows)
    heaps = Spill(scratch / "slices")
    for rows in _numbered(spine, joining, part_rows):
        numbers = slices.numbers(spine_instants(rows[time]))
        heaps.put_by(rows.with_columns(numbers.alias(HEAP)), HEAP)
    for number in range(slices.count):
        heap = heaps.take(number)
        if heap is not None:
            yield heap


def _numbered(spine: Spine, joining: Joining, part_rows: int) -> Iterator[pl.DataFrame]:
    begun = 0
    if not joining.needed:  # rows without a column would be none
        for begun in range(0, spine.height, part_rows):
            numbers = range(begun, min(begun + part_rows, spine.height))
            yield pl.DataFrame({ROW: pl.Series(numbers, dtype=pl.UInt64)})
        return
    for rows in spine.batches(part_rows, joining.needed):
        yield rows.with_row_index(ROW, begun).with_columns(pl.col(ROW).cast(pl.UInt64))
        begun += rows.height


@dataclass
class Parts:
    """The parts that were written so far, in order.

    folder: where each is written. place: takes it from there. first: the number of the first one, from 0 on. rows: how many rows there are up to here, those of earlier parts too.
    """

    folder: Path
    place: Callable[[Path], None]
    first: int = 0
    written: list[SetPart] = field(default_factory=list)
    rows: int = 0
    digest: int = 0
    spine: Schema = ()
    columns: Schema = ()

    def write(self, spine: pl.DataFrame, values: pl.DataFrame) -> None:
        """Write the next part: rows of the spine, and the values behind them."""
        path = self.folder / part_name(self.first + len(self.written))
        numbers = pl.int_range(self.rows, self.rows + spine.height, dtype=pl.Int64, eager=True)
        with held_by_parquet():
            self.digest += digest(spine.with_columns(numbers.alias(ROW)))
            spine.hstack(values).write_parquet(
                path, compression="zstd", row_group_size=_ROW_GROUP, statistics=True
            )
        self.spine = polars_schema.schema_of(spine)
        self.columns = polars_schema.schema_of(values)
        self.rows += spine.height
        self.written.append(SetPart(path.name, spine.height, hash_file(path)))
        self.place(path)

    def outcome(self) -> Written:
        """The parts, their columns, and the hash of the spine's rows in their order."""
        return Written(tuple(self.written), self.spine, self.columns, hash_text(self.digest))


def part_name(number: int) -> str:
    """The file of a part, from 0 on."""
    return f"part-{number:05d}.parquet"


def hash_text(digest: int) -> str:
    """The hash of a spine as text, from the sum of its rows' digests."""
    return f"{digest % MODULUS:032x}"
