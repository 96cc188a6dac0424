"""Values that callers bring: those of a spine are those of an online request; defaults fill the columns that they name."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from mlforge import Service
from mlforge.errors import RetrievalError
from mlforge.services.brought import request_columns, request_rows
from mlforge.services.completion import Output, completion, fitting_default

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


ZONED = datetime(
    2026, 3, 29, 3, tzinfo=ZoneInfo("Europe/Berlin")
)  # an hour after the clocks went on


@pytest.mark.parametrize("instant", [ZONED, ZONED.replace(tzinfo=None)])
def test_instants_of_any_zone_are_those_in_training_that_they_are_online(instant):
    service = Service("s", ["f"], request={"x": pl.Datetime})
    [trained] = request_columns(service, {"x": pl.Series([instant])})
    [served] = request_rows(service, [{"x": instant}], 1)
    assert trained.to_list() == [served["x"]] == [instant.replace(tzinfo=instant.tzinfo or UTC)]


def test_a_float_that_is_no_whole_number_is_no_integer_in_training_nor_online():
    service = Service("s", ["f"], request={"x": pl.Int64})
    with pytest.raises(RetrievalError):
        request_columns(service, {"x": pl.Series([1.5])})
    with pytest.raises(RetrievalError):
        request_rows(service, [{"x": 1.5}], 1)


def test_a_default_of_a_name_in_the_answer_is_no_other_column_s_of_that_name():
    outputs = (Output("a__x", "x", "Float64"), Output("b__a__x", "a__x", "Float64"))
    service = Service("s", ["a", "b"], defaults={"a__x": 1.0})
    assert completion(service, outputs, ()).defaults == {"a__x": 1.0}


@pytest.mark.parametrize(
    ("value", "dtype"), [(Decimal("1.005"), "Decimal(10, 2)"), (1e300, "Float32")]
)
def test_a_default_that_its_column_would_round_is_refused(value: Any, dtype: str) -> None:
    with pytest.raises(RetrievalError, match=r"x is .*, which does not hold"):
        fitting_default(value, dtype, "x")
