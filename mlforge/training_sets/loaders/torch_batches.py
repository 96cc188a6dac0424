"""Training sets for torch: batches of tensors, shared out among the workers of a DataLoader. Imported where torch is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import IterableDataset, get_worker_info

from mlforge.errors import RetrievalError
from mlforge.training_sets.loaders.columns import check_numbers
from mlforge.training_sets.stored_set import StoredSet

_SIGNED: dict[type[pl.DataType], pa.DataType] = {
    pl.UInt16: pa.int32(),
    pl.UInt32: pa.int64(),
    pl.UInt64: pa.int64(),
}
"""The type that holds the numbers of one which torch does not compute with."""


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
            name: _arrow_type(schema[name], has_null=name in with_nulls) for name in columns
        }

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        number, shares = self._share
        worker = get_worker_info()
        if worker is not None:
            number, shares = number * worker.num_workers + worker.id, shares * worker.num_workers
        for batch in self._training_set.batches(self._rows, [*self._types], (number, shares)):
            yield {name: _tensor(name, batch[name], type_) for name, type_ in self._types.items()}


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


def _arrow_type(dtype: pl.DataType, *, has_null: bool) -> pa.DataType | None:
    """The Arrow type whose values become a tensor; None for the column's own."""
    is_float = isinstance(dtype, (pl.Float32, pl.Float64))
    if isinstance(dtype, (pl.Decimal, pl.Null)) or (has_null and not is_float):
        return pa.float64()
    return _SIGNED.get(type(dtype))


def _tensor(name: str, values: Any, type_: pa.DataType | None) -> torch.Tensor:
    try:
        values = values if type_ is None else values.cast(type_, safe=type_ != pa.float64())
    except pa.ArrowInvalid as error:
        raise RetrievalError(
            f"{name!r} holds numbers that torch has no integers for ({error}); make floats of them"
        ) from error
    return torch.tensor(values.to_numpy(zero_copy_only=False))
