"""Measure 8b: the blast radius of one amended file, against making the training set again."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import polars as pl

from benchmarks import data
from benchmarks.harness import PERCENT, SECONDS, Bench, Measure, Row, Target, check, median_of
from benchmarks.project import NAME, Project
from benchmarks.timing import seconds
from mlforge import TrainingSet, training_set
from mlforge.core.values import PRECISION
from mlforge.training_sets.blast import BlastRadius

_TIMES = 10  # so many of the larger spine of measure 8


def _run(bench: Bench) -> list[Row]:
    project = Project.over(bench, bench.history())
    definitions = project.stores().definitions
    definitions.refresh(NAME)
    rows = _TIMES * bench.size.spines[1]
    spine = project.folder / "spine.parquet"
    data.spine(bench.size, rows).write_parquet(spine)
    make = partial(training_set, spine, [NAME], definitions.store, engine=bench.engine)
    before = make(out=project.folder / "set")
    _amend(sorted(project.source.glob("*.parquet"))[bench.size.files // 2])
    definitions.refresh(NAME)
    again: list[TrainingSet] = []
    whole = seconds(lambda: again.append(make(out=project.folder / "again")))
    radii: list[BlastRadius] = []
    ours = [
        seconds(lambda: radii.append(before.blast_radius(definitions.store)))
        for _ in range(bench.repeat)
    ]
    differing = _differing(before, again[0])
    check(
        radii[0].by_column == differing,
        f"the radius says {radii[0].by_column}, making the set again {differing}",
    )
    return [
        Row(
            "8b",
            f"blast radius of one amended file on {rows:,} rows: {radii[0].rows.height:,} differ",
            median_of(ours, SECONDS),
            f"making the set again: {SECONDS.of(whole)}",
            [own / whole for own in ours],
            Target(0.20, PERCENT),
        )
    ]


def _amend(path: Path) -> None:
    """Another amount in every row of a file."""
    events = pl.read_parquet(path)
    data.put(events.with_columns(pl.col("amount") + 1), path)


def _differing(before: TrainingSet, again: TrainingSet) -> dict[str, int]:
    """How many rows differ in each column that has some, floats by more than their precision."""
    counts: dict[str, int] = {}
    for column in before.document.columns:
        then, now = (a.scan().select(column.name).collect().to_series() for a in (before, again))
        near = (then - now).abs() <= PRECISION * pl.select(
            pl.max_horizontal(then.abs(), now.abs())
        ).to_series().cast(pl.Float64)
        counts[column.name] = int((then.ne_missing(now) & ~near.fill_null(False)).sum())
    return {name: count for name, count in counts.items() if count}


MEASURES = (
    Measure(
        "8b",
        "the blast radius of one amended file, against making the training set again",
        "<= 20%",
        _run,
    ),
)
