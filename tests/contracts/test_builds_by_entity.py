"""Full builds of events that do not fit in memory: dealt by entity, with the rows of a build that holds them all."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from polars.testing import assert_frame_equal

from mlforge.build.result import BuildResult, Options
from mlforge.build.rows import Layout
from mlforge.core.aggregations import AGGREGATIONS
from mlforge.metrics import Rolling, ToDate
from mlforge.store import LocalStore
from tests.support.projects import Project, rows

USERS, EVENTS, MOST = 9, 400, 30
NAMES = list(AGGREGATIONS)
SHAPES: dict[str, dict[str, Any]] = {
    "a long window": {"metrics": [Rolling(["3d", "365d"], {"amount": NAMES})]},
    "closed left": {"metrics": [Rolling("365d", {"amount": NAMES}, closed="left", offset="1d")]},
    "since ever": {"metrics": [Rolling("all", {"amount": ["mode", "p90", "last_3", "sum"]})]},
    "aligned": {
        "metrics": [Rolling(["3h", "30d"], {"amount": NAMES}, offset="6h")],
        "interval": "3h",
    },
    "to date": {"metrics": [ToDate(["1w", "1y"], {"amount": ["sum", "count_distinct"]})]},
    "derived": {
        "metrics": [Rolling("365d", {"amount": ["sum", "last_time"]})],
        "derive": {"idle": "hours(t - amount__last_time__365d)", "twice": "2 * amount__sum__365d"},
    },
    "without metrics": {"metrics": []},
}
TRIED = [
    pytest.param(
        shape,
        engine,
        marks=[] if (shape, engine) == ("since ever", "polars") else pytest.mark.slow,
    )
    for shape in SHAPES
    for engine in ("polars", "duckdb")
]


def history(project: Project) -> None:
    """Users with few and with very many events, some at one instant, in one file."""
    draw = random.Random(5)
    events = [
        (
            min(draw.randrange(USERS), draw.randrange(USERS)),
            draw.randrange(800) / 8,
            draw.choice([None, draw.randrange(40) / 4]),
        )
        for _ in range(EVENTS)
    ]
    project.drop("all", rows(*events))


def built(project: Project, shape: str, path: Path, most: int) -> BuildResult:
    """A full build into a store of its own, with so many events at once."""
    other = project.on(LocalStore(path))
    definitions = other.definitions(other.define(lambda df: df, **SHAPES[shape]))
    layout = Layout(part_rows=50, chunk_rows=most)
    return definitions.refresh("spend", options=Options(full=True, layout=layout))


@pytest.mark.parametrize(("shape", "engine"), TRIED)
def test_the_entities_of_one_large_file_are_dealt_and_give_the_rows_of_all_at_once(
    shape: str, engine: str, tmp_path: Path
) -> None:
    project = Project(tmp_path / "p", engine)
    history(project)
    whole = built(project, shape, tmp_path / "whole", EVENTS)
    dealt = built(project, shape, tmp_path / "dealt", MOST)
    assert [task.buckets for task in whole.tasks] == [1]
    assert {task.buckets for task in dealt.tasks} == {len(dealt.tasks)}
    assert len(dealt.tasks) > USERS / 2
    assert max(task.rows for task in dealt.tasks) < whole.rows / 2
    expected, served = LocalStore(tmp_path / "whole"), LocalStore(tmp_path / "dealt")
    assert_frame_equal(served.read("spend"), expected.read("spend"), rel_tol=1e-9)
    parts = served.resolve("spend").parts
    assert len(parts) >= EVENTS / 50
    times = [part.times for part in parts if part.times]
    assert all(before.end <= after.start for before, after in pairwise(times))
