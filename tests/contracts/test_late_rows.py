"""A late event costs its own entity's later rows within its windows, and means the same as a rebuild."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge.metrics import Rolling, ToDate
from tests.support.projects import Project, at, rows

DAYS = 20
NAMES = ["sum", "count", "max", "std", "median", "last", "count_distinct"]
ROLLING = [Rolling(["2d", "5d"], {"amount": NAMES})]
SHAPES: dict[str, dict[str, Any]] = {
    "continuous": {"metrics": ROLLING},
    "aligned": {"metrics": ROLLING, "interval": "6h"},
    "to date": {"metrics": [ToDate("1w", {"amount": NAMES})]},
    "since ever": {"metrics": [Rolling("all", {"amount": ["sum", "min", "last"]})]},
    "offset, open": {"metrics": [Rolling("2d", {"amount": NAMES}, closed="left", offset="1d")]},
    "no metrics": {"metrics": []},
}
LATE = {3: 2.1, 7: 11.2}
"""The day of each late event, by its user; the other users of the drop have an event at the end."""
TOUCHED: dict[str, tuple[float, float]] = {
    "continuous": (0.0, 5.0),
    "since ever": (0.0, DAYS + 9.0),
    "offset, open": (0.0, 3.0),
    "no metrics": (0.0, 0.0),
}
"""The days after an event in which it touches rows, its own row among them."""


def history() -> pl.DataFrame:
    """Ten users with an event every half of a day."""
    halves = [(user, n / 2) for n in range(2 * DAYS) for user in range(10)]
    return rows(*((user, day, float((user * 7 + int(day * 2) * 3) % 11)) for user, day in halves))


def drop() -> pl.DataFrame:
    late = [(user, day, 100.0) for user, day in LATE.items()]
    return rows(*late, *((user, DAYS + 0.1, 1.0) for user in range(10) if user not in LATE))


@pytest.mark.parametrize(
    ("shape", "engine"), [*((shape, "polars") for shape in SHAPES), ("continuous", "duckdb")]
)
def test_late_events_cost_their_own_entities_later_rows_alone(
    shape: str, engine: str, tmp_path: Path
) -> None:
    project = Project(tmp_path / "p", engine)
    feature = project.define(**SHAPES[shape])
    project.drop("a", history())
    before = project.build(feature)
    project.drop("b", drop())
    after = project.build(feature)
    stored = project.store.read("spend")
    other = Project(tmp_path / "q", engine)
    other.drop("a", history())
    other.drop("b", drop())
    whole = other.build(feature)
    assert (after.mode, whole.mode) == ("incremental", "full")
    assert stored.equals(other.store.read("spend"), null_equal=True)
    assert before.rows < after.rows == whole.rows
    if shape in TOUCHED:
        events = pl.concat([history(), drop()])
        first, last = TOUCHED[shape]
        touched = sum(
            events.filter(user_id=user)
            .filter(pl.col("at").is_between(at(day + first), at(day + last)))
            .height
            for user, day in ((user, LATE.get(user, DAYS + 0.1)) for user in range(10))
        )
        assert after.rows_recomputed == touched
    assert after.rows_recomputed < (130 if shape == "since ever" else 60) < whole.rows
