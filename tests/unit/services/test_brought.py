"""Values that callers bring: those of a spine are those of an online request."""

from __future__ import annotations

import polars as pl
import pytest

from mlforge import Service
from mlforge.services.brought import request_columns, request_rows

SERVICES = {dtype: Service("s", ["f"], request={"x": dtype}) for dtype in (pl.Float32, pl.Float64)}


@pytest.mark.parametrize("dtype", SERVICES)
@pytest.mark.parametrize("own", [pl.Int64, pl.UInt64])
def test_whole_numbers_are_the_floats_in_training_that_they_are_online(dtype, own):
    between = 2**60 + 2**36  # amid two floats of 32 bits
    numbers = [0, 3, 2**53 + 1, between - 1, between, between + 1, 2**63 - 1]
    service = SERVICES[dtype]
    [trained] = request_columns(service, {"x": pl.Series(numbers, dtype=own)})
    served = request_rows(service, [{"x": number} for number in numbers], len(numbers))
    assert trained.to_list() == [row["x"] for row in served]
