"""The rows of a training set, as they lie in its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import polars as pl

from mlforge.core.arguments import shown
from mlforge.core.lock import FILE, Lock
from mlforge.core.paths import path_of
from mlforge.errors import IntegrityError, RetrievalError
from mlforge.sources.damage import DAMAGE
from mlforge.store import Store
from mlforge.store.addresses import folder_name, is_bucket
from mlforge.store.bucket_client import Objects, each, objects_at
from mlforge.training_sets.bucket import fetched
from mlforge.training_sets.document import DOCUMENT, SetDocument, SetPart
from mlforge.training_sets.loaders.columns import named_columns
from mlforge.training_sets.places import place_at

if TYPE_CHECKING:
    import pyarrow as pa

_KEPT = "~/.cache/mlforge/training_sets"


@dataclass(frozen=True)
class StoredSet:
    """A training set and its document.

    path: its folder; for a set in a bucket one of this machine, to which files are fetched when they are read, and which may be
    deleted. remote: the set's place in a bucket, None for a folder.
    """

    path: Path
    document: SetDocument
    remote: Objects | None = None

    @classmethod
    def open(cls, path: str | Path, store: Store | None = None) -> Self:
        """The training set in a folder, or at an address in a bucket, which is reached as `store` is where that is in the same cloud.

        Raises RetrievalError where there is none, IntegrityError for a damaged document.
        """
        if not isinstance(path, (str, Path)):
            raise RetrievalError(
                f"a training set is opened by its folder's path, not {shown(path)}"
            )
        place = place_at(path, store)
        text = place.document()
        if text is None:
            raise RetrievalError(
                f"no training set in {place.address}; name a folder that training_set or 'mlforge train' made"
            )
        return cls.at(
            place.address, SetDocument.from_text(text, f"{place.address}/{DOCUMENT}"), store
        )

    @classmethod
    def at(cls, address: str, document: SetDocument, store: Store | None = None) -> Self:
        """The set of a document that lies in a folder, or at an address in a bucket; nothing is read."""
        if not is_bucket(address):
            return cls(Path(address), document)
        kept = path_of(_KEPT) / f"{folder_name(address)}-{document.id}"
        return cls(kept, document, objects_at(address, store))

    @property
    def address(self) -> str:
        """The path of its folder, or its address in a bucket."""
        return str(self.path) if self.remote is None else self.remote.url

    def named_by(self, store: Store) -> Self:
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
        if self.remote is None:
            return Lock.load(self.path / FILE)
        return Lock.load(fetched(self.remote, f"{self.document.id}/{FILE}", self.path))

    @property
    def files(self) -> list[Path]:
        """The parquet files, in the order of the rows."""
        return each(self._file, self.document.parts)

    def _file(self, part: SetPart) -> Path:
        """The file of a part on this machine."""
        if self.remote is None:
            return self.path / part.file
        return fetched(self.remote, part.file, self.path)

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
            return pl.read_parquet(self._file(self.document.parts[number]), columns=list(columns))

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

        check_rows(rows)
        seen, (first, step) = 0, checked_share(share)
        names = None if columns is None else named_columns(self.columns, columns, ())
        for file in self.files:
            with self.readable(), pq.ParquetFile(file) as part:
                groups = range((first - seen) % step, part.num_row_groups, step)
                seen += part.num_row_groups
                for batch in part.iter_batches(rows, [*groups], names):
                    yield batch if names is None else batch.select(names)

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Turn errors of reading the files, while the block runs, into an IntegrityError."""
        import pyarrow as pa

        try:
            yield
        except (*DAMAGE, pa.ArrowException) as error:
            raise IntegrityError(
                f"the training set {self.address} cannot be read ({type(error).__name__}); "
                "verify() says which of its files is not as it was written"
            ) from error


def check_rows(rows: object) -> None:
    """Raise RetrievalError for what is no number of rows."""
    if type(rows) is not int or rows < 1:
        raise RetrievalError(f"rows is {shown(rows)}; give a whole number from 1 on")


def checked_share(share: object) -> tuple[int, int]:
    """The number of a share and how many there are; RetrievalError for what is neither."""
    match share:
        case (number, of) if type(number) is type(of) is int and 0 <= number < of:
            return number, of
    raise RetrievalError(
        f"share is {shown(share)}; give (i, n) for the i-th of n shares, from (0, n) to (n - 1, n)"
    )
