"""A training set that was made: its rows, what it was made from, and whether it is still whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from mlforge.core.arguments import shown
from mlforge.core.lock import FILE, Lock
from mlforge.errors import IntegrityError, RetrievalError
from mlforge.sources.damage import DAMAGE
from mlforge.store import Store
from mlforge.training_sets import folder, pins
from mlforge.training_sets.blast import BlastRadius, blast_radius
from mlforge.training_sets.document import DOCUMENT, SetDocument
from mlforge.training_sets.loaders.columns import check_column, check_library, named_columns

if TYPE_CHECKING:
    import pyarrow as pa

    from mlforge.training_sets.loaders.torch_batches import TorchBatches


@dataclass(frozen=True)
class TrainingSet:
    """A folder with a training set, and its document."""

    path: Path
    document: SetDocument

    @classmethod
    def open(cls, path: str | Path) -> TrainingSet:
        """The training set in a folder; RetrievalError where there is none, IntegrityError for a damaged document."""
        if not isinstance(path, (str, Path)):
            raise RetrievalError(
                f"a training set is opened by its folder's path, not {shown(path)}"
            )
        target = Path(path).absolute()
        try:
            text = (target / DOCUMENT).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RetrievalError(
                f"no training set in {target}; name a folder that training_set or 'mlforge train' made"
            ) from error
        return cls(target, SetDocument.from_text(text, str(target / DOCUMENT)))

    def named_by(self, store: Store) -> TrainingSet:
        """The same set with the present names of the store's features."""
        return replace(self, document=self.document.renamed(store.renames().names))

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.document.rows

    @property
    def columns(self) -> list[str]:
        """The names of its columns: the spine's, then the features'."""
        return [column.name for column in (*self.document.spine, *self.document.columns)]

    @property
    def labels(self) -> list[str]:
        """The names of its labels of events ahead, which are its last columns."""
        return [label.name for label in self.document.labels]

    @property
    def versions(self) -> Mapping[str, str]:
        """The version of each feature, by the prefix of its columns."""
        return {feature.prefix: str(feature.version) for feature in self.document.features}

    @property
    def lock(self) -> Lock:
        """The meaning of the columns as of when the set was made; RetrievalError where its file is damaged, or a release before made the set."""
        return Lock.load(self.path / FILE)

    @property
    def files(self) -> list[Path]:
        """The parquet files, in the order of the rows."""
        return [self.path / part.file for part in self.document.parts]

    @cached_property
    def schema(self) -> Mapping[str, pl.DataType]:
        """The dtype of each column, in order, as the files have it; IntegrityError where the first is missing or damaged."""
        return self.collected(self.scan().head(0)).schema

    def scan(self) -> pl.LazyFrame:
        """The rows in the spine's order, lazily; collecting raises polars' errors."""
        return pl.scan_parquet(self.files, glob=False, hive_partitioning=False)

    def read(self) -> pl.DataFrame:
        """All rows, in the spine's order; IntegrityError where a file is missing or damaged."""
        return self.collected(self.scan())

    def collected(self, plan: pl.LazyFrame) -> pl.DataFrame:
        """The outcome of a plan over `scan()`; IntegrityError where a file is missing or damaged."""
        with self.readable():
            return plan.collect()

    def part(self, number: int, columns: Sequence[str]) -> pl.DataFrame:
        """Some columns of one of the files, from 0 on; IntegrityError where it is missing or damaged."""
        with self.readable():
            return pl.read_parquet(self.files[number], columns=list(columns))

    def batches(
        self,
        rows: int = 65_536,
        columns: Sequence[str] | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[pa.RecordBatch]:
        """The rows in the spine's order as Arrow record batches of at most so many rows.

        columns: these alone, in this order. share: `(i, n)` gives the i-th of n shares, from 0 on, which have each row once
        together: every n-th of the row groups, which are the files unless `part_rows` was above 100,000.
        Raises RetrievalError for what is no number of rows, no share or no column, IntegrityError where a file is missing or damaged.
        """
        import pyarrow.parquet as pq

        _check_rows(rows)
        seen, (first, step) = 0, _checked_share(share)
        names = None if columns is None else named_columns(self, columns, ())
        for file in self.files:
            with self.readable(), pq.ParquetFile(file) as part:
                groups = range((first - seen) % step, part.num_row_groups, step)
                seen += part.num_row_groups
                for batch in part.iter_batches(rows, [*groups], names):
                    yield batch if names is None else batch.select(names)

    def to_torch(
        self,
        columns: Sequence[str] | None = None,
        rows: int = 1_024,
        share: tuple[int, int] = (0, 1),
    ) -> TorchBatches:
        """A torch `IterableDataset` of batches, dicts from a column's name to a tensor of at most so many values.

        columns: of numbers and booleans; by default all behind the spine's. Null is NaN, for which integers and booleans of a
        column that has a null are floats. Give it to `DataLoader(..., batch_size=None, num_workers=n)`: however many workers
        there are, each row comes once. share: as in `batches`, `(rank, world_size)` where several processes train together.

        Raises MissingExtra without torch, RetrievalError for a column of another kind, IntegrityError where files are
        missing or damaged.
        """
        check_library("torch", "torch")
        from mlforge.training_sets.loaders.torch_batches import TorchBatches

        _check_rows(rows)
        behind = [column.name for column in self.document.columns]
        names = named_columns(self, columns, behind)
        return TorchBatches(self, names, rows, _checked_share(share))

    def to_hf(
        self, columns: Sequence[str] | None = None, *, streaming: bool = False, **options: Any
    ) -> Any:
        """A `datasets.Dataset`, which that library copies into its cache and maps into memory; all columns by default.

        streaming: an `IterableDataset` instead, which copies nothing and reads the set's files as it is read. options: of
        the library's `from_parquet`, as `cache_dir=`. Raises MissingExtra without datasets, RetrievalError for a column that the set
        does not have or whose type the library does not know.
        """
        check_library("datasets", "hf")
        from mlforge.training_sets.loaders.hf_dataset import hf_dataset

        names = named_columns(self, columns, self.columns)
        return hf_dataset(self, names, options, streaming=streaming)

    def to_xgboost(
        self,
        label: str,
        columns: Sequence[str] | None = None,
        rows: int = 65_536,
        **options: Any,
    ) -> Any:
        """An `xgboost.QuantileDMatrix`, filled from batches of so many rows: it is in memory, the set never is.

        label: a column of numbers or booleans. Rows without a value of it are left out; the log says how many. columns: of
        numbers, booleans and texts, which are categories; by default all behind the spine's but labels. options: of QuantileDMatrix,
        as `ref=` for a set to validate with.

        Raises MissingExtra without xgboost, RetrievalError for a column of another kind or where no row has a label,
        IntegrityError where files are missing or damaged.
        """
        check_library("xgboost", "xgboost")
        from mlforge.training_sets.loaders.xgboost_matrix import xgboost_matrix

        _check_rows(rows)
        check_column(self, label)
        labels = (label, *self.labels)
        behind = [c.name for c in self.document.columns if c.name not in labels]
        names = named_columns(self, columns, behind)
        if label in names:
            raise RetrievalError(f"{label!r} is the label; leave it out of columns")
        return xgboost_matrix(self, label, names, rows, options)

    def verify(self) -> list[str]:
        """Faults in the set's files, in words; an empty list if every byte is as it was written."""
        return [
            f"{part.file} {fault}"
            for part, file in zip(self.document.parts, self.files, strict=True)
            if (fault := _fault(file, part.hash)) is not None
        ]

    def blast_radius(self, store: Store) -> BlastRadius:
        """The rows that would have other values if the set were made again today, and because of which files.

        store: the one that it was made from. "Today" are the versions that it serves now: a drop counts once it is
        published. Only rows that a changed event can reach are evaluated, so that the cost follows the change. Floats
        are the same if they differ by less than 1e-9 of their size; a feature that was asked for by its version is the
        same for ever, and a service is the one that the set was made of.

        Raises RetrievalError for another store, StoreError for a feature that is gone or, once the set is released, its
        version, IntegrityError where files are missing or damaged.
        """
        pins.check_store(store, self.document.store)
        return blast_radius(self.named_by(store), store)

    def release(self, store: Store) -> tuple[str, ...]:
        """Let the store prune the versions that the set was made from; returns the features that had some.

        Without them the set stays readable, and its blast radius cannot be told any more.
        """
        pins.check_store(store, self.document.store)
        return pins.release(store, self.document.id)

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Turn errors of reading the files, while the block runs, into an IntegrityError."""
        import pyarrow as pa

        try:
            yield
        except (*DAMAGE, pa.ArrowException) as error:
            raise IntegrityError(
                f"the training set {self.path} cannot be read ({type(error).__name__}); "
                "verify() says which of its files is not as it was written"
            ) from error


def _check_rows(rows: object) -> None:
    if type(rows) is not int or rows < 1:
        raise RetrievalError(f"rows is {shown(rows)}; give a whole number from 1 on")


def _checked_share(share: object) -> tuple[int, int]:
    match share:
        case (number, of) if type(number) is type(of) is int and 0 <= number < of:
            return number, of
    raise RetrievalError(
        f"share is {shown(share)}; give (i, n) for the i-th of n shares, from (0, n) to (n - 1, n)"
    )


def _fault(file: Path, expected: str) -> str | None:
    try:
        same = folder.hash_of(file) == expected
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if same else "is not as it was written"
