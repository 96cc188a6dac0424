"""Whether what mlforge gives is what the oracle says: cells, stored rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import polars as pl

from mlforge.core.values import to_us
from tests.support import oracle
from tests.support.oracle import Cell

TALLY: Counter[str] = Counter()
"""How much was compared, by what it was."""


def same(what: str, want: Cell, got: Any) -> None:
    TALLY["values"] += 1
    assert oracle.close(want.value, plain(got), want.magnitude), (
        f"{what}: {want.value!r}, got {got!r}"
    )


def plain(value: Any) -> Any:
    if isinstance(value, list):
        return list(map(plain, value))
    return to_us(value) if isinstance(value, datetime) else value


def same_rows(feature: oracle.Feature, events: oracle.Events, got: pl.DataFrame) -> None:
    """The stored rows, in order; rows of one entity and instant may stand in any order."""
    want = oracle.stored(feature, events)
    names = (
        [*feature.keys, str(feature.timestamp), *feature.outputs]
        if feature.metrics
        else [*feature.columns, *(column.name for column in feature.derived)]
    )
    assert sorted(got.columns) == sorted(names)
    if feature.timestamp:
        assert got.schema[feature.timestamp] == pl.Datetime("us", "UTC")
    found = [{name: plain(v) for name, v in row.items()} for row in got.iter_rows(named=True)]
    order = [*([feature.timestamp] if feature.timestamp else []), *feature.keys]
    places = [tuple(row[name].value for name in order) for row in want]
    assert [tuple(row[name] for name in order) for row in found] == places
    if not feature.metrics:
        names = [*order, *(name for name in names if name not in order)]
        want.sort(key=lambda row: sorting(names, {n: c.value for n, c in row.items()}))
        found.sort(key=lambda row: sorting(names, row))
    for row, cells in zip(found, want, strict=True):
        for name, cell in cells.items():
            same(f"stored {name} in {row}", cell, row[name])


def sorting(names: Sequence[str], row: dict[str, Any]) -> tuple[Any, ...]:
    return oracle.nulls_first(names, row)
