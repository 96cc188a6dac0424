"""Derived columns of rows that an engine has evaluated: in one place, whatever the engine."""

from __future__ import annotations

import polars as pl

from mlforge.compilers.expression_compiler import Program
from mlforge.core.expression.kinds import INSTANT_KIND, kind_of
from mlforge.core.expression.parser import T
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.schema import Schema


def derived_values(
    spec: FeatureSpec, events: Schema, rows: pl.DataFrame, instant: str | None, of_t: bool = True
) -> pl.DataFrame:
    """The derived columns alone, a row for each row.

    events: the schema of the feature's events. rows: keys and values. instant: the column with each row's
    instant of evaluation, None without a timestamp. of_t: whether columns that depend on it are among them.
    """
    kinds = {name: (name, kind_of(dtype)) for name, dtype in spec.readable(events).items()}
    program = Program(kinds if instant is None else {**kinds, T: (instant, INSTANT_KIND)})
    names = []
    for column in spec.derivation(events):
        if of_t or column.name not in spec.of_t:
            program.add(column.name, column.node)
            names.append(column.name)
    if not names:
        return rows.clear().select([])
    return program.run(rows.lazy()).collect()
