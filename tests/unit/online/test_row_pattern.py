"""Stored rows that are passed on undecoded are rows that a reader takes, with the values that they spell."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from random import Random
from typing import Any

import polars as pl
import pytest

from mlforge.core.schema import FLOATS, INTEGERS, Column, Schema
from mlforge.frames.encoding import json_rows, json_value
from mlforge.frames.polars_schema import to_polars
from mlforge.online.decoding import Misfit, SameDtype, typed_rows
from mlforge.online.row_pattern import row_pattern

BYTES = b'01234567890123456789-+.eE"\\/,:{}[]ntrufalse \n\x00\x7f\xc3\xa9\xff'
USUAL: dict[str, list[Any]] = {
    **{dtype: [0, 1, 37, None] for dtype in INTEGERS},
    **{dtype: [0.0, -0.0, 1.5, -2.25e-7, 1e16, 123456.789, None] for dtype in FLOATS},
    "Int64": [0, -1, 999_999_999_999_999_999, None],
    "Boolean": [True, False, None],
    "String": ["", "é", 'a "b" \\ c/d\n\t', None],
    "Date": [date(2024, 2, 28), date(2023, 12, 31), date(2024, 4, 30), None],
    "Time": [time(0, 0, 1), time(23, 59, 59, 999_999), None],
    "Datetime(us, UTC)": [datetime(2024, 2, 28, 12, 30, 1, 5, UTC), None],
    "Decimal(10, 2)": [Decimal("1.50"), Decimal("-0.05"), Decimal("12345678.90"), None],
    "List(Int64)": [[], [1], [1, None, -3], None],
    "List(String)": [[], ["a", None, "é"], None],
    "Array(Float32, 2)": [[0.5, 0.25], None],
    'Struct("lat": Float64, "tags": List(String))': [
        {"lat": 1.5, "tags": []},
        {"lat": None, "tags": None},
        None,
    ],
    "Null": [None],
}


def schema(*dtypes: str) -> Schema:
    return tuple(Column(f"amount__{n}__7d", dtype) for n, dtype in enumerate(dtypes))


def stored(columns: Schema, random: Random, count: int) -> list[bytes]:
    """Rows as a push writes them."""
    values = {
        column.name: pl.Series([random.choice(USUAL[column.dtype]) for _ in range(count)], dtype=to_polars(column.dtype))
        for column in columns
    }  # fmt: skip
    frame = pl.DataFrame(values)
    return [text.encode() for text in json_rows(frame, frame.columns)]


def mutated(row: bytes, random: Random) -> bytes:
    for _ in range(random.choice((1, 1, 2, 3))):
        at, more = random.randrange(len(row)), random.choice(BYTES)
        row = random.choice(
            (
                row[:at] + bytes([more]) + row[at:],
                row[:at] + row[at + 1 :],
                row[:at] + bytes([more]) + row[at + 1 :],
                row[:at] + row[at : at + 6] + row[at:],
            )
        )
        row = row or b"{"
    return row


def read(row: bytes, columns: Schema) -> Any:
    """What the usual way makes of a row: the JSON of its values in an answer, or the fault."""
    try:
        [values] = typed_rows([row.decode("utf-8", "surrogateescape")], SameDtype.of(columns))
    except Misfit as misfit:
        return misfit
    assert values is not None
    return json_value({column.name: values[column.name] for column in columns})


def is_passed(row: bytes, columns: Schema) -> bool:
    pattern = row_pattern(columns)
    assert pattern is not None
    accepted = pattern.row.fullmatch(row) is not None
    one = b"{%b}" % b",".join(b'"%b":null' % column.name.encode() for column in columns)
    for rows in ([row], [one, row], [row, one]):
        assert pattern.fits_all(rows) == accepted
    if not accepted:
        return False
    try:
        row.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("dtype", USUAL)
def test_rows_as_they_are_pushed_are_passed_on(dtype: str) -> None:
    columns, random = schema(dtype, "Float64"), Random(dtype)
    rows = stored(columns, random, 20)
    assert [row for row in rows if not is_passed(row, columns)] == []
    for row in rows:
        assert repr(json.loads(row)) == repr(read(row, columns))


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))]
)
def test_a_row_that_is_passed_on_is_one_that_reads_as_it_is_written(seed: int) -> None:
    random, passed, refused = Random(seed), 0, 0
    for dtype in USUAL:
        columns = schema(dtype, *random.choices(list(USUAL), k=1))
        for row in stored(columns, random, 3):
            for _ in range(60):
                other = mutated(row, random)
                if not is_passed(other, columns):
                    refused += 1
                    continue
                passed += 1
                assert repr(read(other, columns)) == repr(json.loads(other)), other
    assert passed > 30
    assert refused > 500


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("Int8", "128"),
        ("Int8", "1.0"),
        ("UInt8", "-1"),
        ("Int64", "9223372036854775808"),
        ("Int64", "01"),
        ("Float64", "1e999"),
        ("Float64", "5"),
        ("Float64", "NaN"),
        ("Float64", ".5"),
        ("Boolean", "1"),
        ("String", '"\\ud800"'),
        ("String", '"\n"'),
        ("Date", '"2023-02-29"'),
        ("Date", '"2024-04-31"'),
        ("Date", '"0000-01-01"'),
        ("Time", '"24:00:00.000000"'),
        ("Datetime(us, UTC)", '"2024-02-28T12:00:00.000000"'),
        ("Decimal(10, 2)", '"1.5e3"'),
        ("Decimal(10, 2)", '"007.50"'),
        ("List(Int64)", "[1,]"),
        ("Array(Float32, 2)", "[0.5]"),
        ('Struct("lat": Float64, "tags": List(String))', '{"tags":[],"lat":1.5}'),
        ("Null", "0"),
    ],
)
def test_what_a_dtype_does_not_hold_or_odd_spelling_is_not_passed_on(dtype: str, text: str) -> None:
    columns = schema(dtype)
    name = columns[0].name
    assert is_passed(f'{{"{name}":null}}'.encode(), columns)
    for row in (f'{{"{name}":{text}}}', f'{{"{name}": null}}', f'{{"{name}":null,"x":1}}', "{}"):
        assert not is_passed(row.encode(), columns)
    pattern, null = row_pattern(columns), f'{{"{name}":null}}'.encode()
    assert pattern is not None
    for rows in ([null, b""], [b"", null], [null + b"\n" + null], [null + b"\n", b""], [b""]):
        assert not pattern.fits_all(rows)
