"""Training sets for xgboost: a quantile matrix, filled a batch at a time. Imported where that library is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import xgboost

from mlforge.core.logs import get_logger
from mlforge.errors import RetrievalError
from mlforge.frames.polars_schema import dtype_text
from mlforge.training_sets.loaders.columns import TEXTS, is_number, misfit
from mlforge.training_sets.stored_set import StoredSet

log = get_logger("mlforge.training")


def xgboost_matrix(
    training_set: StoredSet,
    label: str,
    columns: Sequence[str],
    rows: int,
    options: Mapping[str, Any],
) -> Any:
    """An `xgboost.QuantileDMatrix` of the rows that have a label, texts as categories; how many have none is logged."""
    if not is_number(training_set.schema[label]):
        raise RetrievalError(
            f"the label {label!r} is {dtype_text(training_set.schema[label])}, and xgboost learns numbers and booleans; make a number "
            "of it in the feature or the spine"
        )
    for name in columns:
        if not (
            is_number(training_set.schema[name]) or isinstance(training_set.schema[name], TEXTS)
        ):
            raise misfit(name, training_set.schema[name], "xgboost", "numbers, booleans and texts")
    unlabelled = _unlabelled(training_set, label)
    if unlabelled == training_set.rows:
        why = (
            "; no row's horizon is over yet"
            if training_set.rows and label in training_set.labels
            else ""
        )
        raise RetrievalError(
            f"none of the {training_set.rows} rows of {training_set.address} has a value of {label!r} to learn{why}"
        )
    if unlabelled:
        log.info(
            "rows without a label are left out", label=label, rows=unlabelled, of=training_set.rows
        )
    types = {name: _Column.of(training_set, name) for name in columns}
    batches = _Batches(_Rows(training_set, label, types, rows))
    is_categorical = any(column.categories is not None for column in types.values())
    try:
        return xgboost.QuantileDMatrix(batches, **{"enable_categorical": is_categorical, **options})
    except xgboost.core.XGBoostError as error:
        raise RetrievalError(
            f"xgboost does not take the rows of {training_set.address}: {_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    """The sentence of an error of xgboost, without where in its code it arose and how it came there."""
    return str(error).split("Stack trace:")[0].rpartition("Check failed: ")[2].strip()


def _unlabelled(training_set: StoredSet, label: str) -> int:
    """How many rows have null or NaN for a label."""
    column = pl.col(label)
    is_missing = column.is_null()
    if training_set.schema[label].is_float():
        is_missing |= column.is_nan().fill_null(value=False)
    return int(training_set.collected(training_set.scan().select(is_missing.sum())).item())


@dataclass(frozen=True)
class _Column:
    """A column as xgboost takes it: its categories where it has texts, else the Arrow type of its numbers.

    A column of texts that are all null has no category, and is of floats.
    """

    type: pa.DataType | None
    categories: pa.Array | None = None

    @classmethod
    def of(cls, training_set: StoredSet, name: str) -> _Column:
        """The column, with the categories of the whole set: a code means the same in each batch."""
        dtype = training_set.schema[name]
        if isinstance(dtype, TEXTS):
            texts = pl.col(name).cast(pl.String).drop_nulls().unique().sort()
            frame = training_set.collected(training_set.scan().select(texts))
            if frame.height:
                return cls(None, frame.to_series().to_arrow().cast(pa.string()))
        needs_float = isinstance(dtype, (pl.Decimal, pl.Null, *TEXTS))
        return cls(pa.float64() if needs_float else None)

    def taken(self, values: Any) -> Any:
        """Some values of it."""
        if self.categories is not None:
            texts = values.cast(pa.string())
            codes = pc.index_in(texts, self.categories)
            return pa.DictionaryArray.from_arrays(codes, self.categories)
        return values if self.type is None else values.cast(self.type, safe=False)


@dataclass(frozen=True)
class _Rows:
    """The rows of a set that have a label, in batches, as often as they are asked for."""

    training_set: StoredSet
    label: str
    columns: Mapping[str, _Column]
    rows: int

    def __iter__(self) -> Iterator[tuple[pa.Table, Any]]:
        names = [*self.columns, self.label]
        for batch in self.training_set.batches(self.rows, names):
            labels = batch[self.label].cast(pa.float64(), safe=False)
            known = batch.filter(pc.fill_null(pc.invert(pc.is_nan(labels)), fill_value=False))
            if known.num_rows:
                taken = {name: each.taken(known[name]) for name, each in self.columns.items()}
                learnt = known[self.label].cast(pa.float64(), safe=False)
                yield pa.table(taken), learnt.to_numpy(zero_copy_only=False)


class _Batches(xgboost.DataIter):  # type: ignore[misc]
    """Rows as xgboost goes through them, several times."""

    def __init__(self, rows: _Rows) -> None:
        super().__init__()
        self._rows, self._left = rows, iter(rows)

    def next(self, input_data: Callable[..., Any]) -> bool:
        """Hand over the next batch; whether there was one."""
        batch = next(self._left, None)
        if batch is None:
            return False
        table, labels = batch
        input_data(data=table, label=labels)
        return True

    def reset(self) -> None:
        """Begin anew."""
        self._left = iter(self._rows)
