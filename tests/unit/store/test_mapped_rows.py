"""Lists of rows in a file that is mapped into memory."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from mlforge.store import mapped_rows
from mlforge.store.entity_index import lists

ROWS = pl.DataFrame(
    {
        "user": ["a", "b", "a", "c", "b", "a"],
        "shop": [1, 1, 2, 1, 1, 1],
        "at": [datetime(2026, 1, day, tzinfo=UTC) for day in range(1, 7)],
        "amount": [1.5, None, -0.0, 2.0, 3.0, 4.0],
        "price": [Decimal("1.10"), None, Decimal("2.20"), Decimal("3.30"), None, Decimal("4.40")],
        "words": [["x"], [], None, ["y", None], ["z"], ["ä"]],
        "place": [{"x": 1}, {"x": None}, None, {"x": 2}, {"x": 3}, {"x": 4}],
        "ok": [True, None, False, True, True, False],
        "day": [date(2026, 1, 1)] * 6,
        "nothing": [None] * 6,
    },
    schema_overrides={"at": pl.Datetime("us", "UTC"), "price": pl.Decimal(20, 2)},
)
KEYS = ["user", "shop"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    frames = (lists(part, KEYS) for part in (ROWS[:4], ROWS[4:5], ROWS[5:]))
    mapped_rows.write_mapped(tmp_path / "x.arrow", frames, {"covers": ["ä"]})
    return tmp_path / "x.arrow"


def test_rows_come_back_as_they_were_list_by_list(path: Path) -> None:
    batches = list(mapped_rows.mapped_batches(str(path)))
    assert [batch.num_rows for batch in batches] == [4, 1, 1]
    known = pl.concat(map(mapped_rows.keys_of, batches))
    assert known.schema == ROWS.select(KEYS).schema
    assert [mapped_rows.lengths_of(batch).to_list() for batch in batches] == [[1] * 4, [1], [1]]
    whole = (
        mapped_rows.rows_of(batch, pl.int_range(batch.num_rows, dtype=pl.UInt32, eager=True))
        for batch in batches
    )
    assert pl.concat(whole).sort("at").select(ROWS.columns).equals(ROWS)


def test_lists_are_read_in_the_order_of_their_places(tmp_path: Path) -> None:
    path = tmp_path / "y.arrow"
    mapped_rows.write_mapped(path, iter([lists(ROWS, ["user"]).sort("user")]), {})
    [batch] = mapped_rows.mapped_batches(str(path))
    path.unlink()
    assert mapped_rows.keys_of(batch)["user"].to_list() == ["a", "b", "c"]
    assert mapped_rows.lengths_of(batch).to_list() == [3, 2, 1]
    chosen = mapped_rows.rows_of(batch, pl.Series([2, 0], dtype=pl.UInt32))
    assert chosen["user"].to_list() == ["c", "a", "a", "a"]
    none = mapped_rows.rows_of(batch, pl.Series([], dtype=pl.UInt32))
    assert none.is_empty()
    assert none.schema == chosen.schema


def test_notes_are_those_of_a_whole_file_alone(path: Path) -> None:
    assert mapped_rows.mapped_notes(path) == {"covers": ["ä"]}
    content = path.read_bytes()
    for harmed in (
        content[:-1],
        content[1:],
        content + b"x",
        content.replace(b"\xa4", b"\xa5"),
        b"",
    ):
        path.write_bytes(harmed)
        assert mapped_rows.mapped_notes(path) is None
    for place in range(0, len(content), 97):
        changed = bytearray(content)
        changed[place] ^= 4
        path.write_bytes(changed)
        assert mapped_rows.mapped_notes(path) is None
