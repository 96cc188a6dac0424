"""What two sets of events have in common at their ends is left out before they are compared."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import polars as pl
import pytest

from mlforge.store.changes import _without_common_ends

SCHEMA = {
    "user": pl.Int64(),
    "x": pl.Float64(),
    "tags": pl.List(pl.String()),
    "embedding": pl.Array(pl.Float32(), 2),
    "place": pl.Struct({"lat": pl.Float64()}),
}
Row = tuple[Any, ...]


@pytest.mark.parametrize("seed", range(4))
def test_rows_left_out_cancel_out(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(40):
        went = [a_row(rng) for _ in range(rng.randint(0, 8))]
        came = edited(went, rng)
        whole = events(went), events(came)
        left = [frame.collect() for frame in _without_common_ends(*whole)]
        assert difference(*left) == difference(*whole)
        if went == came:
            assert [frame.height for frame in left] == [0, 0]


def test_one_amended_row_is_all_that_is_left() -> None:
    rng = random.Random(7)
    went = [(number, *a_row(rng)[1:]) for number in range(1000)]
    came = [*went[:400], (400, 9.0, None, None, None), *went[401:]]
    left = [frame.collect().height for frame in _without_common_ends(events(went), events(came))]
    assert left == [1, 1]


def a_row(rng: random.Random) -> Row:
    return (
        rng.randint(0, 2),
        rng.choice([None, 0.5, 1.5]),
        rng.choice([None, ["a"], ["a", None], []]),
        rng.choice([None, (1.0, 2.0)]),
        rng.choice([None, {"lat": None}, {"lat": 1.0}]),
    )


def edited(rows: list[Row], rng: random.Random) -> list[Row]:
    """The rows after a few insertions, removals and amendments."""
    result = list(rows)
    for _ in range(rng.randint(0, 3)):
        deed = rng.choice(["insert", "remove", "amend"])
        if deed == "insert":
            result.insert(rng.randint(0, len(result)), a_row(rng))
        elif result:
            place = rng.randrange(len(result))
            result[place : place + 1] = [a_row(rng)] if deed == "amend" else []
    return result


def events(rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def difference(went: pl.DataFrame, came: pl.DataFrame) -> tuple[Counter[str], Counter[str]]:
    """The rows that only one of two multisets has."""
    lists = pl.col("embedding").cast(pl.List(pl.Float32))  # an Array's values are lists or tuples
    before, after = (Counter(map(repr, f.with_columns(lists).rows())) for f in (went, came))
    return before - after, after - before
