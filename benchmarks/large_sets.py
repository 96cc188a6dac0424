"""Measure 8c: a training set of very many rows: time a row and memory as for a few. Also what its process runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import polars as pl

from benchmarks import checksums, data
from benchmarks.harness import MEGABYTES, SECONDS, Bench, Measure, Row, Target, check, check_same
from benchmarks.memory import peak
from benchmarks.project import spend
from benchmarks.timing import quiet
from mlforge import Definitions, Feature, TrainingSet, feature, get_training_data, training_set
from mlforge.metrics import Rolling
from mlforge.store import LocalStore

MILLION = 1_000_000
LIMIT = 400_000_000
"""What the process may take in all, imports and libraries among it."""


def _features() -> list[Feature]:
    """Three features over one source: windows at each event, windows of days, and last values."""
    define = partial(feature, keys=["user_id"], source="events/", timestamp="event_time")

    def rows(df: pl.DataFrame) -> pl.DataFrame:
        return df.select("user_id", "event_time", "amount")

    days = define(
        name="days", interval="1d", metrics=[Rolling(["7d"], {"amount": ["mean", "max"]})]
    )
    last = define(name="last", metrics=[Rolling(["1d"], {"amount": ["last", "sum"]})])
    return [spend(), days(rows), last(rows)]


@dataclass(frozen=True)
class Task:
    """A training set to be made in a process of its own; it travels as JSON."""

    store: str
    spine: str
    out: str
    engine: str

    def run(self) -> Outcome:
        """Make it; what that took."""
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.large_sets", json.dumps(asdict(self))],
            cwd=Path(__file__).parents[1],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return Outcome(**json.loads(done.stdout))


@dataclass(frozen=True)
class Outcome:
    """Seconds of wall and of all cores together, without the imports', and the most bytes that the process ever had."""

    rows: int
    wall: float
    cpu: float
    peak: int

    def a_million(self, seconds: float) -> float:
        """Seconds for each million rows."""
        return seconds * MILLION / self.rows

    def __str__(self) -> str:
        wall, cpu = (SECONDS.of(self.a_million(each)) for each in (self.wall, self.cpu))
        return f"{cpu} of CPU a million, {wall} by the clock"


def _child(task: Task) -> Outcome:

    quiet()
    names = [each.name for each in _features()]
    make: Callable[[], TrainingSet] = partial(
        training_set, task.spine, names, LocalStore(task.store), task.out, engine=task.engine
    )
    wall, cpu = time.perf_counter(), time.process_time()
    stored_set = make()
    return Outcome(stored_set.rows, time.perf_counter() - wall, time.process_time() - cpu, peak())


def _run(bench: Bench) -> list[Row]:
    folder = bench.new_folder("project")
    (folder / "events").mkdir()
    for file in bench.history():
        os.link(file, folder / "events" / file.name)
    store = LocalStore(folder / "store")
    names = [each.name for each in _features()]
    Definitions(store, _features(), engine=bench.engine, root=folder).build()
    few, many = (_outcome(bench, folder, store, names, rows) for rows in bench.size.sets)
    what = f"training set of {many.rows:,} rows, {len(names)} features"
    growth = many.a_million(many.cpu) / few.a_million(few.cpu)
    return [
        Row("8c", what, str(many), f"of {few.rows:,}: {few}", [growth], Target(1.20)),
        Row(
            "8c",
            f"{what}: peak memory",
            "",
            f"of {few.rows:,}: {MEGABYTES.of(few.peak)}",
            [many.peak],
            Target(LIMIT, MEGABYTES),
        ),
    ]


def _outcome(bench: Bench, folder: Path, store: LocalStore, names: list[str], rows: int) -> Outcome:
    """What a set of so many rows took; its first file is compared with `get_training_data`."""
    spine, out = folder / f"spine-{rows}.parquet", folder / f"set-{rows}"
    data.spine(bench.size, rows).write_parquet(spine)
    outcome = Task(str(store.path), str(spine), str(out), bench.engine).run()
    stored_set = TrainingSet.open(out)
    check(
        outcome.rows == rows == sum(part.rows for part in stored_set.document.parts),
        "rows are gone",
    )
    first = stored_set.part(0, stored_set.columns)
    again = get_training_data(
        pl.read_parquet(spine, n_rows=first.height), names, store, engine=bench.engine
    )
    check_same(checksums.of_frame(first), checksums.of_frame(again), "the set's first rows")
    stored_set.release(store)
    shutil.rmtree(out)
    return outcome


MEASURES = (
    Measure(
        "8c",
        "a training set of very many rows, against one of few: time a row, and peak memory",
        "<= 1.2x a row; <= 400 MB in all",
        _run,
    ),
)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(_child(Task(**json.loads(sys.argv[1]))))))
