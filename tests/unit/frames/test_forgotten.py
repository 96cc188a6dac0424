"""Rows of forgotten entities: a value is the same whatever dtype its column has."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from mlforge.core.forgotten import Entity, Forgotten
from mlforge.frames.forgotten import could_hold, without


def forgotten(*texts: str) -> Forgotten:
    return Forgotten("5a17").with_entities(Entity("id", text) for text in texts)


@pytest.mark.parametrize(
    ("text", "values", "dtype", "left"),
    [
        ("7", [7, 70, None], pl.UInt8, [70, None]),
        ("7", ["7", "7.0", "07", None], pl.String, ["7.0", "07", None]),
        ("7", [7.0, 7.5, float("nan"), float("inf"), None], pl.Float32, 4),
        (str(2**53 - 1), [2.0**53 - 1, 2.0**53 - 2], pl.Float64, [2.0**53 - 2]),
        ("7", [Decimal("7.00"), Decimal("7.10")], pl.Decimal(9, 2), [Decimal("7.10")]),
        ("70", [Decimal(70), Decimal(7)], pl.Decimal(9, 0), [Decimal(7)]),
        ("7.1", [Decimal("7.10"), Decimal("7.01")], pl.Decimal(9, 2), [Decimal("7.01")]),
        ("7", [b"7", b"\xff", None], pl.Binary, [b"\xff", None]),
        ("7", ["7", "8"], pl.Categorical, ["8"]),
        (str(2**63), [2**63, 2**63 - 1], pl.UInt64, [2**63 - 1]),
        (str(2**53 + 1), [2**53 + 1, 2**53], pl.Int64, [2**53]),
        ("true", [True, False, None], pl.Boolean, [False, None]),
        ("2025-01-31", [date(2025, 1, 31), date(2025, 1, 30)], pl.Date, [date(2025, 1, 30)]),
        ("7", [timedelta(7)], pl.Duration, [timedelta(7)]),
        ("7", [[7]], pl.List(pl.Int64), [[7]]),
        ("7", [None], pl.Null, [None]),
    ],
)
def test_the_rows_of_an_entity_are_left_out_whatever_dtype_they_have(
    text: str, values: list[Any], dtype: pl.DataType, left: Any
) -> None:
    frame = pl.DataFrame({"id": pl.Series(values, dtype=dtype)})
    kept, rows = without(frame, forgotten(text, "never"))
    assert kept.height + rows == frame.height
    if isinstance(left, int):
        assert kept.height == left
    else:
        assert kept["id"].to_list() == left


def test_a_text_is_told_from_one_that_no_row_could_be_of() -> None:
    held = {
        "Int64": (["7", "-7"], ["07", "+7", "7.0", "ann", str(2**63)]),
        "UInt8": (["255"], ["256", "-1"]),
        "Float64": (["7", "7.5", "-0.25"], ["7.0", "7.50", "ann"]),
        "Boolean": (["true", "false"], ["True", "1"]),
        "Date": (["2025-01-31"], ["2025-1-31", "31.1.2025"]),
        "Decimal(9, 2)": (["7", "7.5"], ["7.50", "ann"]),
        "String": (["7", "07", "ann", "True"], []),
    }
    for dtype, (could, could_not) in held.items():
        assert {text: could_hold(dtype, text) for text in could} == dict.fromkeys(could, True)
        assert not any(could_hold(dtype, text) for text in could_not), dtype


def test_what_two_have_forgotten_is_forgotten_together() -> None:
    both = forgotten("a").together(forgotten("b"))
    assert both == forgotten("a", "b")
    assert Forgotten("5a17").together(Forgotten()) == Forgotten("5a17")
