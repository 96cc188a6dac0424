"""What two sides computed, in a few numbers: any row that is wrong or out of its place shows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.harness import check


def of_table(path: Path) -> dict[str, float]:
    """Of a parquet file, or of a folder of them in the order of their names."""
    return of_frame(pl.scan_parquet(path if path.is_file() else path / "*.parquet"))


def of_frame(frame: pl.DataFrame | pl.LazyFrame) -> dict[str, float]:
    """The number of rows, and of each column its nulls and its sum weighted by position."""
    schema = frame.lazy().collect_schema()
    weight = (pl.col("__row") % 1_013 + 1).cast(pl.Float64)
    sums = []
    for name, dtype in schema.items():
        value = _number(pl.col(name), dtype)
        sums.append((value.cast(pl.Float64) * weight).sum().alias(name))
        sums.append(pl.col(name).null_count().cast(pl.Float64).alias(f"{name} nulls"))
    sums.append(pl.len().cast(pl.Float64).alias("rows"))
    sums_of_all = frame.lazy().with_row_index("__row").select(sums).collect(engine="streaming")
    return sums_of_all.row(0, named=True)


def _number(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """A number of each value; of a list one in which its length and its order show."""
    if dtype.is_temporal():
        return column.dt.epoch("us") % 1_000_003
    if isinstance(dtype, pl.List):
        ends = column.list.first().fill_null(0) - 3 * column.list.last().fill_null(0)
        return column.list.sum() + 7 * column.list.len() + ends
    return column


def online_rows(client: Any, prefix: str) -> dict[str, dict[str, Any]]:
    """Every row below a prefix, by the hash of its entity."""
    keys = list(client.scan_iter(match=f"{prefix}:*:{'?' * 64}", count=10_000))
    rows: dict[str, dict[str, Any]] = {}
    for start in range(0, len(keys), 5_000):
        block = keys[start : start + 5_000]
        for key, text in zip(block, client.mget(block), strict=True):
            rows[key.rpartition(":")[2]] = json.loads(text)
    return rows


def check_same_rows(
    ours: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]], what: str
) -> None:
    """Raise WrongResult unless both hold the same rows, but for the last digits of floats."""
    check(ours.keys() == other.keys(), f"{what}: {len(ours)} rows and {len(other)}, not the same")
    for key, row in ours.items():
        check(row.keys() == other[key].keys(), f"{what}: columns of {key}")
        for name, value in row.items():
            same = value == other[key][name] or (
                isinstance(value, float) and math.isclose(value, other[key][name], rel_tol=1e-9)
            )
            check(same, f"{what}: {name} of {key} is {value} and {other[key][name]}")
