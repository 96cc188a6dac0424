"""Rows that are in order already are found to be, and no others."""

from __future__ import annotations

import random

import polars as pl
import pytest

from mlforge.frames.row_order import is_sorted

SCHEMA = {"at": pl.Datetime("us", "UTC"), "flag": pl.Boolean, "text": pl.String, "n": pl.Int64}
ORDERS = [["at"], ["at", "flag"], ["at", "flag", "text"], ["text"], ["flag", "at"]]


def frame_of(rng: random.Random, height: int) -> pl.DataFrame:
    """Rows of few values, so that many are alike, numbered."""
    return pl.DataFrame(
        {
            "at": [rng.randrange(3) for _ in range(height)],
            "flag": [rng.random() < 0.5 for _ in range(height)],
            "text": [rng.choice("aé~Z") for _ in range(height)],
            "n": range(height),
        },
        schema=SCHEMA,
    )


def cut(rng: random.Random, height: int) -> list[int]:
    heights: list[int] = []
    while height:
        heights.append(rng.randint(1, height))
        height -= heights[-1]
    return heights


@pytest.mark.parametrize("order", ORDERS)
def test_rows_are_in_order_where_a_stable_sort_moves_none(order: list[str]) -> None:
    rng, verdicts = random.Random(str(order)), set()
    for _ in range(60):
        frame = frame_of(rng, rng.randrange(6))
        if rng.random() < 0.5:
            frame = frame.sort(order, maintain_order=True).with_columns(n=pl.int_range(pl.len()))
        moved = frame.sort(order, maintain_order=True)["n"].to_list() != frame["n"].to_list()
        assert is_sorted(frame, order) != moved, frame
        verdicts.add(moved)
    assert verdicts == {True, False}


@pytest.mark.parametrize("order", ORDERS)
def test_each_run_of_rows_is_in_order_for_itself(order: list[str]) -> None:
    rng, verdicts = random.Random(str(order)), set()
    for _ in range(60):
        heights = cut(rng, rng.randrange(1, 6))
        runs = [frame_of(rng, height) for height in heights]
        if rng.random() < 0.5:
            runs = [run.sort(order, maintain_order=True) for run in runs]
        frame = pl.concat(runs).with_columns(n=pl.int_range(pl.len()))
        number = pl.Series("run", [i for i, h in enumerate(heights) for _ in range(h)])
        ordered = frame.with_columns(number).sort("run", *order, maintain_order=True)
        moved = ordered["n"].to_list() != frame["n"].to_list()
        assert is_sorted(frame, order, heights) != moved, frame
        verdicts.add(moved)
    assert verdicts == {True, False}


def test_rows_without_an_order_are_in_order() -> None:
    assert is_sorted(pl.DataFrame({"n": [2, 1]}), [])
