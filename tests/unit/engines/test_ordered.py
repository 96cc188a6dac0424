"""Values of a line in the order of (time, value)."""

from __future__ import annotations

import polars as pl
import pytest

from mlforge.engines.kernels.ordered import OrderedValues
from mlforge.engines.timeline import ENTITY, TIME


@pytest.mark.parametrize("dtype", [pl.Float64, pl.Float32])
def test_equal_zeros_have_one_form(dtype: type[pl.DataType]) -> None:
    values = pl.Series([-0.0, None, 0.0, -0.0, 1.5], dtype=dtype)
    line = pl.DataFrame({ENTITY: [0] * 5, TIME: [1, 2, 3, 3, 3], "v": values})
    ordered = OrderedValues.of(line, "v").values
    assert ordered.dtype == dtype
    assert list(map(str, ordered)) == ["0.0", "0.0", "0.0", "1.5"]
