"""Training sets for torch: batches of tensors, shared out among the workers of a DataLoader. Imported where torch is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow.parquet as pq
import torch
from torch.utils.data import IterableDataset, get_worker_info

from mlforge.training_sets.loaders.arrow_types import converted, tensor_type
from mlforge.training_sets.loaders.columns import check_numbers
from mlforge.training_sets.stored_set import StoredSet


class TorchBatches(IterableDataset):  # type: ignore[misc]
    """Batches of a training set, dicts from the name of a column to a tensor of at most so many values.

    Each worker of a DataLoader reads row groups of its own, so that each row of the share comes once. Null is NaN, for which a
    column that has a null anywhere in the set is of floats.
    """

    def __init__(
        self, training_set: StoredSet, columns: Sequence[str], rows: int, share: tuple[int, int]
    ) -> None:
        schema = training_set.schema
        check_numbers(schema, columns, "torch")
        self._training_set, self._rows, self._share = training_set, rows, share
        with_nulls = _with_nulls(training_set)
        self._types = {
            name: tensor_type(schema[name], has_null=name in with_nulls) for name in columns
        }

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        number, shares = self._share
        worker = get_worker_info()
        if worker is not None:
            number, shares = number * worker.num_workers + worker.id, shares * worker.num_workers
        for batch in self._training_set.batches(self._rows, [*self._types], (number, shares)):
            yield {
                name: torch.tensor(
                    converted(name, batch[name], type_).to_numpy(zero_copy_only=False)
                )
                for name, type_ in self._types.items()
            }


def _with_nulls(training_set: StoredSet) -> set[str]:
    """The columns that have a null in some row, as far as the files' own figures say."""
    names = set()
    for file in training_set.files:
        with training_set.readable():
            written = pq.read_metadata(file)
        for group in range(written.num_row_groups):
            for number in range(written.num_columns):
                column = written.row_group(group).column(number)
                figures = column.statistics
                if figures is None or not figures.has_null_count or figures.null_count:
                    names.add(column.path_in_schema)
    return names
