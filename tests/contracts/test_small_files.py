"""Small files, whose events are made together: nothing tells them from files that are taken one by one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import mlforge.validators as v
from mlforge import Feature
from mlforge.ingest import small_files, transform
from mlforge.ingest.transform import Transform
from mlforge.sources import read_ahead
from mlforge.sources.reading_process import ReadingProcess
from mlforge.sources.source_file import SourceFile
from mlforge.store.file_tasks import read_file
from mlforge.store.manifest_json import to_json
from tests.support.projects import Project, identity, rows

PLAIN = [
    rows((user, user / 10, float(user)), (user, 0.0, -1.0), (1, 0.5, 2.5)) for user in range(9)
]


def above_zero(df: pl.DataFrame) -> pl.DataFrame:
    return df.filter(pl.col("amount") > 0).select("user_id", "at", "amount")


def strict(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", pl.col("amount").cast(pl.Int8).cast(pl.Float64))


def as_it_is(df: pl.DataFrame) -> pl.DataFrame:
    return df


def with_parts(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(
        pl.when(pl.col("user_id") != 3).then(pl.concat_list("amount", "amount")).alias("list"),
        pl.struct("user_id", pl.col("amount").cast(pl.String).alias("text")).alias("struct"),
        pl.col("user_id").cast(pl.String).cast(pl.Categorical).alias("kind"),
        pl.col("at").dt.replace_time_zone(None).dt.cast_time_unit("ns").alias("naive"),
    )


def mixed(folder: Project) -> None:
    """Good files, and between them of each kind that needs a look of its own."""
    for number, frame in enumerate(PLAIN):
        folder.drop(f"{number}-good", frame)
    folder.drop("0-twice", PLAIN[0])
    folder.drop("1-null-key", rows((None, 1.0, 1.0), (7, 1.5, 2.0)))
    folder.drop("1-null-time", rows((7, None, 1.0), (7, 1.5, 2.0)))
    folder.drop("2-not-a-number", rows((8, 1.0, float("nan")), (8, 1.5, 2.0)))
    folder.drop("2-none-above-zero", rows((8, 1.0, -1.0)))
    folder.drop("3-no-rows", rows())
    folder.drop("3-no-values", rows((8, 1.0, None)))
    folder.drop("4-integers", PLAIN[4].with_columns(pl.col("amount").cast(pl.Int32)))
    folder.drop("4-without", PLAIN[4].drop("amount"))
    folder.drop("5-too-large", rows((5, 1.0, 300.0)))
    folder.drop("5-far-ahead", rows((5, 90_000.0, 3.0)))
    folder.drop("6-no-time", PLAIN[6].with_columns(pl.col("at").cast(pl.String)))
    (folder.events / "6-cut.parquet").write_bytes(b"PAR1 and nothing more PAR1")
    folder.drop("7-twice-in-one", pl.concat([PLAIN[7], PLAIN[7]]))
    folder.drop("8-wide", PLAIN[8].with_columns(user_id=pl.lit(2**60)))


def nested(folder: Project) -> None:
    for number, frame in enumerate(PLAIN):
        folder.drop(f"{number}", with_parts(frame))
    folder.drop("5-infinite", with_parts(rows((5, 1.0, float("inf")))))


def outcome(folder: Project, feature: Feature) -> dict[str, Any]:
    """All that a build says and stores, without what time and place alone decide."""
    result = folder.build(feature)
    manifest = folder.store.manifest("spend", result.manifest.version)  # type: ignore[union-attr, arg-type]
    books = folder.store.books("spend")
    sources = [source._replace(mtime=0) for source in manifest.sources]
    states = folder.store.file_states("spend")
    return {
        "manifest": to_json(replace(manifest, created_at=0, sources=tuple(sources))),
        "quarantine": [replace(bad, since=0) for bad in result.quarantined],
        "books": {path: (bad.reason, bad.memo) for path, bad in books.quarantine.items()},
        "warnings": [warning.partition(" is ")[0] for warning in result.warnings],
        "read": result.files_read,
        "states": {path: (s.hash, s.rows, s.shape, s.good) for path, s in states.items()},
        "events": [
            frame.rows() for p in manifest.partials for frame in [events_of(folder, p.hash)]
        ],
        "rows": folder.store.read("spend").rows(),
    }


def events_of(folder: Project, hash_: str) -> pl.DataFrame:
    [place] = folder.store.locate("spend", [hash_])
    frames = read_file(place)
    return frames[place.number or 0] if len(frames) > 1 else frames[0]


@pytest.mark.parametrize("files", [mixed, nested])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"function": above_zero},
        {"function": strict},
        {"function": as_it_is, "incremental": True},
        {"validators": {"amount": [v.in_range(-5, 200, on_fail="drop")]}},
        {"validators": {"at": [v.unique(on_fail="drop")]}},
        {"validators": {"amount": [v.not_null(), v.less_than(250)]}, "function": as_it_is},
    ],
)
def test_files_taken_together_give_what_each_gives_alone(
    files: Callable[[Project], None],
    changes: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes, together = [], []
    finish = Transform.finish_together

    def counted(transform: Transform, returned: list[pl.DataFrame]) -> pl.DataFrame | None:
        events = finish(transform, returned)
        together.append(0 if events is None else len(returned))
        return events

    monkeypatch.setattr(Transform, "finish_together", counted)
    monkeypatch.setattr(small_files, "_FEW_FILES", 1)
    for most in (1, 4, 256):
        monkeypatch.setattr(small_files, "_MOST_FILES", most)
        folder = Project(tmp_path / str(most))
        files(folder)
        arguments = {"function": identity, **changes}
        outcomes.append(outcome(folder, folder.define(**arguments)))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert outcomes[0]["manifest"]["partials"]
    of_each = "unique" in str(changes)  # what is unique in each file is not so in all
    assert of_each or max(together) > 1


def divided(df: pl.DataFrame) -> pl.DataFrame:
    by = pl.when(pl.col("user_id") < 30).then(pl.col("amount") / 237)
    return df.select("user_id", "at", by.otherwise(pl.col("amount") / pl.col("parts")))


def divided_and_filtered(df: pl.DataFrame) -> pl.DataFrame:
    return divided(df.filter(pl.col("user_id") != 3))


@pytest.mark.parametrize("function", [divided, divided_and_filtered])
def test_a_row_means_the_same_whatever_rows_its_file_has_and_with_which_it_is_taken(
    function: Callable[[pl.DataFrame], pl.DataFrame],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """polars divides a lone row by a number, and several, or all by one value, through its reciprocal."""
    monkeypatch.setattr(small_files, "_FEW_FILES", 1)
    each = [
        rows((user, user / 10, user * 0.37 + 1)).with_columns(parts=pl.Series([49]))
        for user in range(60)
    ]
    values = []
    for most, frames in ((1, each), (256, each), (256, [pl.concat(each)])):
        monkeypatch.setattr(small_files, "_MOST_FILES", most)
        folder = Project(tmp_path / str(len(values)))
        for number, frame in enumerate(frames):
            folder.drop(f"{number:02}", frame)
        events = outcome(folder, folder.define(function))["events"]
        values.append(sorted(row for file in events for row in file))
    assert values[0] == values[1] == values[2]
    assert len(values[0]) == (60 if function is divided else 59)


def test_what_is_wrong_with_a_lone_row_is_told_of_one_row(tmp_path: Path) -> None:
    def numbers(df: pl.DataFrame) -> pl.DataFrame:
        return df.with_columns(pl.col("amount").cast(pl.Float64))

    folder = Project(tmp_path)
    folder.drop("good", rows((1, 0.0, 1.0)).cast({"amount": pl.String}))
    folder.drop("bad", rows((2, 0.0, 1.0)).with_columns(amount=pl.lit("much")))
    [bad] = folder.build(folder.define(numbers)).quarantined
    assert "1 out of 1 values" in bad.reason


def test_a_plan_of_a_function_that_is_not_proven_gives_few_rows_the_bits_that_they_have_in_memory(
    tmp_path: Path,
) -> None:
    def lazily(df: pl.DataFrame) -> pl.LazyFrame:
        return df.lazy().with_columns(pl.col("amount") / 237)

    folder = Project(tmp_path)
    frames = [
        rows(*[(user, user / 10, user * 0.37 + 1) for user in range(first, first + 2)])
        for first in range(0, 60, 2)
    ]
    for number, frame in enumerate(frames):
        folder.drop(f"{number:02}", frame)
    events = outcome(folder, folder.define(lazily, incremental=True))["events"]
    in_memory = [lazily(frame).collect(engine="in-memory").rows() for frame in frames]
    assert sorted(chain(*events)) == sorted(chain(*in_memory))


@pytest.mark.parametrize("files", [mixed, nested])
def test_files_that_processes_read_give_what_they_give_read_here(
    files: Callable[[Project], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes, asked = [], list[int]()
    ask = ReadingProcess.ask

    def noted(process: ReadingProcess, some: Sequence[SourceFile], most: int | None) -> bool:
        asked.append(len(some))
        return ask(process, some, most)

    monkeypatch.setattr(ReadingProcess, "ask", noted)
    for least in (1_000, 1):
        monkeypatch.setattr(read_ahead, "_VERY_MANY_FILES", least)
        folder = Project(tmp_path / str(least))
        files(folder)
        outcomes.append(outcome(folder, folder.define(function=identity)))
        assert bool(asked) == (least == 1)
    assert outcomes[0] == outcomes[1]
    count = len(asked)
    folder.drop("9-new", PLAIN[3])
    folder.build(folder.define(function=identity))
    assert len(asked) == count, "by processes only at first"


def test_a_proven_function_is_called_once_for_many_small_files_and_once_each_where_it_leaves_rows_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    monkeypatch.setattr(transform, "collected", _heard(calls, transform.collected))
    monkeypatch.setattr(transform, "collected_each", _heard(calls, transform.collected_each))
    for function, expected in ((identity, [27]), (above_zero, [27, 9])):
        folder = Project(tmp_path / function.__name__)
        for number, frame in enumerate(PLAIN):
            folder.drop(f"{number}", frame)
        calls.clear()
        folder.build(folder.define(function=function))
        assert calls == expected


def _heard(sizes: list[int], call: Callable[..., Any]) -> Callable[..., Any]:
    """The call, with the size of what the function is given noted: rows of one frame, or a number of frames."""

    def heard(function: object, rows: Any, *further: object) -> Any:
        sizes.append(len(rows) if isinstance(rows, list) else rows.collect().height)
        return call(function, rows, *further)

    return heard


@pytest.mark.slow
def test_builds_leave_pandas_alone_which_takes_longer_to_import_than_they_do(
    tmp_path: Path,
) -> None:
    code = """
import sys
from pathlib import Path

from tests.contracts.test_small_files import PLAIN, with_parts
from tests.support.projects import Project

folder = Project(Path(sys.argv[1]))
for number, frame in enumerate(PLAIN):
    folder.drop(f"{number}", with_parts(frame).drop("kind"))
feature = folder.define(function=lambda df: df)
folder.build(feature)
folder.drop("0", with_parts(PLAIN[1]).drop("kind"))
assert folder.build(feature).changed
assert folder.store.read("spend").height
print("pandas" in sys.modules)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.splitlines()[-1] == "False"
