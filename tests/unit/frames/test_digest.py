"""The digest of a multiset of rows: equal rows have equal digests, also within lists, arrays and structs."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import polars as pl
import pytest

from mlforge.core.manifest import MODULUS
from mlforge.frames import digest as module
from mlforge.frames.digest import digest, digests

STRUCT = pl.Struct({"a": pl.Int64, "b": pl.String})
DIFFERENT: list[tuple[pl.DataType, list[Any]]] = [
    (
        pl.List(pl.Int64),
        [[1, 2], [2, 1], [], None, [None], [None, None], [1], [0], [1, 2, 0], [0, 1, 2]],
    ),
    (pl.List(pl.List(pl.Int64)), [[[1], [2]], [[1, 2]], [[1], [], [2]], [[]], [], None, [None]]),
    (pl.Array(pl.Float32, 2), [[0.0, 1.0], [1.0, 0.0], [None, 1.0], [0.0, None], None]),
    (
        STRUCT,
        [
            {"a": 1, "b": "x"},
            {"a": 1, "b": None},
            {"a": None, "b": "x"},
            {"a": None, "b": None},
            None,
        ],
    ),
    (pl.Binary, [b"", b"\x00", b"\xff", b"ff", None]),
    (pl.List(STRUCT), [[{"a": 1, "b": "x"}], [{"a": 1, "b": None}], [None], [], None]),
]


def of(dtype: pl.DataType, *values: Any) -> int:
    return digest(pl.DataFrame({"x": pl.Series(values, dtype=dtype)}))


@pytest.mark.parametrize(("dtype", "values"), DIFFERENT)
def test_different_values_have_different_digests(dtype: pl.DataType, values: list[Any]) -> None:
    for a, b in combinations(values, 2):
        assert of(dtype, a) != of(dtype, b), (a, b)


@pytest.mark.parametrize(("dtype", "values"), DIFFERENT)
def test_digests_add_up_whatever_the_order_and_the_chunks(
    dtype: pl.DataType, values: list[Any]
) -> None:
    whole = of(dtype, *values)
    assert whole == of(dtype, *reversed(values))
    assert whole == sum(of(dtype, value) for value in values) % MODULUS
    halves = [
        pl.DataFrame({"x": pl.Series(part, dtype=dtype)}) for part in (values[:2], values[2:])
    ]
    assert whole == digest(pl.concat(halves, rechunk=False))


@pytest.mark.parametrize(("dtype", "values"), DIFFERENT)
def test_each_run_of_rows_has_the_digest_that_it_has_alone(
    dtype: pl.DataType, values: list[Any]
) -> None:
    column = pl.Series("x", values, dtype=dtype)
    frame = pl.DataFrame({"x": column, "n": range(len(values)), "text": map(str, values)})
    heights = [1, len(values) - 2, 1]
    starts = (0, 1, len(values) - 1)
    alone = [digest(frame.slice(a, rows)) for a, rows in zip(starts, heights, strict=True)]
    assert digests(frame, heights) == alone
    many = pl.concat([frame] * 5_000)
    assert digests(many, [frame.height] * 5_000) == [digest(frame)] * 5_000


def test_zero_within_has_no_sign() -> None:
    assert of(pl.List(pl.Float64), [0.0, 1.0]) == of(pl.List(pl.Float64), [-0.0, 1.0])


def test_no_rows_have_no_digest_of_any_dtype() -> None:
    for dtype, _ in DIFFERENT:
        assert of(dtype) == 0


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_shares_of_several_threads_add_up(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pl.DataFrame({"n": range(100), "text": [str(n % 7) if n % 5 else None for n in range(100)]})  # fmt: skip
    whole, parts = digest(frame), digests(frame, [40, 1, 59])
    monkeypatch.setattr(module, "CORES", cores)
    monkeypatch.setattr(module, "_BLOCK", 7)
    monkeypatch.setattr(module, "_MANY", 8)
    assert digest(frame) == whole == sum(parts) % MODULUS
    assert digests(frame, [40, 1, 59]) == parts
