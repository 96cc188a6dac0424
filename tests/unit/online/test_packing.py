"""Packed rows: as few bytes, the values of JSON."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal

import polars as pl
import pytest

from mlforge.core.schema import Column
from mlforge.errors import DataError
from mlforge.frames.encoding import json_rows
from mlforge.online.chunks import Rows
from mlforge.online.decoding import Misfit, SameDtype, typed_rows
from mlforge.online.packing import PackedRows, RowSchema, packed, unpacked

NOW = datetime(2024, 2, 29, 12, 30, 0, 1, tzinfo=UTC)
VALUES = pl.DataFrame(
    {
        "i8": pl.Series([-128, None, 127], dtype=pl.Int8),
        "u8": pl.Series([0, None, 255], dtype=pl.UInt8),
        "i16": pl.Series([-(2**15), None, 5], dtype=pl.Int16),
        "u16": pl.Series([2**16 - 1, None, 5], dtype=pl.UInt16),
        "i32": pl.Series([-(2**31), None, 5], dtype=pl.Int32),
        "u32": pl.Series([2**32 - 1, None, 5], dtype=pl.UInt32),
        "i64": pl.Series([-(2**63), None, 2**63 - 1], dtype=pl.Int64),
        "u64": pl.Series([2**64 - 1, None, 0], dtype=pl.UInt64),
        "f32": pl.Series([0.1, None, float("inf")], dtype=pl.Float32),
        "f64": [0.1 + 0.2, None, float("nan")],
        "flag": [True, None, False],
        "text": ["é\u2028😀\0", None, ""],
        "day": [date(1, 1, 1), None, date(9999, 12, 31)],
        "moment": [time(0), None, time(23, 59, 59, 999_999)],
        "at": pl.Series([NOW, None, datetime(1, 1, 1, tzinfo=UTC)], dtype=pl.Datetime("us", "UTC")),
        "price": pl.Series([Decimal("1.50"), None, Decimal("-0.01")], dtype=pl.Decimal(38, 2)),
        "list": pl.Series([[1.5, None], None, []], dtype=pl.List(pl.Float64)),
        "array": pl.Series([[1, 2], None, [3, 4]], dtype=pl.Array(pl.Int64, 2)),
        "pair": [{"a": 1, "b": 'x"}'}, None, {"a": None, "b": None}],
        "nothing": [None, None, None],
    }
)
COLUMNS = tuple(Column(*column) for column in RowSchema.of(VALUES, VALUES.columns).columns)


def packed_values(frame: pl.DataFrame) -> tuple[RowSchema, list[bytes]]:
    schema = RowSchema.of(frame, frame.columns)
    return schema, schema.pack(frame)


def test_packed_values_are_those_of_json_for_every_dtype_and_null() -> None:
    schema, rows = packed_values(VALUES)
    texts = json_rows(VALUES, VALUES.columns).to_list()
    read = {schema.id: RowSchema.parse(schema.text)}
    assert unpacked(rows, read, COLUMNS) == typed_rows(texts, SameDtype.of(COLUMNS))
    assert unpacked(rows, read, None) == typed_rows(texts, None)


@pytest.mark.parametrize("name", VALUES.columns)
def test_each_dtype_alone_is_packed_and_unpacked(name: str) -> None:
    column = VALUES.select(name)
    schema, rows = packed_values(column)
    [dtype] = [c for c in COLUMNS if c.name == name]
    texts = json_rows(column, [name]).to_list()
    assert unpacked(rows, {schema.id: schema}, (dtype,)) == typed_rows(
        texts, SameDtype.of((dtype,))
    )


def test_a_row_of_six_numbers_takes_54_bytes() -> None:
    six = pl.DataFrame({f"c{n}": [0.5, None] for n in range(6)})
    assert list(map(len, packed_values(six)[1])) == [54, 54]


def test_columns_of_another_dtype_are_converted_as_json_is() -> None:
    schema, rows = packed_values(pl.DataFrame({"n": [5], "more": ["x"]}))
    known = {schema.id: schema}
    assert unpacked(rows, known, (Column("n", "Float64"),)) == [{"n": 5.0, "more": "x"}]
    with pytest.raises(Misfit, match="'n' is 5, and no String") as wrong:
        unpacked([None, *rows], known, (Column("n", "String"),))
    assert (wrong.value.position, wrong.value.incomplete) == (1, True)
    with pytest.raises(Misfit, match="no column 'lost'") as wrong:
        unpacked(rows, known, (Column("lost", "Int64"),))
    assert wrong.value.incomplete


def test_rows_of_json_lie_beside_packed_ones() -> None:
    schema, rows = packed_values(pl.DataFrame({"n": [5]}))
    written = PackedRows.of_json(Rows(["hash"], ['{"n":6}']))
    stored = [*written.packed, None, *rows]
    assert unpacked(stored, {schema.id: schema}, (Column("n", "Int64"),)) == [
        {"n": 6},
        None,
        {"n": 5},
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"", "begins with b''"),
        (b"\x02abcd", "which this mlforge does not read"),
        (b"\x01abcd", "nothing names the columns"),
        (b"[]", "begins with b'\\['"),
        (b"{", "not JSON"),
        (b'{"n":"\xff"}', "not UTF-8"),
    ],
)
def test_a_row_that_is_none_is_a_misfit(row: bytes, reason: str) -> None:
    with pytest.raises(Misfit, match=reason):
        unpacked([row], {}, (Column("n", "Int64"),))


def test_every_cut_and_longer_row_is_a_misfit() -> None:
    schema, [row, *_] = packed_values(VALUES)
    for wrong in [row[:length] for length in range(len(row))] + [row + b"\0"]:
        with pytest.raises(Misfit):
            unpacked([wrong], {schema.id: schema}, COLUMNS)


def test_every_flipped_byte_gives_a_misfit_or_values_of_the_dtypes() -> None:
    schema, rows = packed_values(VALUES)
    kinds = {
        c.name: type(v)
        for c, v in zip(
            COLUMNS, unpacked(rows, {schema.id: schema}, COLUMNS)[0].values(), strict=True
        )
    }
    for at in range(len(rows[0])):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(rows[0])
            damaged[at] ^= flip
            try:
                [values] = unpacked([bytes(damaged)], {schema.id: schema}, COLUMNS)
            except Misfit:
                continue
            assert values is not None
            for name, value in values.items():
                assert value is None or type(value) is kinds[name]
                assert value == value, "never NaN"


def test_a_column_without_json_is_named() -> None:
    with pytest.raises(DataError, match="'n' is Binary"):
        list(packed(pl.DataFrame({"user_id": [1], "n": [b"x"]}), ["user_id"]))


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '[["a"]]', '[["a",1]]', '[["a","b","c"]]'])
def test_a_text_that_is_no_schema_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        RowSchema.parse(text)
