"""The page "Wire format" says what is true: its vectors are run."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge.core.schema import Column
from mlforge.frames.encoding import json_row, json_rows, key_hash, key_hashes
from mlforge.frames.polars_schema import to_polars
from mlforge.online.decoding import SameDtype, decode_rows, parse_rows
from mlforge.online.packing import RowSchema, unpacked

PAGE = Path(__file__).parents[3] / "docs" / "wire-format.md"


def table(after: str) -> list[list[str]]:
    """The rows of the page's table whose head begins so; code without its ticks."""
    lines = iter(PAGE.read_text(encoding="utf-8").splitlines())
    next(line for line in lines if line.startswith(after))
    next(lines)
    rows: list[list[str]] = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append(
            [cell.strip().removeprefix("`").removesuffix("`") for cell in line.split("|")[1:-1]]
        )
    return rows


@pytest.mark.parametrize(("shown", "hashed", "digest"), table("| entity |"))
def test_an_entity_has_the_hash_that_the_page_gives(shown: str, hashed: str, digest: str) -> None:
    entity = json.loads(shown)
    assert sha256(hashed.encode()).hexdigest() == digest
    assert key_hash(entity) == digest
    typed = {key: date.fromisoformat(v) if key == "day" else v for key, v in entity.items()}
    assert key_hashes(pl.DataFrame([typed]), list(typed)).to_list() == [digest]


BERLIN = timezone(timedelta(hours=1))
VALUES: list[Any] = [
    2**53 + 1,
    0.1 + 0.2,
    0.10000000149011612,
    float("inf"),
    True,
    'é"',
    Decimal("1.50"),
    date(2024, 2, 29),
    time(0, 0, 1),
    datetime(2024, 2, 29, 12, 30, tzinfo=BERLIN),
    [Decimal("1.50"), None],
    [0.5, 0.10000000149011612],
    {"lat": 1.5, "tags": []},
]


@pytest.mark.parametrize(
    ("row", "value"), list(zip(table("| dtype | value |"), VALUES, strict=True))
)
def test_a_value_has_the_json_that_the_page_gives_and_comes_back(
    row: list[str], value: Any
) -> None:
    dtype, _, written = row
    series = pl.Series(
        "x",
        [value.astimezone(UTC) if isinstance(value, datetime) else value],
        dtype=to_polars(dtype),
    )
    expected = f'{{"x":{written}}}'
    [text] = json_rows(series.to_frame(), ["x"]).to_list()
    assert text == expected
    assert json.loads(json_row({"x": value})) == json.loads(expected)
    [decoded] = rows = parse_rows([text])
    decode_rows(rows, SameDtype.of((Column("x", dtype),)))
    assert decoded == {"x": None if value == float("inf") else series.to_list()[0]}


def test_every_dtype_that_a_row_can_hold_is_on_the_page() -> None:
    named = " ".join(row[0] for row in table("| dtype | JSON |"))
    for dtype in (
        "Int8",
        "UInt64",
        "Float32",
        "Boolean",
        "String",
        "Decimal",
        "Date",
        "Time",
        "Datetime(us, UTC)",
        "List(",
        "Array(",
        "Struct(",
    ):
        assert dtype in named


@pytest.mark.parametrize(("columns", "values", "row"), table("| columns | values |"))
def test_a_packed_row_has_the_bytes_that_the_page_gives(
    columns: str, values: str, row: str
) -> None:
    schema = RowSchema.parse(columns)
    typed = pl.DataFrame(
        {name: [json.loads(values)[name]] for name, _ in schema.columns}
    ).with_columns(
        pl.col(name).str.to_date() if dtype == "Date" else pl.col(name).cast(to_polars(dtype))
        for name, dtype in schema.columns
    )
    assert [packed.hex() for packed in schema.pack(typed)] == [row]
    [read] = unpacked([bytes.fromhex(row)], {schema.id: schema}, None)
    assert read == json.loads(values)
