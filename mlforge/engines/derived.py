"""Derived columns of rows that an engine has evaluated: in one place, whatever the engine."""

from __future__ import annotations

from functools import lru_cache

import polars as pl

from mlforge.compilers.expression_compiler import Program
from mlforge.core.expression.columns import TypedColumn
from mlforge.core.expression.kinds import INSTANT_KIND, kind_of
from mlforge.core.expression.parser import T
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.schema import Schema

ROWS_AT_ONCE = 500_000
"""The most rows to derive at a time: each part of an expression takes a column while they are computed."""


def derived_values(
    spec: FeatureSpec, events: Schema, rows: pl.DataFrame, instant: str | None, of_t: bool = True
) -> pl.DataFrame:
    """The derived columns alone, a row for each row.

    events: the schema of the feature's events. rows: keys and values. instant: the column with each row's
    instant of evaluation, None without a timestamp. of_t: whether columns that depend on it are among them.
    """
    chosen = tuple(
        column for column in spec.derivation(events) if of_t or column.name not in spec.of_t
    )
    if not chosen:
        return pl.DataFrame(height=rows.height)
    readable = tuple(spec.readable(events).items())
    program = _program(chosen, readable, instant)
    slices = rows.iter_slices(ROWS_AT_ONCE) if rows.height > ROWS_AT_ONCE else [rows]
    return pl.concat([program.run(part.lazy()).collect(engine="in-memory") for part in slices])


@lru_cache(maxsize=256)
def _program(
    columns: tuple[TypedColumn, ...], readable: tuple[tuple[str, str], ...], instant: str | None
) -> Program:
    """The compiled columns; the dtype of each name that they may read."""
    kinds = {name: (name, kind_of(dtype)) for name, dtype in readable}
    program = Program(kinds if instant is None else {**kinds, T: (instant, INSTANT_KIND)})
    for column in columns:
        program.add(column.name, column.node)
    return program
