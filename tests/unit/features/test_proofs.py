"""Proofs are asked for once a function, its code and the shape of its rows."""

from __future__ import annotations

from types import MappingProxyType

import polars as pl

from mlforge.features.proofs import doubt

SCHEMA = pl.Schema({"user": pl.Int64, "amount": pl.Float64})
NO_TABLES: MappingProxyType[str, pl.Schema] = MappingProxyType({})


class Spend:
    """A function that counts its calls, and is row-wise or not, as it is set."""

    def __init__(self) -> None:
        self.calls = 0
        self.is_row_wise = True

    def __call__(self, df: pl.LazyFrame, **_: pl.LazyFrame) -> pl.LazyFrame:
        self.calls += 1
        return df.filter(pl.col("user") > 1) if self.is_row_wise else df.unique()


def test_a_proven_function_is_not_called_again_for_the_same_shape() -> None:
    function = Spend()
    assert doubt(function, "a", SCHEMA, NO_TABLES) is None
    proven_with = function.calls
    assert doubt(function, "a", pl.Schema(SCHEMA), NO_TABLES) is None
    assert function.calls == proven_with > 0


def test_other_columns_and_other_tables_are_proven_anew() -> None:
    function = Spend()
    shapes = [
        (SCHEMA, NO_TABLES),
        (pl.Schema({**SCHEMA, "amount": pl.Int64}), NO_TABLES),
        (SCHEMA, {"users": SCHEMA}),
        (SCHEMA, {"users": pl.Schema({"user": pl.Int64})}),
        (SCHEMA, {"people": SCHEMA}),
    ]
    for schema, tables in shapes:
        before = function.calls
        assert doubt(function, "a", schema, tables) is None
        assert function.calls > before


def test_other_code_is_proven_anew() -> None:
    function = Spend()
    assert doubt(function, "a", SCHEMA, NO_TABLES) is None
    function.is_row_wise = False
    assert "unique" in str(doubt(function, "b", SCHEMA, NO_TABLES))


def test_a_doubt_goes_with_its_reason() -> None:
    function = Spend()
    function.is_row_wise = False
    assert "unique" in str(doubt(function, "a", SCHEMA, NO_TABLES))
    function.is_row_wise = True
    assert doubt(function, "a", SCHEMA, NO_TABLES) is None
