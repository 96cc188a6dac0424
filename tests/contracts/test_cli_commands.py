"""The commands over a project: what they print, and the shape of their JSON."""

import json
import os
import pty
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge.cli import main
from mlforge.core.lock import Lock
from mlforge.definitions.loader import load
from mlforge.errors import RetrievalError
from tests.support.commands import as_json, printed

DEFINITIONS = """
import mlforge.validators as v
from mlforge import Definitions, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore

@feature(
    keys=["user_id"],
    source="events/",
    timestamp="event_time",
    interval="1d",
    metrics=[Rolling(windows=["7d"], aggregations={"amount": ["count", "sum"]})],
    validators={"amount": [v.greater_than(0)]},
    tags=["daily"],
)
def user_spend(df):
    "What a customer spends."
    return df.select("user_id", "event_time", "amount")

@feature(keys=["user_id"], source="users.parquet", tags=["slow"], engine="duckdb")
def user_profile(df):
    return df

defs = Definitions(store=LocalStore("feature_store"), features=[user_spend, user_profile])
"""


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFORGE_DEFINITIONS", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("definitions.py").write_text(DEFINITIONS)
    Path("events").mkdir()
    drop("one", 1, amount=1.5)
    pl.DataFrame({"user_id": [1], "city": ["Ulm"]}).write_parquet("users.parquet")


def drop(name: str, day: int, amount: float) -> None:
    times = [datetime(2025, 1, day, tzinfo=UTC)]
    pl.DataFrame({"user_id": [1], "event_time": times, "amount": [amount]}).write_parquet(
        f"events/{name}.parquet"
    )


def as_json_with_warnings(capsys: pytest.CaptureFixture[str], command: str) -> Any:
    assert main([command, "--features", "user_spend", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_build_says_version_bump_reason_rows_mode_and_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    header, first, _ = printed(capsys, "build").splitlines()
    assert header.split() == ["feature", "version", "bump", "reason", "rows", "mode", "time"]
    assert first.split()[:6] == ["user_spend", "1.0.0", "new", "first_build", "1", "full"]
    unchanged = printed(capsys, "build").splitlines()[1]
    assert unchanged.split()[:6] == ["user_spend", "1.0.0", "-", "unchanged", "1", "-"]


def test_build_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    document = as_json(capsys, "build")
    assert document["failures"] == []
    result = document["features"][0]
    assert result.pop("seconds") > 0
    assert result.pop("mode_reason") == "first build"
    assert result.pop("path").endswith("feature_store/user_spend/1.0.0/data.parquet")
    assert result == {
        "feature": "user_spend",
        "version": "1.0.0",
        "changed": True,
        "bump": "major",
        "reason": "first_build",
        "details": ["user_id", "event_time", "amount__count__7d", "amount__sum__7d"],
        "rows": 1,
        "mode": "full",
        "rows_changed": 1,
        "rows_dropped": {},
        "entities": 0,
        "rows_recomputed": 1,
        "files_read": 1,
        "keys_written": None,
        "quarantined": [],
        "ignored": [],
        "warnings": [],
        "engine": "polars",
    }


def test_build_as_json_tells_what_failed_and_what_is_quarantined(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("events/bad.parquet").write_bytes(b"no parquet")
    pl.DataFrame({"city": ["Ulm"]}).write_parquet("users.parquet")
    document = as_json(capsys, "build", code=1)
    assert [bad["path"] for bad in document["features"][0]["quarantined"]] == ["bad.parquet"]
    (failure,) = document["failures"]
    assert (failure["feature"], failure["error"]) == ("user_profile", "ColumnNotFound")
    assert "user_id" in failure["message"]


def test_files_of_another_kind_are_shown_as_ignored_and_fail_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("events/late.csv").write_text("user_id,amount\n1,2\n")
    for command in ("build", "validate"):
        assert main([command, "--features", "user_spend"]) == 0
        error = capsys.readouterr().err
        assert error.startswith("mlforge: warning: user_spend: ignored late.csv: ")
        assert error.count("\n") == 1
        (found,) = as_json_with_warnings(capsys, command)["features"]
        assert [ignored["path"] for ignored in found["ignored"]] == ["late.csv"]


def test_of_many_bad_files_the_first_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(30):
        Path(f"events/bad_{index:02}.parquet").write_bytes(b"no parquet")
    for index in range(12):
        drop(f"other_{index:02}", index + 1, amount=-1.0 - index)
    assert main(["build", "--features", "user_spend"]) == 1
    same, *others, last = capsys.readouterr().err.splitlines()
    assert same == (
        "mlforge: error: user_spend: quarantined bad_00.parquet, bad_01.parquet, bad_02.parquet and 27 more: "
        "is not parquet: it does not begin with PAR1"
    )
    assert len(others) == 9
    assert last == "mlforge: error: user_spend: and 3 more; --json has them all"


def test_warnings_that_no_result_has_are_said_in_the_words_of_commands(
    capsys: pytest.CaptureFixture[str], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    printed(capsys, "build", "--online")
    shutil.rmtree("feature_store")  # its rows stay online
    Path("users.parquet").write_bytes(b"none")
    assert main(["build", "--online"]) == 1
    told = capsys.readouterr().err
    warnings = [
        line.partition(" (of ")[0]
        for line in told.splitlines()
        if line.startswith("mlforge: warning: ")
    ]
    assert warnings == [
        "mlforge: warning: user_spend: rows of a store that was here before are taken over"
    ]
    assert told.count("users.parquet") == 1, told


def test_build_takes_its_options_to_the_build(capsys: pytest.CaptureFixture[str]) -> None:
    by_name = as_json(capsys, "build", "--features", "user_profile", "--version", "2.1.0")
    assert [(f["feature"], f["version"]) for f in by_name["features"]] == [
        ("user_profile", "2.1.0")
    ]
    by_tag = as_json(capsys, "build", "--tags", "daily", "--engine", "duckdb")
    assert [(f["feature"], f["engine"]) for f in by_tag["features"]] == [("user_spend", "duckdb")]
    drop("two", 2, amount=2.0)
    assert (
        as_json(capsys, "build", "--tags", "daily", "--full")["features"][0]["mode_reason"]
        == "asked for"
    )


def test_list_shows_what_is_defined_and_what_is_stored(capsys: pytest.CaptureFixture[str]) -> None:
    before = as_json(capsys, "list")["features"]
    assert before[0] == {
        "name": "user_spend",
        "state": "not built",
        "hold": None,
        "quarantined": 0,
        "version": None,
        "rows": None,
        "updated_at": None,
        "keys": ["user_id"],
        "timestamp": "event_time",
        "interval": "1d",
        "source": "events/",
        "tags": ["daily"],
        "description": "What a customer spends.",
        "owner": "",
        "engine": None,
    }
    printed(capsys, "build")
    Path("definitions.py").write_text(
        DEFINITIONS.replace("[user_spend, user_profile]", "[user_spend]")
    )
    after = as_json(capsys, "list")["features"]
    assert [(f["name"], f["state"], f["version"]) for f in after] == [
        ("user_spend", "ready", "1.0.0"),
        ("user_profile", "not defined", "1.0.0"),
    ]
    assert "not defined" in printed(capsys, "list")


def test_list_can_be_narrowed(capsys: pytest.CaptureFixture[str]) -> None:
    for option in (("--tags", "slow"), ("--features", "user_profile")):
        assert [f["name"] for f in as_json(capsys, "list", *option)["features"]] == ["user_profile"]
    assert main(["list", "--features", "nope"]) == 1
    assert "no feature 'nope'; there are user_profile, user_spend" in capsys.readouterr().err


def test_list_says_how_many_files_are_quarantined(capsys: pytest.CaptureFixture[str]) -> None:
    Path("events/bad.parquet").write_bytes(b"no parquet")
    printed(capsys, "build", code=1)
    assert "1 quarantined" in printed(capsys, "list")
    entry = as_json(capsys, "list")["features"][0]
    assert (entry["state"], entry["quarantined"]) == ("quarantined", 1)


def test_list_says_why_a_feature_is_held(capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "build")
    for file in Path("events").iterdir():
        file.unlink()
    loaded = load(None, here=Path.cwd())
    assert not loaded.refresh("user_spend", attended=False).changed
    entry = as_json(capsys, "list")["features"][0]
    assert entry["state"] == "held"
    assert main(["list"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"user_spend is held: {entry['hold']}" in said
    printed(capsys, "build")
    assert as_json(capsys, "list")["features"][0]["state"] == "ready"


def test_versions_tell_why_each_was_made_and_which_is_served(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printed(capsys, "build")
    drop("two", 2, amount=2.0)
    printed(capsys, "build")
    document = as_json(capsys, "versions", "user_spend")
    assert (document["feature"], document["latest"]) == ("user_spend", "1.0.1")
    assert document["hold"] is None
    assert [
        (v["version"], v["bump"], v["reason"], v["rows"], v["parent"]) for v in document["versions"]
    ] == [
        ("1.0.0", "major", "first_build", 1, None),
        ("1.0.1", "patch", "data_refresh", 2, "1.0.0"),
    ]
    assert set(document["versions"][0]) == {
        "version", "created_at", "bump", "reason", "details", "rows", "parent", "served", "pinned",
    }  # fmt: skip
    table = printed(capsys, "versions", "user_spend")
    assert [line.split()[0] for line in table.splitlines() if "served" in line] == ["1.0.1"]
    assert "data_refresh" in table


def test_inspect_shows_a_version_and_its_json_is_the_document_on_disk(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printed(capsys, "build")
    drop("two", 2, amount=2.0)
    printed(capsys, "build")
    page = printed(capsys, "inspect", "user_spend", "--version", "1.0.0")
    assert page.startswith("user_spend 1.0.0\n")
    assert "amount__sum__7d" in page
    latest = as_json(capsys, "inspect", "user_spend")
    assert latest == json.loads(Path("feature_store/user_spend/1.0.1/.meta.json").read_text())


def test_inspect_shows_how_files_differ_in_their_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("definitions.py").write_text(
        DEFINITIONS.replace('df.select("user_id", "event_time", "amount")', "df").replace(
            'keys=["user_id"],\n    source="events/"', 'keys=[],\n    source="events/"'
        )
    )
    Path("events/one.parquet").unlink()
    day = datetime(2026, 1, 2, tzinfo=UTC)
    for name, dtype, more in (
        ("a", pl.Int32, {}),
        ("b", pl.Int64, {"x": "y"}),
        ("c", pl.Int64, {"z": 1}),
    ):
        rows = pl.DataFrame({"event_time": [day], "amount": [1], **more})
        rows.cast({"amount": dtype}).write_parquet(f"events/{name}.parquet")
    printed(capsys, "build", "--features", "user_spend")
    page = " ".join(printed(capsys, "inspect", "user_spend").split())
    assert "files lacking x (2 files), z (2 files)" in page
    assert "widened amount (Int32 (1 file) to Int64)" in page
    assert "keys none: the whole source is one entity" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("inspect", "nope"),
            "the store has no feature 'nope'; there are: user_profile, user_spend",
        ),
        (("versions", "nope"), "the store has no feature 'nope'"),
        (
            ("inspect", "user_spend", "--version", "9.0.0"),
            "user_spend has no version 9.0.0; there are: 1.0.0",
        ),
        (("inspect", "../user_spend"), "'../user_spend' is not allowed"),
        (("build", "--features", "user_spend", "--version", "1.0.0"), "1.0.0"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    printed(capsys, "build")
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("mlforge: error: ")
    assert error.count("\n") == 1


def test_the_manifest_is_shown_and_can_be_written_anew(capsys: pytest.CaptureFixture[str]) -> None:
    assert as_json(capsys, "manifest") == {"features": {}}
    printed(capsys, "build")
    document = as_json(capsys, "manifest")
    assert document["features"]["user_spend"]["version"] == "1.0.0"
    Path("feature_store/_metadata/manifest.json").unlink()
    assert as_json(capsys, "manifest") == {"features": {}}
    assert as_json(capsys, "manifest", "--regenerate") == document
    assert "user_profile  1.0.0" in printed(capsys, "manifest")


@pytest.mark.parametrize("line", ["3", "{}", '{"version": 1, "content_hash": "", "row_count": 1}'])
def test_a_manifest_with_a_line_that_is_none_is_told_and_made_anew_by_a_build(
    capsys: pytest.CaptureFixture[str], line: str
) -> None:
    printed(capsys, "build")
    path = Path("feature_store/_metadata/manifest.json")
    path.write_text(f'{{"format": 1, "features": {{"user_spend": {line}}}}}')
    assert main(["manifest"]) == 1
    assert "is damaged" in capsys.readouterr().err
    drop("later", 5, 1.0)
    printed(capsys, "build")
    assert as_json(capsys, "manifest")["features"].keys() == {"user_spend", "user_profile"}


def test_a_lock_is_not_written_over_a_folder(tmp_path: Path) -> None:
    lock = Lock("service", (), (), "store", 0)
    for folder in (".", tmp_path):
        with pytest.raises(RetrievalError, match="it is a folder; name a file"):
            lock.save(folder)


def test_validate_checks_rows_without_making_a_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert as_json(capsys, "validate")["features"][0] == {
        "feature": "user_spend",
        "state": "ok",
        "files": 1,
        "rows": 1,
        "rows_dropped": {},
        "problems": [],
        "warnings": [],
        "ignored": [],
        "unproven": None,
    }
    drop("two", 2, amount=-2.0)
    found = as_json(capsys, "validate", "--features", "user_spend", code=1)["features"][0]
    assert (found["state"], found["files"], found["rows"]) == ("failed", 2, 1)
    (problem,) = found["problems"]
    assert (problem["path"], problem["error"]) == ("two.parquet", "ValidationError")
    assert "amount" in problem["message"]
    assert not list(Path().glob("feature_store/user_spend/[0-9]*"))
    assert as_json(capsys, "list")["features"][0]["state"] == "not built"


def test_validate_prints_a_table_and_a_line_for_each_problem(
    capsys: pytest.CaptureFixture[str],
) -> None:
    drop("two", 2, amount=-2.0)
    assert main(["validate"]) == 1
    captured = capsys.readouterr()
    header, first, second = captured.out.splitlines()
    assert header.split() == ["feature", "state", "files", "rows", "left", "out", "problems"]
    assert first.split() == ["user_spend", "failed", "2", "1", "0", "1"]
    assert second.split() == ["user_profile", "ok", "1", "1", "0", "0"]
    assert captured.err.startswith("mlforge: error: user_spend: two.parquet: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("command", ["build", "validate"])
def test_a_function_that_prints_does_not_spoil_the_json(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("definitions.py").write_text(
        DEFINITIONS.replace("    return df\n", "    print('here')\n    return df\n")
    )
    assert main([command, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["features"]
    assert "here" in captured.err


def test_colours_are_shown_in_a_terminal_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "\x1b[32mready\x1b[0m" not in printed(capsys, "build") + printed(capsys, "list")
    assert "\x1b[32mready\x1b[0m" in in_a_terminal("list")


def in_a_terminal(*arguments: str) -> str:
    """The output of a run whose stdout and stderr are a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlforge", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, "TERM": "xterm"},
    )
    os.close(theirs)
    chunks = []
    try:
        while chunk := os.read(ours, 65536):
            chunks.append(chunk)
    except OSError:  # Linux ends a terminal's output with EIO
        pass
    os.close(ours)
    assert process.wait(timeout=60) == 0
    return b"".join(chunks).decode()
