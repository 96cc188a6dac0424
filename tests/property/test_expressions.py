"""The two compilers of expressions, polars and plain Python, give the same values."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from mlforge.compilers.expression_compiler import Program
from mlforge.core.expression.columns import Derived, RowDerivation, TypedColumn, typed
from mlforge.core.expression.kinds import kind_of
from mlforge.core.values import to_us
from mlforge.frames import polars_schema
from tests.support.expressions import SCALARS, Writer, rows

SEEDS, MANY_SEEDS = range(2), range(100, 140)
COLUMNS = 100
COMPARISONS = 100_000
"""The least number of values that the slow tests compare together."""


def _derived(r: random.Random, count: int, depth: int) -> tuple[Derived, ...]:
    writer = Writer(r)
    texts = [writer.text(r.choice(SCALARS), depth) for _ in range(count)]
    return tuple(
        Derived(f"d{n}", text)
        for n, text in enumerate(text for text in texts if len(text) <= 4_000)
    )


def _compared(seed: int, count: int, height: int, depth: int) -> Counter[str]:
    """Evaluate random columns on random rows in both ways; how many values were equal, and how many null."""
    r = random.Random(seed)
    frame, derived = rows(r, height), _derived(r, count, depth)
    dtypes = {c.name: c.dtype for c in polars_schema.schema_of(frame) if c.name != "t"}
    columns = typed(derived, "f", tuple(dtypes.items()), True)
    answers = _by_polars(frame, columns, dtypes)
    by_row = RowDerivation(columns, dtypes, [column.name for column in columns])
    seen: Counter[str] = Counter()
    for row, answer in zip(frame.to_dicts(), answers, strict=True):
        t = None if row["t"] is None else to_us(row["t"])
        expected = by_row(row, t)
        for column in columns:
            value = answer[column.name]
            assert (type(value), value) == (
                type(expected[column.name]),
                expected[column.name],
            ), f"{column.expression} on {row}"
            seen["null" if value is None else "value"] += 1
    return seen


def _by_polars(
    frame: Any, columns: tuple[TypedColumn, ...], dtypes: dict[str, str]
) -> list[dict[str, Any]]:
    kinds = {name: (name, kind_of(dtype)) for name, dtype in dtypes.items()}
    program = Program({**kinds, "t": ("t", "instant")})
    for column in columns:
        program.add(column.name, column.node)
    answers = program.run(frame.lazy()).collect(engine="in-memory")  # as `derived_values` does
    assert polars_schema.schema_of(answers) == tuple(
        polars_schema.Column(column.name, column.dtype) for column in columns
    )
    return list(answers.to_dicts())


@pytest.mark.parametrize("seed", SEEDS)
def test_polars_and_plain_python_agree_on_random_expressions(seed: int) -> None:
    seen = _compared(seed, COLUMNS, height=40, depth=4)
    assert min(seen["value"], seen["null"]) > 500


@pytest.mark.parametrize("compares", ["<", "<=", ">", ">=", "==", "!="])
@pytest.mark.parametrize("dtype", ["Float64", "Int64"])
def test_a_number_compares_with_a_column_that_is_null_throughout(compares: str, dtype: str) -> None:
    frame = pl.DataFrame({"a": [None, None, None]}, {"a": polars_schema.to_polars(dtype)})
    texts = (f"2 {compares} a", f"2 {compares} a * 2 and a < 3", f"1 if 2 {compares} a else 0")
    derived = tuple(Derived(f"d{n}", text) for n, text in enumerate(texts))
    columns = typed(derived, "f", (("a", dtype),), True)
    answers = _by_polars(frame.with_columns(t=None), columns, {"a": dtype})
    assert answers == [{"d0": None, "d1": None, "d2": None}] * 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", MANY_SEEDS)
def test_polars_and_plain_python_agree_on_many_random_expressions(
    seed: int, record_property: Callable[[str, object], None]
) -> None:
    """Seed by seed, so that any two of them may run in different processes; together no fewer than COMPARISONS."""
    seen = _compared(seed, 200, height=60, depth=2 + seed % 5)
    record_property("values compared", seen.total())
    print(f"seed {seed}: {seen.total():,} values compared, {dict(seen)}")  # noqa: T201 - shown with -s
    assert seen.total() * len(MANY_SEEDS) >= COMPARISONS
    assert min(seen["value"], seen["null"]) > 500
