"""Training sets for Hugging Face `datasets`. Imported where that library is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from glob import escape
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from mlforge.errors import RetrievalError
from mlforge.training_sets.stored_set import StoredSet


def hf_dataset(
    training_set: StoredSet,
    columns: Sequence[str],
    options: Mapping[str, Any],
    *,
    streaming: bool,
) -> Any:
    """A `datasets.Dataset` of the set's files, or an `IterableDataset` that reads them as it is read."""
    with training_set.readable():
        written = pq.read_schema(training_set.files[0])
    fields = [_plain(written.field(name)) for name in columns]
    features = datasets.Features(
        {name: each for field in fields for name, each in _features(field).items()}
    )
    if not (training_set.rows or streaming):
        return datasets.Dataset.from_dict({name: [] for name in columns}, features=features)
    kind = datasets.IterableDataset if streaming else datasets.Dataset
    files = [escape(str(file)) for file in training_set.files]
    # Its cache knows files by paths and times, which a set that was made anew in another's place may share.
    known_by = {"description": f"training set {training_set.document.rows_hash}", **options}
    return kind.from_parquet(files, columns=list(columns), features=features, **known_by)


def _plain(field: pa.Field) -> pa.Field:
    """The field, with texts that are written down once (enums, categories) as the texts that they are."""
    return field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field


def _features(field: pa.Field) -> Any:
    try:
        return datasets.Features.from_arrow_schema(pa.schema([field]))
    except (ValueError, NotImplementedError, pa.ArrowException) as error:
        raise RetrievalError(
            f"{field.name!r} is {field.type}, of which datasets knows nothing; leave it out with columns=[...]"
        ) from error
