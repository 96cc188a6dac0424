"""The SQL of every aggregate, against golden files; the polars side is held by the parity tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlforge.compilers import ComputeContext, duckdb_compiler, polars_compiler
from mlforge.core.aggregation_kinds import KINDS
from mlforge.core.aggregations import AGGREGATIONS, aggregation
from mlforge.core.metrics import expand
from mlforge.core.values import Duration
from mlforge.engines.kernels.folds import FOLDS
from mlforge.metrics import Rolling

GOLDEN = Path(__file__).parent / "golden"
DTYPES = {"amount": "Float64", "units": "Int32", "price": "Decimal(12, 2)", "ok": "Boolean"}
IN_SQL = [
    name for name in AGGREGATIONS if aggregation(name).kind.name in duckdb_compiler.AGGREGATES
]
DAY = Duration.parse("1d")

CASES = {
    "every_aggregation": ([Rolling(["7d", "30d"], {"amount": IN_SQL})], None),
    "dtypes": ([Rolling(["1h"], {name: ["sum", "mean", "min"] for name in DTYPES})], None),
    "closed_right": ([Rolling(["1d"], {"units": ["sum"]}, closed="right")], None),
    "closed_left": ([Rolling(["1d"], {"units": ["sum"]}, closed="left")], None),
    "closed_none": ([Rolling(["1d"], {"units": ["sum"]}, closed="none")], None),
    "offset": ([Rolling(["7d"], {"amount": ["mean"]}, offset="7d")], None),
    "aligned": ([Rolling(["1d", "7d"], {"amount": ["count", "sum"]}, offset="1d")], DAY),
    "awkward_name": ([Rolling(["1d"], {"amount": ["sum"], 'na"me; --': ["count"]})], None),
}


@pytest.mark.parametrize("name", CASES)
def test_the_sql_of_a_metric_is_the_golden_one(name: str) -> None:
    metrics, interval = CASES[name]
    context = ComputeContext.of(expand(metrics, interval, "f"), {**DTYPES, 'na"me; --': "String"})
    assert duckdb_compiler.select(context, "line") + "\n" == _golden(name)


def test_the_sql_by_way_of_lists_is_the_golden_one() -> None:
    context = ComputeContext.of(expand(CASES["dtypes"][0], None, "f"), DTYPES)
    assert duckdb_compiler.select_by_lists(context, "line") + "\n" == _golden("listed")


def test_the_sql_for_a_few_points_is_the_golden_one() -> None:
    context = ComputeContext.of(expand(CASES["aligned"][0], DAY, "f"), DTYPES)
    statement = duckdb_compiler.select_at_points(context, "line", "points")
    assert statement + "\n" == _golden("points")


def test_every_aggregation_has_a_row_in_each_engine() -> None:
    for name, kind in KINDS.items():
        in_polars = [
            name in polars_compiler.AGGREGATES,
            name in polars_compiler.SUMMED,
            name in FOLDS,
        ]
        in_duckdb = [name in duckdb_compiler.AGGREGATES, name in FOLDS]
        assert (sum(in_polars), sum(in_duckdb)) == (1, 1), kind
    assert duckdb_compiler.AGGREGATES.keys() == duckdb_compiler.LIST_AGGREGATES.keys()


def _golden(name: str) -> str:
    return (GOLDEN / f"{name}.sql").read_text(encoding="utf-8")
