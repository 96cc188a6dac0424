"""What a source gives a feature: files read once, bad ones set aside, the rest built."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import structlog
from structlog.testing import capture_logs

import mlforge.validators as v
from mlforge import Feature
from mlforge.build.refresh import BuildResult, Options
from mlforge.core import clock
from mlforge.core.values import to_us
from mlforge.errors import (
    BuildError,
    ColumnNotFound,
    DefinitionError,
    FunctionError,
    UnreadableFile,
    ValidationError,
)
from mlforge.ingest.pipeline import ingest
from mlforge.metrics import Rolling
from mlforge.sources.file_bytes import NotReadNow
from mlforge.sources.source_reading import SourceReading
from mlforge.store import LocalStore
from mlforge.store.manifest_json import to_json
from tests.support.projects import START, Project, at, column, identity, rows

_opened: list[str] = []


def _note_opening(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        _opened.append(os.fsdecode(arguments[0]))


sys.addaudithook(_note_opening)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    """What is logged, whatever was configured before."""
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.reset_defaults()
    with capture_logs() as found:
        yield found
    structlog.reset_defaults()
    if before is not None:
        structlog.configure(**before)


def settle(path: Path) -> None:
    """Wait until the file's times are so old that the next change must show in them."""
    while time.time_ns() - path.stat().st_ctime_ns < 60_000_000:
        time.sleep(0.005)


def opened(path: Path, during: Callable[[], BuildResult]) -> tuple[int, BuildResult]:
    """How often a file is opened while something runs, and what that gives."""
    _opened.clear()
    result = during()
    return _opened.count(str(path)), result


def quarantined(project: Project) -> dict[str, str]:
    return {path: bad.reason for path, bad in project.store.books("spend").quarantine.items()}


def users(project: Project) -> list[int]:
    return sorted(project.store.read("spend")["user_id"].unique())


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


# -- files that are known are not read


def test_a_file_that_did_not_change_is_not_even_opened(project: Project) -> None:
    path = project.drop("a", rows((1, 0, 1.0)))
    settle(path)
    project.build()
    times, result = opened(path, project.build)
    assert (times, result.files_read, result.changed) == (0, 0, False)


def test_a_touched_file_is_hashed_and_not_decoded(project: Project) -> None:
    path = project.drop("a", rows((1, 0, 1.0)))
    project.build()
    path.touch()
    settle(path)
    times, result = opened(path, project.build)
    assert (times, result.files_read, result.changed) == (1, 0, False)
    assert opened(path, project.build)[0] == 0


def test_a_renamed_file_is_not_decoded_and_makes_no_version(project: Project) -> None:
    path = project.drop("a", rows((1, 0, 1.0)))
    project.build()
    path.rename(path.with_name("b.parquet"))
    result = project.build()
    assert (result.files_read, result.changed, result.version) == (0, False, "1.0.0")
    assert list(project.store.file_states("spend")) == ["b.parquet"]


def test_a_copy_counts_twice_and_is_not_decoded(project: Project) -> None:
    path = project.drop("a", rows((1, 0, 1.0)))
    project.build()
    path.with_name("b.parquet").write_bytes(path.read_bytes())
    result = project.build()
    assert (result.files_read, result.version) == (0, "1.0.1")
    assert column(project.store.read("spend"), "amount__sum__2d") == [2.0]


def test_a_rewrite_of_the_same_size_and_mtime_is_seen_however_soon_it_comes(
    project: Project,
) -> None:
    def rewrite(amount: float) -> Path:
        path = project.events / "a.parquet"
        rows((1, 0, amount)).write_parquet(path, compression="uncompressed", statistics=False)
        os.utime(path, ns=(10**18, 10**18))
        return path

    sizes = set()
    for amount in map(float, range(1, 16)):
        path = rewrite(amount)
        sizes.add(path.stat().st_size)
        if amount > 10:
            settle(path)
        project.build()
        assert column(project.store.read("spend"), "amount__sum__2d") == [amount]
    assert len(sizes) == 1, "else this test says nothing"


def test_the_lineage_of_a_touched_file_keeps_its_rows(project: Project) -> None:
    path = project.drop("a", rows((1, 0, 1.0), (2, 0, 1.0)))
    project.build(project.define(incremental=False))
    path.touch()
    metrics = [Rolling("1d", {"amount": "max"})]
    result = project.build(project.define(incremental=False, metrics=metrics))
    assert (result.files_read, result.version) == (0, "2.0.0")
    assert [source.rows for source in project.store.read_metadata("spend").sources] == [2]


# -- bad files are set aside


def checked(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", pl.col("amount").cast(pl.Float64))


def lacking(name: str) -> Callable[[Path], None]:
    return lambda path: rows((9, 0, 1.0)).drop(name).write_parquet(path)


def retyped(name: str, dtype: Any) -> Callable[[Path], None]:
    return lambda path: rows((9, 0, 1.0)).with_columns(pl.col(name).cast(dtype)).write_parquet(path)


def worded(path: Path) -> None:
    rows((9, 0, 1.0)).with_columns(amount=pl.lit("much")).write_parquet(path)


def cut(path: Path) -> None:
    rows((9, 0, 1.0)).write_parquet(path)
    truncated(path)


def overwritten(path: Path) -> None:
    rows(*((9, day, 1.0) for day in range(500))).write_parquet(path)
    content = bytearray(path.read_bytes())
    content[100:-300] = b"\xff" * (len(content) - 400)
    path.write_bytes(content)


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (lambda path: path.write_bytes(b"") and None, "is empty"),
    "text": (lambda path: path.write_text("user_id,at\n") and None, "not begin with PAR1"),
    "truncated": (cut, "does not end with PAR1"),
    "damaged": (overwritten, "cannot be decoded"),
    "refused by a validator": (
        lambda path: rows((9, 0, -1.0)).write_parquet(path),
        "amount: greater_than(0) fails in 1 of 1 rows (-1.0)",
    ),
    "a missing column": (lacking("amount"), "amount"),
    "a missing key": (lacking("user_id"), "user_id"),
    "a retyped key": (
        retyped("user_id", pl.String),
        "column 'user_id' is String, in the other files it is Int64",
    ),
    "a float key": (retyped("user_id", pl.Float64), "cast(pl.Int64)"),
    "a text for a time": (retyped("at", pl.String), "str.to_datetime('%Y-"),
    "a failing function": (worded, "its function failed on m.parquet"),
    "a time out of range": (
        lambda path: (
            rows((9, 0, 1.0)).with_columns(at=pl.lit(2**62).cast(pl.Datetime)).write_parquet(path)
        ),
        "between the years 1 and 9999",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_set_aside_once_and_tried_again_when_it_changes(
    kind: str, project: Project
) -> None:
    spoil, reason = BAD[kind]
    feature = project.define(checked, validators={"amount": v.greater_than(0)})
    bad = project.events / "m.parquet"
    project.drop("a", rows((1, 0, 1.0)))
    project.drop("z", rows((2, 0, 2.0)))
    spoil(bad)
    first = project.build(feature)
    assert (first.version, [q.path for q in first.quarantined]) == ("1.0.0", ["m.parquet"])
    assert reason in first.quarantined[0].reason
    assert quarantined(project) == {"m.parquet": first.quarantined[0].reason}
    assert users(project) == [1, 2]
    assert project.store.read_metadata("spend").rowwise, "one bad file is no fault of the function"

    project.drop("b", rows((3, 0, 3.0)))
    second = project.build(feature)
    assert (second.version, second.files_read) == ("1.0.1", 1), "the bad file is not read again"
    assert second.quarantined == first.quarantined

    rows((9, 0, 9.0)).write_parquet(bad)
    mended = project.build(feature)
    assert (mended.files_read, mended.quarantined, quarantined(project)) == (1, (), {})
    assert users(project) == [1, 2, 3, 9]


def test_a_bad_file_is_tried_again_when_the_code_changes(project: Project) -> None:
    project.drop("a", rows((1, 0, 1.0)))
    worded(project.events / "b.parquet")
    assert len(project.build(project.define(checked)).quarantined) == 1

    def lenient(df: pl.DataFrame) -> pl.DataFrame:
        return df.select("user_id", "at", pl.col("amount").cast(pl.Float64, strict=False))

    result = project.build(project.define(lenient))
    assert (result.quarantined, result.bump) == ((), "minor")
    assert users(project) == [1, 9]


def test_a_bad_file_is_tried_again_when_the_validators_change(project: Project) -> None:
    project.drop("a", rows((1, 0, 1.0)))
    project.drop("b", rows((2, 0, -1.0)))
    assert len(project.build(project.define(validators={"amount": v.greater_than(0)})).quarantined)
    assert project.build(project.define(validators={"amount": v.not_null()})).quarantined == ()
    assert users(project) == [1, 2]


@pytest.mark.parametrize("are_lost", [False, True], ids=["", "states of files are lost"])
def test_a_good_file_replaced_by_a_bad_one_keeps_its_last_good_content(
    project: Project, are_lost: bool
) -> None:
    project.drop("a", rows((1, 0, 1.0)))
    path = project.drop("b", rows((2, 0, 2.0)))
    project.build()
    truncated(path)
    if are_lost:
        (project.root / "store/spend/_sources.json").unlink()
    result = project.build()
    assert (result.changed, [q.path for q in result.quarantined]) == (False, ["b.parquet"])
    project.drop("c", rows((3, 0, 3.0)))
    assert project.build().rows_changed == 1
    assert users(project) == [1, 2, 3]
    latest = project.store.read_metadata("spend")
    assert [source.path for source in latest.sources] == ["a.parquet", "b.parquet", "c.parquet"]
    path.unlink()
    project.build()
    assert users(project) == [1, 3]
    assert quarantined(project) == {}


def test_a_last_good_content_that_later_metrics_cannot_take_counts_no_more(
    project: Project,
) -> None:
    project.drop("a", rows((1, 0, 1.0)).with_columns(tip=1.0))
    bad = [
        project.drop("b", rows((2, 0, 2.0))),
        project.drop("c", rows((3, 0, 3.0)).with_columns(tip=pl.lit("none"))),
    ]
    project.build(project.define(as_they_are))
    for path in bad:
        truncated(path)
    project.build(project.define(as_they_are))
    assert users(project) == [1, 2, 3]
    project.build(project.define(as_they_are, metrics=[Rolling("2d", {"tip": "sum"})]))
    assert quarantined(project).keys() == {"b.parquet", "c.parquet"}
    assert users(project) == [1]


@pytest.mark.parametrize("incremental", [None, False])
def test_a_file_that_cannot_be_read_now_keeps_its_last_good_content_however_often_it_is_tried(
    incremental: bool | None, project: Project
) -> None:
    feature = project.define(incremental=incremental)
    project.drop("a", rows((1, 0, 1.0)))
    path = project.drop("b", rows((2, 0, 2.0)))
    project.build(feature)
    with path.open("wb") as being_written:
        being_written.write(b"PAR1")
        being_written.flush()
        for _ in range(3):
            result = project.build(feature)
            assert (result.changed, [q.path for q in result.quarantined]) == (False, ["b.parquet"])
        assert users(project) == [1, 2]
    project.drop("b", rows((2, 0, 2.0), (3, 0, 3.0)))
    assert project.build(feature).quarantined == ()
    assert users(project) == [1, 2, 3]


def test_a_file_whose_bytes_cannot_be_read_for_a_moment_is_tried_again_as_it_is(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.drop("a", rows((1, 0, 1.0)))
    project.build()
    project.drop("b", rows((2, 0, 2.0)))

    def fails(*_: Any, **__: Any) -> None:
        raise NotReadNow("b.parquet: the disk does not answer")

    with monkeypatch.context() as disk:
        disk.setattr(SourceReading, "read", fails)
        assert [q.path for q in project.build().quarantined] == ["b.parquet"]
    assert project.build().quarantined == ()
    assert users(project) == [1, 2]


@pytest.mark.parametrize("incremental", [None, False])
def test_a_content_that_was_outvoted_does_not_stand_in_for_the_bad_one_after_it(
    incremental: bool | None, project: Project
) -> None:
    feature = project.define(incremental=incremental)
    outvoted = project.drop("a", rows((1, 0, 1.0), (1, 1, 1.0)))
    replaced = project.drop("b", rows((2, 0, 2.0)))
    project.build(feature)
    truncated(replaced)
    for name in "cde":
        project.drop(name, rows((3, 0, 1.0)).with_columns(pl.col("amount") > 0))
    assert sorted(q.path for q in project.build(feature).quarantined) == ["a.parquet", "b.parquet"]
    truncated(outvoted)
    project.build(feature)
    replaced.unlink()
    assert [q.path for q in project.build(feature).quarantined] == ["a.parquet"]
    assert users(project) == [3]


def test_a_last_good_content_is_none_of_another_function(project: Project) -> None:
    project.drop("a", rows((1, 0, 1.0)))
    path = project.drop("b", rows((2, 0, 2.0)))
    project.build()
    truncated(path)
    doubled = pl.col("amount") * 2
    project.build(project.define(lambda df: df.select("user_id", "at", doubled)))
    assert users(project) == [1]


def test_a_last_good_content_that_no_longer_fits_counts_no_more(project: Project) -> None:
    feature = project.define(metrics=[])
    truncated_later = project.drop("a", rows((1, 0, 1.0)))
    project.build(feature)
    truncated(truncated_later)
    for name in "bc":
        project.drop(name, rows((2, 0, 1.0)).with_columns(amount=pl.lit("one")))
    assert [q.path for q in project.build(feature).quarantined] == ["a.parquet"]
    assert users(project) == [2]


def test_when_every_file_turns_bad_the_last_version_is_served(project: Project) -> None:
    paths = [project.drop(name, rows((n, 0, 1.0))) for n, name in enumerate("ab")]
    project.build()
    for path in paths:
        truncated(path)
    result = project.build()
    assert (result.version, result.changed, len(result.quarantined)) == ("1.0.0", False, 2)
    assert users(project) == [0, 1]


def test_a_file_that_a_new_validator_refuses_does_not_keep_its_rows(project: Project) -> None:
    project.drop("a", rows((1, 0, 1.0)))
    project.drop("b", rows((2, 0, -1.0)))
    project.build()
    result = project.build(project.define(validators={"amount": v.greater_than(0)}))
    assert [q.path for q in result.quarantined] == ["b.parquet"]
    assert users(project) == [1]


def test_files_that_go_while_they_are_read_are_no_files(project: Project) -> None:
    for name in "abc":
        project.drop(name, rows((ord(name), 0, 1.0)))
    feature = project.define()
    listing = project.definitions(feature).source("spend").scan()
    (project.events / "b.parquet").unlink()
    for incremental in (None, False):
        feature = project.define(incremental=incremental)
        with project.store.lock("spend"):
            intake = ingest(feature, listing, project.store, None, SourceReading())
        assert [record.path for record in intake.records] == ["a.parquet", "c.parquet"]
        assert (intake.quarantine, intake.errors) == ({}, ())


def test_a_file_too_large_for_memory_is_set_aside_until_the_limit_is_raised(
    project: Project,
) -> None:
    project.drop("small", rows((1, 0, 1.0)))
    project.drop("large", rows(*((2, day, 1.0) for day in range(5000))))
    definitions = project.definitions()
    for _ in range(2):
        result = definitions.refresh("spend", options=Options(max_file_memory=50_000))
        assert [q.path for q in result.quarantined] == ["large.parquet"]
        assert "raise the limit" in result.quarantined[0].reason
    assert users(project) == [1]
    assert definitions.refresh("spend").quarantined == ()
    assert users(project) == [1, 2]


def test_a_store_that_cannot_be_written_is_no_fault_of_a_file(project: Project) -> None:
    project.drop("a", rows((1, 0, 1.0)))
    blocked = Path(project.store.locate("spend", ["0"])[0].file).parent
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")
    with pytest.raises(Exception, match="_partials"):
        project.build()
    assert quarantined(project) == {}
    blocked.unlink()
    assert project.build().version == "1.0.0"


def test_a_wrong_pattern_is_no_fault_of_a_file(project: Project) -> None:
    project.drop("a", rows((1, 0, 1.0)).with_columns(amount=pl.lit("x")))
    feature = project.define(metrics=[], validators={"amount": v.matches_regex("(?P<a>x)(?=y)")})
    with pytest.raises(BuildError) as caught:
        project.build(feature)
    assert isinstance(caught.value.failures["spend"], DefinitionError)
    assert quarantined(project) == {}


def test_each_bad_file_is_reported_once(project: Project, logs: list[Any]) -> None:
    project.drop("a", rows((1, 0, 1.0)))
    worded(project.events / "b.parquet")
    cut(project.events / "c.parquet")
    lacking("at")(project.events / "d.parquet")
    for name in "xyz":
        project.drop(name, rows((1, ord(name), 1.0)))
        result = project.build(project.define(checked))
        assert [q.path for q in result.quarantined] == ["b.parquet", "c.parquet", "d.parquet"]
    told = [entry["path"] for entry in logs if entry["event"] == "quarantined"]
    assert told == ["b.parquet", "c.parquet", "d.parquet"]


@pytest.mark.parametrize("incremental", [None, False])
def test_when_no_file_can_be_used_one_error_says_so_and_the_books_list_them(
    incremental: bool | None, project: Project
) -> None:
    for name in "abc":
        cut(project.events / f"{name}.parquet")
    for _ in range(2):
        with pytest.raises(BuildError) as caught:
            project.build(project.define(incremental=incremental))
        assert str(caught.value).count("\n") == 1
        assert "a.parquet: is unfinished or cut off" in str(caught.value)
        assert "and 2 more files" in str(caught.value)
        assert list(quarantined(project)) == ["a.parquet", "b.parquet", "c.parquet"]
    assert project.store.features() == []


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (cut, UnreadableFile),
        (lacking("user_id"), ColumnNotFound),
        (worded, FunctionError),
        (lambda path: rows((9, 0, None)).write_parquet(path), ValidationError),
    ],
)
def test_the_error_of_a_source_with_one_bad_file_is_that_files(
    spoil: Callable[[Path], None], kind: type[Exception], project: Project
) -> None:
    spoil(project.events / "a.parquet")
    with pytest.raises(BuildError) as caught:
        project.build(project.define(checked, validators={"amount": v.not_null()}))
    assert type(caught.value.failures["spend"]) is kind


# -- files that fit together


def as_they_are(df: pl.DataFrame) -> pl.DataFrame:
    return df


def test_which_files_fit_does_not_depend_on_the_order_in_which_they_came(tmp_path: Path) -> None:
    frames = {
        "a": rows((1, 0, 1.0)),
        "b": rows((2, 0, 1.0)).with_columns(pl.col("amount") > 0),
        "c": rows((3, 0, 1.0), (3, 1, 1.0)),
        "d": rows((4, 0, 1.0)).with_columns(pl.col("amount") > 0),
    }
    found = set()
    for number, order in enumerate(itertools.permutations(frames)):
        if number % 3:
            continue
        project = Project(tmp_path / str(number))
        for name in order:
            project.drop(name, frames[name])
            project.build()
        meta = project.store.read_metadata("spend")
        found.add((meta.rows_hash, tuple(sorted(quarantined(project).items()))))
        assert users(project) == [1, 3], "as many files, but more rows"
    assert len(found) == 1


def test_a_file_set_aside_for_its_schema_returns_when_most_files_are_like_it(
    project: Project,
) -> None:
    old = rows((1, 0, 1.0)).with_columns(pl.col("amount") > 0)
    project.drop("a", rows((9, 0, 1.0)))
    project.drop("b", old)
    project.drop("c", old)
    assert [q.path for q in project.build().quarantined] == ["a.parquet"]
    project.drop("d", rows((2, 0, 1.0), (2, 1, 1.0), (2, 2, 1.0)))
    result = project.build()
    assert ([q.path for q in result.quarantined], result.bump) == (
        ["b.parquet", "c.parquet"],
        "major",
    )
    assert users(project) == [2, 9]


@pytest.mark.parametrize("incremental", [None, False])
def test_a_file_set_aside_because_of_others_is_judged_anew_when_those_go(
    incremental: bool | None, project: Project, tmp_path: Path
) -> None:
    """As a rebuild would, also where the source as it is now was read before."""
    feature = project.define(incremental=incremental)
    other = rows((1, 0, 1.0)).with_columns(pl.col("amount") > 0)
    project.drop("a", other)
    project.build(feature)
    project.drop("b", other)
    project.drop("c", rows((2, 0, 1.0), (3, 0, 1.0)))
    [aside] = project.build(feature).quarantined
    assert (aside.path, users(project)) == ("c.parquet", [1])
    assert project.build(feature).files_read == 0
    (project.events / "b.parquet").unlink()
    [after] = project.build(feature).quarantined
    assert (after.path, users(project)) == ("a.parquet", [2, 3])
    fresh = project.on(LocalStore(tmp_path / "fresh"))
    assert [each.path for each in fresh.build(feature).quarantined] == ["a.parquet"]
    assert fresh.store.read("spend").equals(project.store.read("spend"))


def test_a_file_set_aside_because_of_others_keeps_since_when(project: Project) -> None:
    other = rows((1, 0, 1.0)).with_columns(pl.col("amount") > 0)
    for name in "abd":
        project.drop(name, other)
    project.drop("c", rows((2, 0, 1.0)))
    feature = project.define(incremental=False)
    [first] = project.build(feature).quarantined
    (project.events / "d.parquet").unlink()
    [second] = project.build(feature).quarantined
    assert (second.path, second.since) == ("c.parquet", first.since)
    assert second.memo != first.memo


def test_columns_are_the_union_over_files_in_whatever_order_files_have_them(
    project: Project,
) -> None:
    feature = project.define(as_they_are, metrics=[])
    project.drop("a", rows((1, 0, 1.0)))
    project.drop("b", rows((2, 0, 2.0)))
    project.build(feature)
    project.drop("c", rows((3, 0, 3.0)).with_columns(note=pl.lit("new")))
    project.drop("d", rows((4, 0, 4.0)).select("amount", "at", "user_id"))
    result = project.build(feature)
    assert (result.bump, result.reason, result.quarantined) == ("minor", "added_columns", ())
    stored = project.store.read("spend")
    assert stored.columns == ["user_id", "at", "amount", "note"]
    assert stored.sort("user_id")["amount"].to_list() == [1.0, 2.0, 3.0, 4.0]
    assert stored.sort("user_id")["note"].to_list() == [None, None, "new", None]
    summary = project.store.read_metadata("spend").change
    assert summary is not None
    assert summary.evidence["files_lacking"] == {"note": 3}

    (project.events / "c.parquet").unlink()
    result = project.build(feature)
    assert (result.bump, result.reason) == ("major", "columns_removed")


def test_files_that_gain_a_column_do_not_outvote_those_of_before(project: Project) -> None:
    feature = project.define(as_they_are)
    for day, name in enumerate("abc"):
        project.drop(name, rows((1, day, 1.0)))
    project.build(feature)
    for day, name in enumerate("defgh", 3):
        project.drop(name, rows((1, day, 1.0)).with_columns(channel=pl.lit("web")))
        result = project.build(feature)
        assert (result.quarantined, result.rows) == ((), day + 1)


WIDER = [
    (pl.Int32, pl.Int64, pl.Int64),
    (pl.UInt8, pl.Int8, pl.Int16),
    (pl.UInt32, pl.Int32, pl.Int64),
    (pl.Float32, pl.Float64, pl.Float64),
    (pl.Int16, pl.Float32, pl.Float32),
    (pl.Int32, pl.Float32, pl.Float64),
    (pl.Int64, pl.Float64, pl.Float64),
    (pl.UInt64, pl.Int8, pl.Int64),
    (pl.Decimal(10, 2), pl.Decimal(12, 2), pl.Decimal(12, 2)),
    (pl.Decimal(10, 2), pl.Decimal(8, 4), pl.Decimal(12, 4)),
    (pl.Int32, pl.Decimal(10, 2), pl.Decimal(12, 2)),
]


@pytest.mark.parametrize(("first", "second", "both"), WIDER)
@pytest.mark.parametrize("incremental", [None, False])
def test_a_column_takes_the_least_dtype_that_holds_that_of_all_files(
    first: Any, second: Any, both: Any, incremental: bool | None, tmp_path: Path
) -> None:
    frames = {
        name: rows((number, 0, 7.0)).with_columns(pl.col("amount").cast(dtype))
        for number, (name, dtype) in enumerate({"a": first, "b": second}.items())
    }
    for order in ("ab", "ba"):
        project = Project(tmp_path / order)
        feature = project.define(metrics=[], incremental=incremental)
        for name in order:
            project.drop(name, frames[name])
            result = project.build(feature)
        assert result.quarantined == ()
        stored = project.store.read("spend")
        assert stored.schema["amount"] == both
        assert stored["amount"].cast(pl.Float64).to_list() == [7.0, 7.0]


@pytest.mark.parametrize("integer", [2**53 + 1, -(2**53) - 1, 2**63 - 1])
def test_integers_that_no_float_holds_are_never_rounded(integer: int, project: Project) -> None:
    ids = pl.DataFrame({"user_id": [1], "at": [at(0)], "amount": [integer]})
    project.drop("a", ids)
    project.drop("b", rows((2, 0, 1.5)))
    project.drop("c", rows((3, 0, 1.5)))
    result = project.build(project.define(metrics=[]))
    [bad] = result.quarantined
    assert bad.path == "a.parquet"
    assert "pl.col('amount').cast(pl.Float64)" in bad.reason
    assert project.store.read("spend")["user_id"].to_list() == [2, 3]


def test_a_column_that_no_metric_reads_sets_no_file_aside(project: Project) -> None:
    feature = project.define(as_they_are)
    project.drop("a", rows((1, 0, 1.0)).with_columns(note=pl.lit("text")))
    project.drop("b", rows((1, 1, 1.0)).with_columns(note=pl.lit(7)))
    project.drop("c", rows((1, 2, 1.0)).with_columns(note=pl.lit(True)))
    result = project.build(feature)
    assert (result.quarantined, result.rows) == ((), 3)


def test_a_required_column_is_needed_whatever_metrics_name(project: Project) -> None:
    """A file without it, or in a dtype that goes with no other's, is set aside; one without a value is not."""
    project.drop("a", rows((1, 0, 1.0)).with_columns(note=pl.lit("text")))
    project.drop("b", rows((2, 0, 1.0)))
    project.drop("c", rows((3, 0, 1.0)).with_columns(note=pl.lit(None)))
    project.drop("d", rows((4, 0, 1.0)).with_columns(note=pl.lit("text")))
    project.drop("e", rows((5, 0, 1.0)).with_columns(note=pl.lit(7)))
    project.drop("f", rows().with_columns(amount=pl.lit(None, pl.Float64)))
    project.build(project.define(as_they_are, validators={"note": v.required()}))
    assert users(project) == [1, 3, 4]
    assert quarantined(project).keys() == {"b.parquet", "e.parquet"}
    assert "no column 'note'; there are amount, at, user_id" in quarantined(project)["b.parquet"]
    project.build(project.define(as_they_are))
    assert (users(project), quarantined(project)) == ([1, 2, 3, 4, 5], {})


def test_a_rule_about_a_column_that_some_files_lack_sets_none_of_them_aside(
    project: Project,
) -> None:
    project.drop("a", rows((1, 0, 1.0)))
    project.drop("b", rows((2, 0, 1.0)).with_columns(risk=pl.lit(3)))
    project.drop("c", rows((3, 0, 1.0)).with_columns(risk=pl.lit(-3)))
    project.build(project.define(as_they_are, validators={"risk": v.greater_than(0)}))
    assert users(project) == [1, 2]
    assert quarantined(project).keys() == {"c.parquet"}


@pytest.mark.parametrize("incremental", [True, False])
def test_a_rule_about_a_column_that_no_file_has_is_one_error(
    incremental: bool, project: Project
) -> None:
    project.drop("a", rows((1, 0, 1.0)))
    project.drop("b", rows((2, 0, 1.0)))
    mistyped = project.define(validators={"amuont": v.greater_than(0)}, incremental=incremental)
    with pytest.raises(
        BuildError, match="validators: no column 'amuont'; there are amount"
    ) as told:
        project.build(mistyped)
    assert isinstance(told.value.failures["spend"], ColumnNotFound)


@pytest.mark.parametrize(
    "note",
    [
        pytest.param(pl.lit([1]).alias("note"), id="list"),
        pytest.param(pl.struct(a=1).alias("note"), id="struct"),
        pytest.param(pl.duration(hours=1).alias("note"), id="duration"),
        pytest.param(pl.lit(b"a").alias("note"), id="binary"),
        pytest.param(pl.lit(1).alias("__index_level_0__"), id="name"),
        pytest.param(pl.lit(2**100, pl.Int128).alias("note"), id="Int128"),
        pytest.param(pl.lit(2**60).cast(pl.Datetime("ms")).alias("note"), id="far milliseconds"),
        pytest.param(
            pl.lit(-(2**60)).cast(pl.Datetime("ms")).alias("note"), id="early milliseconds"
        ),
    ],
)
def test_a_column_that_no_feature_can_hold_is_no_fault_where_no_metric_reads_it(
    note: pl.Expr, project: Project
) -> None:
    feature = project.define(as_they_are)
    project.drop("a", rows((1, 0, 1.0)).with_columns(note=pl.lit(7)))
    project.drop("b", rows((2, 0, 1.0)).with_columns(note))
    result = project.build(feature)
    assert (result.quarantined, users(project)) == ((), [1, 2])
    project.events.joinpath("b.parquet").unlink()
    project.drop("b", rows((2, 0, 1.0)))
    made = project.define(lambda df: df.with_columns(note), name="made")
    assert (project.build(made).quarantined, project.build(made).rows) == ((), 2)


@pytest.mark.parametrize("incremental", [None, False])
@pytest.mark.parametrize("metrics", [[], [Rolling("2d", {"note": ["count", "sum"]})]])
def test_files_that_give_several_dtypes_to_a_column_without_a_value_go_together(
    metrics: list[Rolling], incremental: bool | None, project: Project
) -> None:
    for number, dtype in enumerate([pl.String(), pl.Int8(), pl.Null()]):
        note = pl.lit(None, dtype).alias("note")
        project.drop(str(number), rows((number, 0, 1.0)).with_columns(note))
    project.build(project.define(as_they_are, metrics=metrics, incremental=incremental))
    assert (users(project), quarantined(project)) == ([0, 1, 2], {})


def test_a_file_that_went_and_comes_back_takes_the_dtypes_that_others_have_by_now(
    project: Project,
) -> None:
    feature = project.define(as_they_are, metrics=[])
    gone = rows((1, 0, 1.0)).with_columns(note=pl.lit(None, pl.Int8))
    project.drop("a", gone)
    project.build(feature)
    project.events.joinpath("a.parquet").unlink()
    project.drop("b", rows((2, 0, 1.0)).with_columns(note=pl.lit("text")))
    project.build(feature)
    project.drop("c", gone)
    project.build(feature)
    assert (users(project), quarantined(project)) == ([1, 2], {})


def test_a_file_that_lacks_what_later_metrics_need_is_set_aside_as_by_a_rebuild(
    project: Project,
) -> None:
    """Also one all rows of which are left out; but not one without any."""
    project.drop("a", rows((1, 0, 1.0)).with_columns(note=pl.lit("x")))
    project.drop("b", rows((2, 0, 1.0)))
    project.drop("c", rows((None, 0, 1.0)))
    project.drop("d", rows())
    project.build(project.define(as_they_are))
    assert users(project) == [1, 2]
    feature = project.define(as_they_are, metrics=[Rolling("2d", {"note": ["count", "last"]})])
    for full in (False, True):
        project.build(feature, full=full)
        assert users(project) == [1]
        assert quarantined(project).keys() == {"b.parquet", "c.parquet"}


def test_an_empty_file_is_judged_by_later_metrics_as_by_a_rebuild(project: Project) -> None:
    project.drop("a", rows((1, 0, 1.0)))
    project.drop("b", rows().drop("amount").with_columns(note=pl.lit("x")))
    project.build(project.define(as_they_are))
    feature = project.define(as_they_are, metrics=[Rolling("2d", {"note": "count"})])
    for full in (False, True):
        project.build(feature, full=full)
        assert users(project) == []
        assert quarantined(project).keys() == {"a.parquet"}


@pytest.mark.parametrize("files", [1, 3])
def test_the_greatest_member_of_a_list_is_refused_also_where_events_are_stored(
    files: int, project: Project
) -> None:
    sizes = pl.Series("size", ["small", "large"], dtype=pl.Enum(["small", "large"]))
    for number in range(files):
        project.drop(f"{number}", rows((1, number, 1.0), (1, number, 2.0)).with_columns(sizes))
    counted = project.define(as_they_are, metrics=[Rolling("2d", {"size": ["count", "mode"]})])
    greatest = project.define(as_they_are, metrics=[Rolling("2d", {"size": ["count", "max"]})])
    project.build(counted)
    with pytest.raises(BuildError, match="its max could go by its order or its letters"):
        project.build(greatest)
    assert project.build(counted).quarantined == ()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Rolling("2d", {"amount": "sum"}), Rolling("2d", {"amount": "sum"}, where="note")),
        (Rolling("2d", {"note": "count"}), Rolling("2d", {"note": "mean"})),
    ],
)
def test_files_of_a_dtype_that_later_metrics_do_not_take_are_set_aside_as_by_a_rebuild(
    before: Rolling, after: Rolling, project: Project
) -> None:
    for number, note in enumerate(["x", "y", True]):
        project.drop(str(number), rows((number, 0, 1.0)).with_columns(note=pl.lit(note)))
    project.build(project.define(as_they_are, metrics=[before]))
    feature = project.define(as_they_are, metrics=[after])
    for full in (False, True):
        project.build(feature, full=full)
        assert (users(project), len(quarantined(project))) == ([2], 2)


@pytest.mark.parametrize("incremental", [True, False])
def test_of_files_that_each_have_their_way_in_one_column_some_count(
    incremental: bool, tmp_path: Path
) -> None:
    """Not one is left by a vote on each column alone."""
    whole, text = pl.lit(7), pl.lit("x")
    files = {
        "a": rows((1, 0, 1.0)).with_columns(m=whole, n=text),
        "b": rows((2, 0, 1.0)).with_columns(m=text, n=whole),
        "c": rows(),
    }
    counting = []
    for order in ("abc", "cba"):
        project = Project(tmp_path / order)
        feature = project.define(as_they_are, metrics=[], incremental=incremental)
        for name in order:
            project.drop(name, files[name])
            project.build(feature)
        assert len(quarantined(project)) == 1
        counting.append(users(project))
    assert counting[0] == counting[1]
    assert len(counting[0]) == 1


# -- columns without a value, and files without rows


def lower(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", note=pl.col("note").str.to_lowercase())


def hour(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", note=pl.col("note").dt.hour())


def rounded(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", note=pl.col("note").round(1))


def chosen(df: pl.DataFrame) -> pl.DataFrame:
    note = pl.when(pl.col("note") == "A").then(pl.lit(1)).otherwise(pl.lit(0))
    return df.select("user_id", "at", note=note)


def length(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", note=pl.col("note").list.len())


USES: list[tuple[Callable[[pl.DataFrame], pl.DataFrame], Any]] = [
    (lower, "A"),
    (hour, START),
    (rounded, 1.25),
    (chosen, "A"),
    (length, [1, 2]),
]


@pytest.mark.parametrize(("function", "value"), USES)
@pytest.mark.parametrize("dtype", [pl.Null, pl.Float64, pl.String, pl.Boolean])
def test_a_column_without_a_value_has_the_dtype_of_the_other_files(
    function: Callable[[pl.DataFrame], pl.DataFrame], value: Any, dtype: Any, tmp_path: Path
) -> None:
    blank = rows((1, 0, 1.0)).with_columns(note=pl.lit(None, dtype=dtype))
    full = rows((2, 0, 1.0)).with_columns(note=pl.Series([value]))
    tables = []
    for order in (("a", "b"), ("b", "a")):
        project = Project(tmp_path / order[0])
        feature = project.define(function, metrics=[])
        for name in order:
            project.drop(name, blank if name == "a" else full)
            with suppress(BuildError):
                result = project.build(feature)
        assert result.quarantined == ()
        tables.append(project.store.read("spend"))
        assert project.build(feature).changed is False
        assert project.build(feature).files_read == 0
    assert tables[0].equals(tables[1])
    assert tables[0].filter(user_id=2).height == 1


def test_a_column_without_a_value_follows_when_other_files_change_its_dtype(
    project: Project,
) -> None:
    feature = project.define(as_they_are, metrics=[])
    project.drop("a", rows((1, 0, 1.0)).with_columns(note=pl.lit(None, dtype=pl.Float64)))
    path = project.drop("b", rows((2, 0, 1.0)).with_columns(note=pl.lit("x")))
    project.build(feature)
    assert project.store.read("spend").schema["note"] == pl.String
    settle(path)
    project.drop("b", rows((2, 0, 1.0)).with_columns(note=pl.lit(True)))
    assert project.build(feature).quarantined == ()
    assert project.store.read("spend").schema["note"] == pl.Boolean


@pytest.mark.parametrize("incremental", [None, False])
@pytest.mark.parametrize(("function", "value"), USES[:2])
def test_files_whose_dtypes_came_from_a_file_that_is_gone_are_judged_as_by_a_rebuild(
    function: Callable[[pl.DataFrame], pl.DataFrame],
    value: Any,
    incremental: bool | None,
    project: Project,
    tmp_path: Path,
) -> None:
    """However the source came to be as it is."""
    full = rows((2, 0, 1.0)).with_columns(note=pl.Series([value]))
    blank = rows((1, 0, 1.0)).with_columns(note=pl.lit(None, dtype=pl.Float64))
    feature = project.define(function, metrics=[], incremental=incremental)
    steps = {"full": full, "blank": blank, "full gone": None, "none": blank.clear(), "again": full}
    for name, frame in steps.items():
        if frame is None:
            settle(project.events / "full.parquet")
            (project.events / "full.parquet").unlink()
        else:
            project.drop(name, frame)
        outcomes = []
        for each in (project, project.on(LocalStore(tmp_path / f"fresh after {name}"))):
            try:
                built = each.build(feature)
            except BuildError as error:
                outcomes.append([str(error)])
            else:
                table = each.store.read("spend") if built.version else blank.clear()
                outcomes.append([quarantined(each), table.to_dicts()])
        assert outcomes[0] == outcomes[1], name


@pytest.mark.parametrize("incremental", [None, True, False])
@pytest.mark.parametrize(
    "empty",
    [
        pl.DataFrame(),
        pl.DataFrame(schema={"user_id": pl.Null, "at": pl.Null, "note": pl.Null}),
        pl.DataFrame(schema={"user_id": pl.Float64, "at": pl.String, "note": pl.Int64}),
        pl.DataFrame(schema={"user_id": pl.String, "at": pl.Null, "note": pl.Boolean}),
    ],
)
def test_a_file_without_rows_is_never_bad(
    empty: pl.DataFrame, incremental: bool | None, tmp_path: Path
) -> None:
    for order in ("ab", "ba"):
        project = Project(tmp_path / order)
        feature = project.define(lower, metrics=[], incremental=incremental)
        for name in order:
            full = rows((2, 0, 1.0)).with_columns(note=pl.lit("A"))
            project.drop(name, empty if name == "a" else full)
            result = project.build(feature)
            assert result.quarantined == ()
        assert column(project.store.read("spend"), "note") == ["a"]
        assert project.store.read("spend").schema["user_id"] == pl.Int64


# -- definitions that fit no file


def typo(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", amount=pl.col("amuont"))


def listed(df: pl.DataFrame) -> pl.DataFrame:
    return df.select(pl.concat_list("user_id").alias("user_id"), "at", "amount")


def of_pandas(df: pl.DataFrame) -> Any:
    return df.lazy().collect().to_pandas()


def of_arrow(df: pl.DataFrame) -> Any:
    return df.lazy().collect().to_arrow()


def nothing(df: pl.DataFrame) -> Any:
    df.select("user_id", "at", "amount")


def generated(df: pl.DataFrame) -> Any:
    yield df


def series(df: pl.DataFrame) -> Any:
    return df.lazy().collect()["amount"]


@pytest.mark.parametrize("incremental", [None, True, False])
@pytest.mark.parametrize(
    ("function", "says"),
    [
        (typo, "amuont"),
        (listed, "key 'user_id' is List"),
        (of_pandas, "pl.from_pandas"),
        (of_arrow, "pl.from_arrow"),
        (nothing, "returned None"),
        (generated, "a generator"),
        (series, "to_frame()"),
    ],
)
def test_a_definition_that_fits_no_file_is_one_error_about_the_definition(
    function: Callable[[pl.DataFrame], Any], says: str, incremental: bool | None, project: Project
) -> None:
    for name in "abcdef":
        project.drop(name, rows((ord(name), 0, 1.0)))
    feature = project.define(function, incremental=incremental)
    with pytest.raises(BuildError) as caught:
        project.build(feature)
    assert says in str(caught.value.failures["spend"])
    assert quarantined(project) == {}
    source = project.definitions(feature).source("spend")
    assert len(ingest(feature, source.scan(), project.store, None, SourceReading()).errors) == 1


@pytest.mark.parametrize("incremental", [None, True, False])
def test_a_rule_that_does_not_go_with_its_column_in_any_file_is_one_error(
    incremental: bool | None, project: Project
) -> None:
    for name in "abc":
        project.drop(name, rows((ord(name), 0, 1.0)).with_columns(amount=pl.lit("a")))
    feature = project.define(
        incremental=incremental, metrics=[], validators={"amount": [v.in_range(0, 9)]}
    )
    with pytest.raises(BuildError, match="does not go with column 'amount', which is String"):
        project.build(feature)
    assert quarantined(project) == {}
    source = project.definitions(feature).source("spend")
    assert len(ingest(feature, source.scan(), project.store, None, SourceReading()).errors) == 1


def test_a_rule_that_goes_with_its_column_in_some_file_sets_the_others_aside(
    project: Project,
) -> None:
    for name in "abc":
        project.drop(name, rows((ord(name), 0, 1.0)).with_columns(amount=pl.lit("a")))
    project.drop("d", rows((1, 0, 1.0)))
    feature = project.define(metrics=[], validators={"amount": [v.in_range(0, 9)]})
    assert len(project.build(feature).quarantined) == 3


def test_a_function_that_fails_for_want_of_a_dtype_is_told_of_the_column_without_a_value(
    project: Project,
) -> None:
    project.drop("a", rows((1, 0, 1.0)).with_columns(note=pl.lit(None)))
    feature = project.define(lambda df: df.with_columns(pl.col("note").str.len_chars()))
    with pytest.raises(BuildError, match=r"no file has a value of 'note', .*pl.col\('note'\).cast"):
        project.build(feature)
    project.drop("b", rows((1, 1, 1.0)).with_columns(note=pl.lit("ab")))
    assert project.build(feature).quarantined == ()


def test_files_that_go_bad_together_are_set_aside_each_by_itself(project: Project) -> None:
    for name in "abc":
        project.drop(name, rows((ord(name), 0, 1.0)))
    project.build()
    for name in "abc":
        lacking("amount")(project.events / f"{name}.parquet")
    assert len(project.build().quarantined) == 3
    assert users(project) == [97, 98, 99]


def exploded(df: pl.DataFrame) -> Any:
    many = pl.int_ranges(pl.lit(200_000).repeat_by(1).list.first())
    return df.lazy().with_columns(n=many).explode("n").select("user_id", "at", "amount")


def piled(df: pl.DataFrame) -> pl.DataFrame:
    frame = df.lazy().collect().select("user_id", "at", "amount")
    return pl.concat([frame] * 200_000)


@pytest.mark.parametrize("function", [exploded, piled])
@pytest.mark.parametrize("incremental", [None, True, False])
def test_what_a_function_makes_of_a_file_is_bounded_too(
    function: Callable[[pl.DataFrame], Any], incremental: bool | None, project: Project
) -> None:
    project.drop("a", rows((1, 0, 1.0)))
    feature = project.define(function, incremental=incremental)
    source = project.definitions(feature).source("spend")
    intake = ingest(feature, source.scan(), project.store, None, SourceReading(1_000_000))
    assert "max_file_memory" in str(intake.errors[0])
    assert intake.partials == ()
    project.build(feature)  # four gigabytes will do
    assert project.store.read_metadata("spend").partials[0].rows == 200_000


LONG = {
    "text": pl.lit("a" * 100_000),
    "bytes": pl.lit(b"a" * 100_000),
    "list": pl.int_ranges(0, 12_500),
    "items of a struct": pl.struct(items=pl.int_ranges(0, 12_500), text=pl.lit("a")),
}


@pytest.mark.parametrize("incremental", [None, True, False])
@pytest.mark.parametrize("kind", list(LONG))
def test_a_long_constant_counts_once_for_each_row_that_has_it(
    kind: str, incremental: bool | None, project: Project
) -> None:
    project.drop("a", rows(*((1, hour, 1.0) for hour in range(50))))
    feature = project.define(
        lambda df: df.with_columns(LONG[kind].alias("long")), incremental=incremental, metrics=[]
    )
    source = project.definitions(feature).source("spend")
    refused = ingest(feature, source.scan(), project.store, None, SourceReading(1_000_000)).errors
    assert "makes 5,000,0" in str(refused[0])
    assert "max_file_memory" in str(refused[0])


# -- functions that look beyond a row


def ranked(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", amount=pl.col("amount").rank().over("user_id"))


def counted(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", amount=pl.lit(float(df.height)))


@pytest.mark.parametrize(("function", "why"), [(ranked, "over"), (counted, "LazyFrame")])
def test_a_function_that_is_not_proven_row_wise_sees_the_whole_source(
    function: Callable[[pl.DataFrame], pl.DataFrame], why: str, project: Project
) -> None:
    drops = {name: rows((1, n, float(n)), (2, n, float(-n))) for n, name in enumerate("abc")}
    feature = project.define(function, metrics=[])
    for count, (name, frame) in enumerate(drops.items(), 1):
        project.drop(name, frame)
        result = project.build(feature)
        assert result.mode == "full"
        expected = function(pl.concat(list(drops.values())[:count]))
        assert project.store.read("spend").equals(expected.sort("at", "user_id", "amount"))
    latest = project.store.read_metadata("spend")
    assert (latest.rowwise, len(latest.partials)) == (False, 1)
    source = project.definitions(feature).source("spend")
    assert why in ingest(feature, source.scan(), project.store, None, SourceReading()).why
    assert "row-wise" in result.mode_reason
    assert project.build(feature).files_read == 0


@pytest.mark.parametrize("incremental", [True, False], ids=["by file", "as one"])
def test_files_that_differ_in_zones_units_and_categories_go_together_however_they_are_read(
    incremental: bool, project: Project
) -> None:
    frame = rows((1, 0, 1.0)).with_columns(
        text=pl.lit("x"), on=pl.col("at"), all=pl.concat_list("at")
    )
    times = pl.col("at", "on")
    naive = times.dt.replace_time_zone(None)
    forms = {
        "a": [],
        "b": [times.dt.convert_time_zone("Asia/Kolkata"), pl.col("text").cast(pl.Categorical)],
        "c": [naive.dt.cast_time_unit("ns"), pl.col("all").list.eval(pl.element().dt.cast_time_unit("ms"))],
        "d": [pl.col("at").dt.date(), pl.col("text").cast(pl.Enum(["x", "y"]))],
    }  # fmt: skip
    for name, form in forms.items():
        project.drop(name, frame.with_columns(form))
    feature = project.define(lambda df: df, incremental=incremental, metrics=[])
    assert project.build(feature).quarantined == ()
    assert project.store.read("spend").equals(pl.concat([frame] * 4))


def test_a_zone_that_all_files_have_is_what_a_function_sees_of_the_whole_source(
    project: Project,
) -> None:
    there = pl.col("at").dt.convert_time_zone("Asia/Kolkata")
    for name, frame in {"a": rows((1, 0, 1.0)), "b": rows((2, 0, None))}.items():
        project.drop(name, frame.with_columns(there))
    project.drop("c", rows((3, None, 1.0)).with_columns(pl.col("at").dt.replace_time_zone(None)))

    def by_hour(df: pl.DataFrame) -> pl.DataFrame:
        return df.with_columns(amount=pl.col("at").dt.hour().cast(pl.Float64))

    project.build(project.define(by_hour, incremental=False, metrics=[]))
    assert project.store.read("spend")["amount"].to_list() == [5.0, 5.0]


def distinct(df: Any) -> Any:
    return df.unique().select("user_id", "at", "amount")


def flagged(df: Any) -> Any:
    return df.unique().filter(~pl.col("flag")).select("user_id", "at", "amount")


@pytest.mark.parametrize(
    ("function", "having", "counted", "is_told"),
    [(distinct, "c", [1, 2, 3], True), (distinct, "bc", [2, 3], False), (flagged, "c", [3], False)],
    ids=["few files have it", "most files have it", "the function needs it"],
)
def test_a_column_of_few_files_sets_no_others_aside_unless_the_function_needs_it(
    function: Callable[[Any], Any], having: str, counted: list[int], is_told: bool, project: Project
) -> None:
    for user, name in enumerate("abc", 1):
        frame = rows((user, 0, 1.0), (user, 0, 1.0))
        project.drop(name, frame.with_columns(flag=False) if name in having else frame)
    result = project.build(project.define(function, metrics=[]))
    assert project.store.read("spend")["user_id"].to_list() == counted
    assert len(result.quarantined) == 3 - len(counted)
    told = "c.parquet: column 'flag' is left out, as most files of the source lack it"
    assert (told in result.warnings) == is_told


def test_the_reason_of_a_file_that_goes_with_no_other_says_what_helps_where_it_is_read(
    project: Project,
) -> None:
    for name in "abc":
        project.drop(name, rows((1, 0, 1.0)).with_columns(flag=pl.lit(name == "a")))
    project.drop("d", rows((1, 0, 1.0)).with_columns(flag=pl.Series([7])))
    reasons = {}
    for incremental in (True, False):
        feature = project.define(lambda df: df, incremental=incremental, metrics=[])
        (bad,) = project.build(feature, full=True).quarantined
        reasons[incremental] = bad.reason
    told = (
        "d.parquet: column 'flag' is Int64, in the other files it is Boolean; write it as they do"
    )
    assert reasons[False] == told
    assert reasons[True] == f"{told}, or have the function return pl.col('flag').cast(pl.Boolean)"


def test_a_source_read_as_one_sets_bad_files_aside_too(project: Project) -> None:
    project.drop("a", rows((1, 0, 1.0)))
    project.drop("c", rows((3, 0, 1.0)))
    cut(project.events / "b.parquet")
    lacking("amount")(project.events / "d.parquet")
    feature = project.define(ranked)
    result = project.build(feature)
    assert [q.path for q in result.quarantined] == ["b.parquet", "d.parquet"]
    assert users(project) == [1, 3]
    again = project.build(feature)
    assert (again.files_read, again.quarantined) == (0, result.quarantined)
    rows((2, 0, 1.0)).write_parquet(project.events / "b.parquet")
    assert [q.path for q in project.build(feature).quarantined] == ["d.parquet"]
    assert users(project) == [1, 2, 3]


def test_columns_that_no_function_uses_may_come_go_and_change_in_a_source_read_as_one(
    project: Project,
) -> None:
    project.drop("a", rows((1, 0, 1.0)))
    project.drop("b", rows((2, 0, 1.0)).with_columns(note=pl.lit(1)))
    for name in "cde":
        project.drop(name, rows((ord(name), 0, 1.0)).with_columns(note=pl.lit("new")))
    lacking("amount")(project.events / "f.parquet")
    for function in (ranked, identity):
        result = project.build(project.define(function, incremental=False))
        assert [q.path for q in result.quarantined] == ["f.parquet"]
        assert users(project) == [1, 2, 99, 100, 101]


def test_a_source_read_as_one_has_no_instant_that_wrapped_around(project: Project) -> None:
    wrapping = pl.lit(2**64 // 1000 + 1).cast(pl.Datetime("ms", "UTC"))
    project.drop("a", rows((1, 0, 1.0)).with_columns(pl.col("at").dt.cast_time_unit("ms")))
    project.drop("b", rows((2, 0, 1.0)).with_columns(at=wrapping))
    project.drop("c", rows((3, 0, 1.0)).with_columns(note=wrapping))
    result = project.build(project.define(ranked))
    assert [q.path for q in result.quarantined] == ["b.parquet"]
    assert "no time between the years 1 and 9999" in result.quarantined[0].reason
    assert users(project) == [1, 3]


def test_columns_of_a_source_read_as_one_are_the_union_over_files(project: Project) -> None:
    project.drop("a", rows((1, 0, 1.0)))
    for name in "bc":
        project.drop(name, rows((2, 0, 1.0)).with_columns(note=pl.lit("new")))
    result = project.build(project.define(as_they_are, metrics=[], incremental=False))
    assert result.quarantined == ()
    stored = project.store.read("spend")
    assert stored.columns == ["user_id", "at", "amount", "note"]
    assert sorted(stored["note"].to_list(), key=str) == [None, "new", "new"]


def test_a_row_wise_function_may_be_kept_from_being_split_and_let_go_again(
    project: Project,
) -> None:
    for name in "abcde":
        project.drop(name, rows((ord(name), 0, 1.0)))
    project.build(project.define(incremental=False))
    meta = project.store.read_metadata("spend")
    assert (meta.rowwise, len(meta.partials)) == (False, 1)
    project.drop("f", rows((1, 0, 1.0)))
    result = project.build(project.define(incremental=False))
    assert "incremental=False" in result.mode_reason
    project.drop("g", rows((2, 0, 1.0)))
    assert project.build().mode == "incremental"
    meta = project.store.read_metadata("spend")
    assert (meta.rowwise, len(meta.partials)) == (True, 7)


def test_who_says_incremental_is_believed(project: Project) -> None:
    def batches(df: pl.DataFrame) -> pl.DataFrame:
        amount = pl.col("amount").map_batches(lambda x: x + 1, return_dtype=pl.Float64)
        return df.select("user_id", "at", amount)

    feature = project.define(batches, incremental=True)
    for name in "abcde":
        project.drop(name, rows((ord(name), 0, 1.0)))
    project.build(feature)
    project.drop("f", rows((1, 0, 1.0)))
    result = project.build(feature)
    assert (result.mode, result.files_read) == ("incremental", 1)
    assert set(project.store.read("spend")["amount__sum__2d"]) == {2.0}


# -- what becomes of rows


@pytest.mark.parametrize("incremental", [None, False])
def test_a_column_without_a_value_in_one_file_goes_with_the_others(
    incremental: bool | None, project: Project
) -> None:
    feature = project.define(incremental=incremental)
    project.drop("a", rows((1, 0, 1.0)).with_columns(amount=pl.lit(None)))
    project.drop("b", rows((1, 1, 2.0)))
    assert project.build(feature).quarantined == ()
    stored = project.store.read("spend")
    assert column(stored, "amount__sum__2d") == [None, 2.0]
    assert column(stored, "amount__count__2d") == [0, 1]


def test_a_column_without_a_value_in_any_file_gives_empty_windows(project: Project) -> None:
    for name in "ab":
        project.drop(name, rows((1, 0, 1.0)).with_columns(amount=pl.lit(None)))
    project.build()
    stored = project.store.read("spend")
    assert stored.schema["amount__sum__2d"] == pl.Float64
    assert column(stored, "amount__sum__2d") == [None]
    assert column(stored, "amount__count__2d") == [0]


def test_rows_left_out_are_counted_by_reason_and_those_only_warned_of_are_kept(
    project: Project,
) -> None:
    feature = project.define(
        validators={
            "amount": [v.less_than(100, on_fail="drop"), v.greater_than(0, on_fail="warn")],
        }
    )
    project.drop("a", rows((1, 0, 1.0), (1, 1, 500.0), (None, 0, 1.0), (2, None, 1.0)))
    project.drop("b", rows((1, 2, -1.0), (1, 3, float("inf")), (None, 0, 700.0)))
    result = project.build(feature)
    document = to_json(project.store.read_metadata("spend"))
    assert document["rows_dropped"] == {
        "non_finite": 1,
        "null_key": 1,
        "null_time": 1,
        "validators": 2,
    }
    assert project.store.read("spend").height == 3
    told = "\n".join(result.warnings)
    assert "a.parquet: amount: less_than(100) fails in 1 of 4 rows (500.0)" in told
    assert "b.parquet: amount: less_than(100) fails in 1 of 3 rows (700.0)" in told
    assert "amount: greater_than(0) fails in 1 of 3 rows (-1.0)" in told
    assert project.build(feature).warnings == ()


def test_local_time_that_lies_in_the_future_is_warned_of_with_what_mends_it(
    project: Project,
) -> None:
    naive = rows((1, 0, 1.0)).with_columns(pl.col("at").dt.replace_time_zone(None))
    project.drop("a", naive)
    with clock.fixed(START - timedelta(hours=2, minutes=30)):
        result = project.build()
    assert len(result.warnings) == 1
    for part in ("a.parquet", "2:30:00 ahead of now", "'at'", "replace_time_zone('Etc/GMT-3')"):
        assert part in result.warnings[0]
    project.drop("b", rows((1, 0, 1.0)))
    with clock.fixed(START - timedelta(hours=2)):
        assert project.build().warnings == (), "a zoned timestamp is what it says"
    manifest = project.store.read_metadata("spend")
    assert manifest.watermark is None, "what lies ahead of the clock is left out"
    assert manifest.reached(to_us(at(1))) == to_us(at(0).astimezone(UTC))


def selected(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("day", "at", "amount")


@pytest.mark.parametrize(
    "make",
    [
        lambda project: project.define(selected, keys=["day"]),
        lambda project: project.define(as_they_are, keys=["day"]),
        lambda project: project.define(as_they_are, validators={"day": v.not_null()}),
    ],
    ids=["function", "key", "validator"],
)
def test_a_column_that_stands_in_folder_names_only_is_named(
    make: Callable[[Project], Feature], project: Project
) -> None:
    project.drop("day=2026-01-01/a", rows((1, 0, 1.0)))
    project.drop("day=2026-01-02/a", rows((1, 1, 1.0)))
    with pytest.raises(BuildError, match="folders' names hold day, files do not"):
        project.build(make(project))


def test_hive_folders_do_no_harm_to_who_does_not_need_their_names(project: Project) -> None:
    project.drop("day=2026-01-01/a", rows((1, 0, 1.0)))
    project.drop("day=2026-01-02/a", rows((2, 1, 1.0)))
    project.build(project.define(identity))
    assert users(project) == [1, 2]


@pytest.mark.parametrize("incremental", [False, None, True])
def test_a_key_that_is_null_throughout_all_files_leaves_no_rows_and_fails_nothing(
    incremental: bool | None, project: Project
) -> None:
    schema = {"user_id": pl.Boolean, "at": pl.Datetime("us", "UTC"), "amount": pl.Float64}
    project.drop("a", pl.DataFrame({"user_id": None, "at": START, "amount": 1.0}, schema=schema))
    metrics = [Rolling("1h", {"amount": ["count"], "user_id": ["count"]})]
    result = project.build(project.define(incremental=incremental, metrics=metrics))
    assert (result.rows, result.rows_dropped) == (0, {"null_key": 1})
