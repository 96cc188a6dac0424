"""`python -m benchmarks.compare_feast --feast PYTHON`: mlforge and Feast on one table, by turns, in one run.

    python3 -m venv /tmp/feast && /tmp/feast/bin/pip install 'feast[redis]'
    python -m benchmarks.compare_feast --feast /tmp/feast/bin/python

Feast computes no windows, so both serve a table that mlforge has computed: for each user and event, counts, sums and
means of 7 and 30 days. Both join it with the same spine, push it to the same server and answer the same requests,
and each answer is compared before its time counts.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl

from benchmarks import data
from benchmarks.data import DAY, START, Size
from benchmarks.harness import MILLISECONDS, SECONDS, Bench, Unit, check, median_of
from benchmarks.project import NAME, Project
from benchmarks.timing import quiet, seconds
from mlforge import Definitions, feature, get_online_features, get_training_data
from mlforge.online import RedisStore
from mlforge.store import LocalStore

TABLE = "spend_table"
SIZES = {
    "tiny": Size("tiny", 20_000, 1_000, files=20, spines=(2_000, 0), reads=20),
    "default": Size("default", 1_000_000, 100_000, files=50, spines=(100_000, 0), reads=300),
}


@feature(name=TABLE, keys=["user_id"], source="table.parquet", timestamp="event_time")
def table_feature(df: pl.DataFrame) -> pl.DataFrame:
    return df


@dataclass(frozen=True)
class Line:
    """One comparison: what was done, and the seconds of both sides, round by round."""

    what: str
    ours: Sequence[float]
    theirs: Sequence[float]
    unit: Unit = SECONDS

    @property
    def cells(self) -> list[str]:
        """The line's texts; the ratio is Feast's time over ours."""
        ratios = sorted(b / a for a, b in zip(self.ours, self.theirs, strict=True))
        spread = f"{ratios[0]:.1f} - {ratios[-1]:.1f}"
        return [
            self.what,
            median_of(self.ours, self.unit),
            median_of(self.theirs, self.unit),
            f"{statistics.median(ratios):.1f}x",
            spread,
        ]


class Feast:
    """The other side: a process of an environment where Feast is installed."""

    def __init__(self, python: str) -> None:
        script = Path(__file__).with_name("feast_side.py")
        self._process = subprocess.Popen(
            [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Run a command there; its answer. Raises RuntimeError if the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([command, arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"Feast's process ended at {command!r}; its error is above")
        result: dict[str, Any] = json.loads(answer)
        return result

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


@dataclass(frozen=True)
class Comparison:
    """Both sides over one folder: the raw events, the table computed from them, a spine, a server."""

    bench: Bench
    feast: Feast
    folder: Path
    windows: Project

    @property
    def table(self) -> Path:
        """The table that both serve."""
        return self.folder / "table.parquet"

    def run(self) -> tuple[str, list[Line]]:
        """Everything; Feast's release, and the lines of the table."""
        size = self.bench.size
        stores = self.windows.stores()
        stores.build()
        rows = pl.read_parquet(stores.data)
        rows.write_parquet(self.table)
        columns = {n: str(t) for n, t in rows.schema.items() if n not in ("user_id", "event_time")}
        address = urlsplit(self.bench.url)
        release = self.feast(
            "open",
            table=str(self.table),
            registry=str(self.folder / "registry.db"),
            connection=f"{address.hostname}:{address.port},password={address.password}",
            columns=columns,
        )["feast"]
        spine = data.spine(size, size.spines[0]).with_row_index("row")
        spine.write_parquet(self.folder / "spine.parquet")
        online = RedisStore.from_url(self.bench.url, prefix="compare")
        defs = Definitions(
            LocalStore(self.folder / "store"), [table_feature], online, root=self.folder
        )
        defs.build()
        lines = [
            self._train(defs, spine, list(columns)),
            self._windows(stores.definitions, spine),
            *self._push(defs, rows),
            *self._read(online, list(columns)),
            self._drop(stores.definitions, rows),
        ]
        return release, lines

    def _theirs(self, spine_file: str = "spine.parquet") -> float:
        return self.feast(
            "train", spine=str(self.folder / spine_file), out=str(self.folder / "theirs.parquet")
        )["seconds"]

    def _train(self, defs: Definitions, spine: pl.DataFrame, columns: list[str]) -> Line:
        ours, theirs, left_out = [], [], 0
        for _ in range(self.bench.repeat):
            answers: list[pl.DataFrame] = []

            def train(into: list[pl.DataFrame] = answers) -> None:
                into.append(
                    get_training_data(spine, [TABLE], store=defs.store, timestamp="event_time")
                )

            ours.append(seconds(train))
            theirs.append(self._theirs())
            theirs_frame = pl.read_parquet(self.folder / "theirs.parquet")
            left_out = _check_equal(answers[0], theirs_frame, columns)
        sys.stderr.write(f"Feast leaves out {left_out:,} of {spine.height:,} spine rows\n")
        return Line(f"training: {spine.height:,} spine rows joined with the table", ours, theirs)

    def _windows(self, defs: Definitions, spine: pl.DataFrame) -> Line:
        ours, theirs = [], []
        for _ in range(self.bench.repeat):
            ours.append(
                seconds(
                    lambda: get_training_data(
                        spine, [NAME], store=defs.store, timestamp="event_time"
                    )
                )
            )
            theirs.append(self._theirs())
        return Line("training: ours computes the windows at each row's instant", ours, theirs)

    def _push(self, defs: Definitions, rows: pl.DataFrame) -> list[Line]:
        ours, theirs = [], []
        users = rows["user_id"].n_unique()
        online = defs.online_store
        assert online is not None
        for _ in range(self.bench.repeat):
            online.drop(TABLE)
            ours.append(seconds(lambda: defs.push(TABLE)))
            theirs.append(
                self.feast("materialize", start=_iso(START), end=_iso(START + 366 * DAY))["seconds"]
            )
        return [Line(f"push: the newest rows of {users:,} users to Redis", ours, theirs)]

    def _read(self, online: RedisStore, columns: list[str]) -> list[Line]:
        lines = []
        for users in (1, 100):
            size = self.bench.size
            requests = [
                [(number * users + user) * 7_919 % size.entities for user in range(users)]
                for number in range(size.reads)
            ]
            ours: list[float] = []
            theirs: list[float] = []
            for _ in range(self.bench.repeat):
                answer = self.feast("read", entities=requests)
                theirs.append(statistics.median(answer["seconds"]))
                first, times = None, []
                for request in requests:
                    entities = [{"user_id": user} for user in request]
                    begun = time.perf_counter()
                    values = get_online_features([TABLE], entities, store=online)
                    times.append(time.perf_counter() - begun)
                    first = first or values
                ours.append(statistics.median(times))
                _check_online(first or [], answer["first"], columns)
            what = "user" if users == 1 else "users"
            lines.append(Line(f"online: a request for {users} {what}", ours, theirs, MILLISECONDS))
        return lines

    def _drop(self, defs: Definitions, rows: pl.DataFrame) -> Line:
        """A drop of new events: ours notices, recomputes and pushes; Feast is given a table that is computed already."""
        ours, theirs = [], []
        size = self.bench.size
        end = START
        for number in range(self.bench.repeat):
            data.put(data.drop(size, number), self.windows.source / f"drop-{number}.parquet")

            def refresh() -> None:
                defs.refresh(NAME)
                defs.push(NAME)

            ours.append(seconds(refresh))
            whole = defs.store.read(NAME)
            fresh = whole.filter(pl.col("event_time") > rows["event_time"].max())
            whole.write_parquet(self.table)
            first = fresh["event_time"].min()
            end = START + 400 * DAY
            theirs.append(
                self.feast("materialize", start=first.isoformat(), end=_iso(end))["seconds"]
            )
            rows = whole
        return Line(
            f"a drop of {size.drop:,} events: ours recomputes and pushes, Feast pushes",
            ours,
            theirs,
        )


def _iso(us: int) -> str:
    return str(pl.Series([us]).cast(pl.Datetime("us", "UTC"))[0].isoformat())


def _check_equal(ours: pl.DataFrame, theirs: pl.DataFrame, columns: list[str]) -> int:
    """Raise WrongResult unless both agree on each spine row that Feast returns; how many it leaves out.

    It leaves out rows of users whose first event lies later; ours have null there.
    """
    own, other = (
        frame.select(
            pl.col("row").cast(pl.Int64),
            *(
                pl.col(prefix + name).cast(pl.Float64).fill_nan(None).alias(name)
                for name in columns
            ),
        )
        for frame, prefix in ((ours, f"{TABLE}__"), (theirs, ""))
    )
    left_out = own.join(other, on="row", how="anti")
    check(
        left_out.drop("row").null_count().sum_horizontal()[0] == left_out.height * len(columns),
        "rows with values are left out",
    )
    both = own.join(other, on="row", validate="1:1", suffix="__feast")
    for name in columns:
        unlike = both.filter(pl.col(name).ne_missing(pl.col(f"{name}__feast")))
        count = unlike.height
        check(
            not count, f"training, {name}: {count} of {both.height} values differ: {unlike.head(3)}"
        )
    return left_out.height


def _check_online(
    ours: list[dict[str, Any]], theirs: dict[str, list[Any]], columns: list[str]
) -> None:
    for name in columns:
        for own, other in zip(ours, theirs[name], strict=True):
            value = own[f"{TABLE}__{name}"]
            same = value == other if None in (value, other) else math.isclose(value, other)
            check(same, f"online, {name}: {value} and {other}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare_feast")
    parser.add_argument("--feast", required=True, metavar="PYTHON", help="a Python that has Feast")
    parser.add_argument("--size", choices=SIZES, default="default")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="rounds")
    default = Path(tempfile.gettempdir()) / "mlforge-benchmarks"
    parser.add_argument("--dir", type=lambda text: Path(text).absolute(), default=default)
    options = parser.parse_args(arguments)
    quiet()
    size = SIZES[options.size]
    with Bench(size, options.dir, options.repeat) as bench:
        feast = Feast(options.feast)
        try:
            folder = bench.new_folder("compare")
            windows = Project.over(bench, bench.history(size.files))
            release, lines = Comparison(bench, feast, folder, windows).run()
        finally:
            feast.close()
    print(
        f"Feast {release}, {size.events:,} rows, {size.entities:,} users, {options.repeat} rounds\n"
    )
    head = ["what", "mlforge", "Feast", "Feast / mlforge", "spread"]
    for cells in [head, ["---"] * len(head), *(line.cells for line in lines)]:
        print(f"| {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
