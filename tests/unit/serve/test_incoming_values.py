"""Values of JSON in columns: as they were sent, or refused; never as something else."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge.serve.incoming.rows import frame_of, rows_of_json, rows_of_lines
from mlforge.serve.incoming.writing import holds, parquet_of, write_bytes, write_frame
from mlforge.serve.problems import Refused


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, None, 2], pl.Int64()),
        ([1, 2.5], pl.Float64()),
        ([True], pl.Boolean()),
        ([["x"], [], None], pl.List(pl.String)),
        ([[1, 2.5], [None]], pl.List(pl.Float64)),
        ([{"x": 1}, {"y": "t", "x": None}], pl.Struct({"x": pl.Int64, "y": pl.String})),
        ([{"x": {"q": 1}}, {"x": {"r": [1]}}], pl.Struct({"x": pl.Struct({"q": pl.Int64, "r": pl.List(pl.Int64)})})),
        ([{"x": 1, "z": None}], pl.Struct({"x": pl.Int64})),
    ],
)  # fmt: skip
def test_a_column_that_no_file_has_holds_each_value_that_was_sent(
    values: list[Any], dtype: pl.DataType
) -> None:
    column = frame_of([{"a": value, "b": 1} for value in values], {}, [])["a"]
    assert column.dtype == dtype
    assert _without_nulls(column.to_list()) == _without_nulls(values)


def _without_nulls(value: Any) -> Any:
    """The value without the fields of objects that are null, which a struct has too."""
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([{"x": 1}, [1]], "several types"),
        ([1, True], "several types"),
        ([1, "x"], "several types"),
        ([[1], ["x"]], "several types"),
        ([{"x": 1}, {"x": "t"}], "several types"),
        ([[], []], "no type"),
        ([{}], "no type"),
        ([{"\ud800": 1}], "no name of a column"),
        (["\ud800"], "row 1: a is"),
        ([2**63], "row 1: a is"),
    ],
)
def test_values_that_share_no_dtype_are_refused(values: list[Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        frame_of([{"a": value} for value in values], {}, [])


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (pl.Struct({"x": pl.String}), {"x": 5}),
        (pl.Struct({"x": pl.Int64}), {"x": 1.5}),
        (pl.Struct({"x": pl.Int64}), {"y": 1}),
        (pl.List(pl.Boolean), [1]),
        (pl.List(pl.Duration("us")), [5]),
        (pl.List(pl.Datetime("ms")), ["2026-01-01T00:00:00.000001"]),
        (pl.Float16(), 65_520),
        (pl.Float32(), 1e300),
        (pl.Float64(), json.loads("1e999")),
        (pl.Float64(), 10**400),
        (pl.String(), 5),
        (pl.Boolean(), 1),
        (pl.Int64(), 1.0),
        (pl.Decimal(5, 2), True),
        (pl.Decimal(38, 2), json.loads("12345678901234567.89")),
        (pl.Decimal(38, 0), json.loads("100000000000000000001.0")),
        (pl.Decimal(38, 3), json.loads("9007199254740.993")),
        (pl.Decimal(38, 20), json.loads("0.12345678901234567891")),
    ],
)
def test_a_value_that_its_column_could_hold_only_as_another_is_refused(
    dtype: pl.DataType, value: Any
) -> None:
    with pytest.raises(Refused, match="the row was not taken: row 1: a is"):
        frame_of([{"a": value}], {"a": dtype}, [])


def test_rows_that_would_take_too_much_room_are_refused_before_they_do() -> None:
    wide = [{f"c{number}": 1} for number in range(4_000)]
    for rows in (wide, [{"a": row} for row in wide]):
        with pytest.raises(Refused, match="4,000 rows of 4,000 names"):
            frame_of(rows, {}, [])
    deep = rows_of_json(b'{"a":' * 500 + b"1" + b"}" * 500)
    with pytest.raises(Refused, match="nested more than 16 times"):
        frame_of(deep, {}, [])
    assert len(rows_of_lines(b'{"a": 1}\n' * 50, 5)) == 6, "one more than may be is enough"
    for name in ("", "\ud800"):
        with pytest.raises(Refused, match="no name of a column"):
            frame_of([{name: 1}], {}, [])


def test_a_drop_knows_the_body_that_it_was_made_of(tmp_path: Path) -> None:
    file, frame = tmp_path / "http-0123456789ab.parquet", pl.DataFrame({"a": [1]})
    assert not holds(file, b"body")
    write_bytes(file, parquet_of(frame, b"body"))
    assert holds(file, b"body")
    assert pl.read_parquet(file).equals(frame)
    with pytest.raises(Refused, match="other rows were sent with this Idempotency-Key"):
        holds(file, b"other")
    for other in (b"body", b"other"):  # as by another process, which has not seen the file before
        refused = nullcontext() if other == b"body" else pytest.raises(Refused, match="other rows")
        with refused:
            write_bytes(file, parquet_of(frame.head(0), other), request=other)
        assert pl.read_parquet(file).equals(frame)
    sent = parquet_of(frame)
    write_bytes(file, sent)
    assert holds(file, sent)
    for other in (b"body", parquet_of(frame.head(0))):
        with pytest.raises(Refused, match="other rows"):
            holds(file, other)
    with pytest.raises(Refused, match="cannot be a parquet file"):
        write_frame(tmp_path / "http-empty.parquet", pl.DataFrame({"a": [{}]}))
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
