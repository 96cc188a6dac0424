"""A training set that was made: its rows, what it was made from, and whether it is still whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from mlforge.core.arguments import shown
from mlforge.core.lock import FILE, Lock
from mlforge.errors import IntegrityError, RetrievalError
from mlforge.store import Store
from mlforge.training_sets import folder, pins
from mlforge.training_sets.blast import BlastRadius, blast_radius
from mlforge.training_sets.document import DOCUMENT, SetDocument

if TYPE_CHECKING:
    import pyarrow as pa


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

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.document.rows

    @property
    def columns(self) -> list[str]:
        """The names of its columns: the spine's, then the features'."""
        return [column.name for column in (*self.document.spine, *self.document.columns)]

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

    def scan(self) -> pl.LazyFrame:
        """The rows in the spine's order, lazily; collecting raises polars' errors."""
        return pl.scan_parquet(self.files, glob=False, hive_partitioning=False)

    def read(self) -> pl.DataFrame:
        """All rows, in the spine's order; IntegrityError where a file is missing or damaged."""
        try:
            return self.scan().collect()
        except (OSError, pl.exceptions.PolarsError) as error:
            raise self._damaged(error) from error

    def part(self, number: int, columns: Sequence[str]) -> pl.DataFrame:
        """Some columns of one of the files, from 0 on; IntegrityError where it is missing or damaged."""
        try:
            return pl.read_parquet(self.files[number], columns=list(columns))
        except (OSError, pl.exceptions.PolarsError) as error:
            raise self._damaged(error) from error

    def batches(self, rows: int = 65_536) -> Iterator[pa.RecordBatch]:
        """The rows in the spine's order as Arrow record batches of at most so many rows.

        Raises IntegrityError where a file is missing or damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            for file in self.files:
                with pq.ParquetFile(file) as part:
                    yield from part.iter_batches(rows)
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(error) from error

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
        return blast_radius(self, store)

    def release(self, store: Store) -> tuple[str, ...]:
        """Let the store prune the versions that the set was made from; returns the features that had some.

        Without them the set stays readable, and its blast radius cannot be told any more.
        """
        pins.check_store(store, self.document.store)
        return pins.release(store, self.document.id)

    def _damaged(self, error: Exception) -> IntegrityError:
        return IntegrityError(
            f"the training set {self.path} cannot be read ({type(error).__name__}); "
            "verify() says which of its files is not as it was written"
        )


def _fault(file: Path, expected: str) -> str | None:
    try:
        same = folder.hash_of(file) == expected
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if same else "is not as it was written"
