"""A training set that was made: its rows, what it was made from, and whether it is still whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlforge.core.disk import hash_file
from mlforge.core.text import plural
from mlforge.errors import IntegrityError, RetrievalError
from mlforge.store import Store
from mlforge.training_sets import pins
from mlforge.training_sets.blast import BlastRadius, blast_radius
from mlforge.training_sets.document import SetPart
from mlforge.training_sets.loaders.columns import check_column, check_library, named_columns
from mlforge.training_sets.stored_set import StoredSet, check_rows, checked_share

if TYPE_CHECKING:
    from mlforge.training_sets.loaders.torch_batches import TorchBatches


@dataclass(frozen=True)
class TrainingSet(StoredSet):
    """A folder with a training set, and its document."""

    def __repr__(self) -> str:
        """Where it lies, its size and versions; not its document, which is as long as the list of source files."""
        read = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        size = f"{plural(self.rows, 'row')}, {plural(len(self.columns), 'column')}"
        return f"TrainingSet({self.address!r}: {size} of {read})"

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

        check_rows(rows)
        behind = [column.name for column in self.document.columns]
        names = named_columns(self.columns, columns, behind)
        return TorchBatches(self, names, rows, checked_share(share))

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

        names = named_columns(self.columns, columns, self.columns)
        return hf_dataset(self, names, options, streaming=streaming)

    def to_xgboost(
        self,
        label: str | None = None,
        columns: Sequence[str] | None = None,
        rows: int = 65_536,
        **options: Any,
    ) -> Any:
        """An `xgboost.QuantileDMatrix`, filled from batches of so many rows: it is in memory, the set never is.

        label: a column of numbers or booleans; by default the only one of `labels`. Rows without a value of it are left out; the log says how many. columns: of
        numbers, booleans and texts, which are categories; by default all behind the spine's but labels. options: of QuantileDMatrix,
        as `ref=` for a set to validate with.

        Raises MissingExtra without xgboost, RetrievalError for a column of another kind or where no row has a label,
        IntegrityError where files are missing or damaged.
        """
        check_library("xgboost", "xgboost")
        from mlforge.training_sets.loaders.xgboost_matrix import xgboost_matrix

        check_rows(rows)
        label = self._only_label() if label is None else label
        check_column(self.columns, label)
        labels = (label, *self.labels)
        behind = [c.name for c in self.document.columns if c.name not in labels]
        names = named_columns(self.columns, columns, behind)
        if label in names:
            raise RetrievalError(f"{label!r} is the label; leave it out of columns")
        return xgboost_matrix(self, label, names, rows, options)

    def _only_label(self) -> str:
        if len(self.labels) != 1:
            labels = ", ".join(self.labels) or "none"
            raise RetrievalError(
                f"say which column is the label, as in to_xgboost({self.columns[-1]!r}); the set was made with these labels: {labels}"
            )
        return self.labels[0]

    def verify(self) -> list[str]:
        """Faults in the set's files, in words; an empty list if every byte is as it was written. Objects of a bucket are fetched anew."""
        faults = ((part.file, self._fault(part)) for part in self.document.parts)
        return [f"{name} {fault}" for name, fault in faults if fault is not None]

    def _fault(self, part: SetPart) -> str | None:
        if self.remote is not None:
            (self.path / part.file).unlink(missing_ok=True)
        try:
            same = hash_file(self._file(part)) == part.hash
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        except IntegrityError:
            return "is missing"
        return None if same else "is not as it was written"

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
