"""The page "Aggregations and expressions" tells every aggregation as the registry has it; its examples are run."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge.compilers.base import ENTITY, ROW, TIME, ComputeContext, value_name
from mlforge.core import reference
from mlforge.core.aggregation_kinds import KINDS
from mlforge.core.aggregations import empty_value
from mlforge.core.metrics import expand
from mlforge.engines import engine_named
from mlforge.metrics import Rolling

PAGE = (Path(__file__).parents[3] / "docs" / "expressions.md").read_text(encoding="utf-8")


def table(head: str) -> list[list[str]]:
    """The rows of the page's table with that head."""
    lines = PAGE[PAGE.index(head) :].splitlines()[2:]
    rows = lines[: next(n for n, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def clock(text: str) -> int:
    """A time of day in microseconds."""
    hours, minutes = text.split(":")
    return (int(hours) * 60 + int(minutes)) * 60_000_000


def told(text: str) -> Any:
    """A value as the page writes it."""
    return clock(text) if re.fullmatch(r"\d+:\d+", text) else ast.literal_eval(text)


EVENTS = [(clock(at), None if v == "null" else float(v)) for at, v in table("| time | value |")]
KINDS_TOLD = table("| aggregation | gives |")
EXAMPLES = [tuple(row[2].strip("`").split("`: ")) for row in KINDS_TOLD]


def test_the_page_tells_every_aggregation() -> None:
    assert {row[0].strip("`") for row in KINDS_TOLD} == KINDS.keys()


@pytest.mark.parametrize("row", KINDS_TOLD, ids=lambda row: row[0])
def test_the_page_tells_empty_values_and_what_merges(row: list[str]) -> None:
    kind = KINDS[row[0].strip("`")]
    empty = {"null": None, "[]": []}.get(row[3].partition(",")[0], 0)
    assert empty == (list(kind.empty) if isinstance(kind.empty, tuple) else kind.empty)
    assert row[6] == ("yes" if kind.parts else "sets" if kind.kept else "no")


@pytest.mark.parametrize(("name", "answer"), EXAMPLES)
@pytest.mark.parametrize("engine", ["reference", "polars", "duckdb"])
def test_the_examples_of_the_page_are_true(name: str, answer: str, engine: str) -> None:
    if engine == "reference":
        assert reference.aggregate(name, EVENTS).value == told(answer)
        assert reference.aggregate(name, []).value == empty_value(name)
        return
    times, values = zip(*EVENTS, strict=True)
    line = pl.DataFrame(
        {ENTITY: [0] * 5, TIME: times, ROW: [None] * 4 + [0], value_name(0): values},
        schema_overrides={ENTITY: pl.UInt32, ROW: pl.UInt32},
    )
    metrics = expand([Rolling("2h", {"x": name})], None, "f")
    results = engine_named(engine).aggregate(line, ComputeContext.of(metrics, {"x": "Float64"}))
    [value] = results.drop(ROW).row(0)
    assert value == (pytest.approx(told(answer)) if isinstance(value, float) else told(answer))


@pytest.mark.parametrize("row", KINDS_TOLD, ids=lambda row: row[0])
def test_the_page_tells_what_each_costs_on_both_engines(row: list[str]) -> None:
    assert re.fullmatch(r"\d+\.\d\d / \d+\.\d\d", row[7])
