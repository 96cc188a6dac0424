"""Whose fault it is that rows of a training set cannot be written."""

from __future__ import annotations

import pytest
from polars.exceptions import ComputeError

from mlforge.errors import MlforgeError, RetrievalError, Unavailable
from mlforge.training_sets.writing import held_by_parquet


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (ComputeError("No space left on device (os error 28)"), Unavailable, "No space left"),
        (ComputeError("cannot write 'Object' datatype"), RetrievalError, "cast it or leave it out"),
        (TypeError("no such dtype"), RetrievalError, "cast it or leave it out"),
    ],
)
def test_a_full_disk_is_no_fault_of_a_column(
    error: Exception, kind: type[MlforgeError], told: str
) -> None:
    with pytest.raises(kind, match=told) as raised, held_by_parquet():
        raise error
    assert type(raised.value) is kind
