"""Formats of versions: older releases refuse by name whatever they would overlook or misread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge.metrics import Rolling, ToDate
from mlforge.store.manifest_json import to_json
from tests.support.projects import Project, rows


def all_columns(df: Any) -> Any:
    return df


def _with_flags(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(big=pl.col("amount") > 1, tags=pl.lit([1, 2]))


def _sums(**arguments: Any) -> dict[str, Any]:
    return {"metrics": [Rolling("7d", {"amount": "sum"}, **arguments)]}


SEVEN = ["count", "sum", "mean", "min", "max", "std", "median"]
KNOWN_BEFORE = {
    "no metrics": {},
    "the seven aggregations": {"metrics": [Rolling(["1d", "7d"], {"amount": SEVEN})]},
    "an offset": _sums(offset="1d", closed="left"),
}
NEW = {
    "another aggregation": {"metrics": [Rolling("7d", {"amount": ["sum", "var"]})]},
    "one with a number": {"metrics": [Rolling("7d", {"amount": "p90"})]},
    "a condition": _sums(where="big"),
    "all of time": {"metrics": [Rolling("all", {"amount": "sum"})]},
    "a period to date": {"metrics": [ToDate("1mo", {"amount": "sum"})]},
    "a derived column": {**_sums(), "derive": {"double": "amount__sum__7d * 2"}},
    "no keys": {**_sums(), "keys": []},
}


def _format(project: Project, arguments: dict[str, Any], function: Any = None) -> object:
    project.drop("a", _with_flags(rows((1, 0, 1.0), (2, 1.5, 5.0))))
    arguments = {"metrics": [], **arguments}
    project.build(project.define(function or _flat, **arguments))
    return to_json(project.store.resolve("spend"))["format"]


def _flat(df: Any) -> Any:
    return df.drop("tags")


@pytest.mark.parametrize("what", KNOWN_BEFORE)
def test_a_version_of_what_was_always_there_keeps_its_format(tmp_path: Path, what: str) -> None:
    assert _format(Project(tmp_path), KNOWN_BEFORE[what]) == 1


@pytest.mark.parametrize("what", NEW)
def test_a_version_that_says_something_new_has_a_new_format(tmp_path: Path, what: str) -> None:
    assert _format(Project(tmp_path), NEW[what]) == 2


def test_a_version_with_nested_columns_has_a_new_format(tmp_path: Path) -> None:
    assert _format(Project(tmp_path), {}, all_columns) == 2
