"""The commands that plan, compare, keep and mend versions, each from end to end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import Definitions
from mlforge.cli import main
from mlforge.core import clock
from mlforge.definitions.loader import load
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.store import LocalStore
from tests.support.commands import as_json, printed
from tests.support.projects import Project, at, rows
from worker.service.live import open_live

DEFINITIONS = """
import os
import polars as pl
from mlforge import Definitions, feature
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.store import LocalStore

@feature(
    keys=["user_id"],
    source="events/",
    timestamp="at",
    metrics=[Rolling(["2d", "7d"], {"amount": ["sum", "count"]})],
)
def spend(df):
    return df.select("user_id", "at", "amount")

url = os.environ.get("TEST_REDIS_URL")
defs = Definitions(
    store=LocalStore("feature_store"),
    features=[spend],
    online_store=RedisStore.from_url(url) if url else None,
)
"""
NEGATED = DEFINITIONS.replace('"amount")\n', '-pl.col("amount"))\n')
SAME_VALUES = DEFINITIONS.replace('"amount")\n', 'pl.col("amount") * 2 - pl.col("amount"))\n')


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFORGE_DEFINITIONS", raising=False)
    monkeypatch.delenv("TEST_REDIS_URL", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("definitions.py").write_text(DEFINITIONS)
    Path("events").mkdir()
    drop("one", (1, 0, 1.0), (2, 0, 2.0), (3, 1, 3.0), (1, 2, 4.0), (4, 3, 1.0), (5, 3, 1.0))


@pytest.fixture
def online(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisStore]:
    """The online store that the definitions push to."""
    monkeypatch.setenv("TEST_REDIS_URL", redis_url)
    store = RedisStore.from_url(redis_url)
    yield store
    store.close()


def drop(name: str, *events: tuple[int, float, float]) -> None:
    rows(*events).write_parquet(f"events/{name}.parquet")


def define(text: str) -> None:
    assert text != Path("definitions.py").read_text()
    Path("definitions.py").write_text(text)


def failed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 1) -> str:
    """What a run that goes wrong says, in one line."""
    capsys.readouterr()
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert error.startswith("mlforge: error: ")
    assert error.count("\n") == 1
    return error


def two_versions(capsys: pytest.CaptureFixture[str], *options: str) -> None:
    printed(capsys, "build", *options)
    drop("two", (1, 4, 9.0))
    printed(capsys, "build", *options)


def held(capsys: pytest.CaptureFixture[str]) -> str:
    """Hold the feature as a worker would whose disk went away; why."""
    Path("events/one.parquet").unlink()
    drop("few", (1, 0, 1.0))
    assert not load(None, here=Path.cwd()).refresh("spend", attended=False).changed
    reason = as_json(capsys, "list")["features"][0]["hold"]
    assert "1 of 1 files are gone" in reason
    return str(reason)


# plan


PLANNED = (
    "version",
    "bump",
    "reason",
    "rows",
    "rows_recomputed",
    "rows_changed",
    "entities",
    "mode",
)


def nothing(project: Project) -> None: ...


def late_file(project: Project) -> None:
    project.drop("late", rows((1, 0.5, 7.0)))


def forgotten_file(project: Project) -> None:
    project.drop("forgotten", rows((50, -300, 7.0), (2, -300, 1.0)))


def removed_entities(project: Project) -> None:
    frame = pl.read_parquet(project.events / "one.parquet")
    project.drop("one", frame.filter(pl.col("user_id") % 5 != 4))


def later_file(project: Project) -> None:
    project.drop("later", rows((1, 12, 7.0), (9, 12, 1.0)))


def rewritten_file(project: Project) -> None:
    frame = pl.read_parquet(project.events / "one.parquet")
    project.drop("one", frame.reverse())


def amended_file(project: Project) -> None:
    frame = pl.read_parquet(project.events / "one.parquet")
    project.drop("one", frame.with_columns(amount=pl.col("amount") + (pl.col("user_id") == 2)))


def removed_file(project: Project) -> None:
    (project.events / "two.parquet").unlink()


def negated(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", -pl.col("amount"))


def same_values(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", pl.col("amount") * 2 - pl.col("amount"))


def with_a_column_more(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", "amount", other=pl.lit(1))


MORE = [Rolling(["2d", "7d"], {"amount": ["sum", "count", "max"]})]
FEWER = [Rolling(["2d"], {"amount": ["sum", "count"]})]


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize(
    ("change", "defined", "options", "reason"),
    [
        (nothing, {}, {}, "unchanged"),
        (nothing, {}, {"version": "3.0.0"}, "explicit_version"),
        (late_file, {}, {}, "data_refresh"),
        (late_file, {}, {"full": True}, "data_refresh"),
        (later_file, {}, {}, "data_refresh"),
        (forgotten_file, {}, {}, "data_refresh"),
        (removed_entities, {}, {}, "data_refresh"),
        (rewritten_file, {}, {}, "unchanged"),
        (amended_file, {}, {}, "data_refresh"),
        (removed_file, {}, {}, "data_refresh"),
        (nothing, {"function": negated}, {}, "logic_changed"),
        (later_file, {"function": negated}, {}, "logic_changed"),
        (removed_file, {"function": negated}, {}, "logic_changed"),
        (nothing, {"function": same_values}, {}, "logic_changed"),
        (nothing, {"function": with_a_column_more}, {}, "added_columns"),
        (nothing, {"metrics": MORE}, {}, "metrics_added"),
        (removed_file, {"metrics": FEWER}, {}, "metrics_removed"),
        (late_file, {"interval": "1d"}, {}, "config_changed"),
    ],
)
def test_a_plan_is_what_the_build_then_does(
    change: Callable[[Project], None],
    defined: dict[str, Any],
    options: dict[str, Any],
    reason: str,
    engine: str,
    tmp_path: Path,
    redis_url: str,
) -> None:
    project = Project(tmp_path / "planned", engine)
    project.drop("one", rows(*((user, user % 5, 1.0 * user) for user in range(40))))
    project.drop("two", rows((1, 3, 4.0), (77, 5.5, 5.0)))
    online = RedisStore.from_url(redis_url)
    with clock.fixed(at(20)):
        first = project.definitions(online_store=online)
        assert_as_planned(first, "first_build")
        change(project)
        then = project.definitions(project.define(**defined), online_store=online)
        before = sorted(
            path for path in project.store.path.rglob("*") if "_partials" not in str(path)
        )
        assert_as_planned(then, reason, before=before, **options)
        online.close()


def assert_as_planned(
    definitions: Definitions, reason: str, before: list[Path] | None = None, **options: Any
) -> None:
    [planned] = definitions.plan(**options).values()
    assert planned.reason == reason
    store = definitions.store
    assert isinstance(store, LocalStore)
    if before is not None:
        after = sorted(path for path in store.path.rglob("*") if "_partials" not in str(path))
        assert after == before
    [built] = definitions.build(online=True, **options).values()
    assert built.version in store.list_versions("spend")
    assert {name: getattr(planned, name) for name in PLANNED} == {
        name: getattr(built, name) for name in PLANNED
    }
    assert planned.keys_written == built.keys_written
    assert planned.mode_reason == built.mode_reason
    assert built.files_read <= planned.files_read


def test_plan_says_what_a_build_would_do_and_changes_nothing(
    capsys: pytest.CaptureFixture[str], online: RedisStore
) -> None:
    lines = printed(capsys, "plan").splitlines()
    assert lines[0].split() == [
        "feature", "version", "bump", "reason", "rows", "recomputed", "keys",
    ]  # fmt: skip
    assert lines[1].split() == ["spend", "1.0.0", "new", "first_build", "6", "6", "5"]
    assert lines[3:] == ["spend: full, first build; 1 file read"]
    assert as_json(capsys, "list")["features"][0]["state"] == "not built"
    assert online.features() == []
    printed(capsys, "build", "--online")
    drop("two", (1, 4, 9.0))
    (result,) = as_json(capsys, "plan")["features"]
    assert {name: result[name] for name in ("version", "bump", "mode", "entities")} == {
        "version": "1.0.1",
        "bump": "patch",
        "mode": "incremental",
        "entities": 1,
    }
    assert (result["path"], result["files_read"]) == (None, 1)
    (built,) = as_json(capsys, "build", "--online")["features"]
    assert set(built) == set(result)
    assert built["keys_written"] == result["keys_written"]
    assert printed(capsys, "plan").splitlines()[-1] == "spend: nothing to do"


def test_plan_takes_the_selection_of_build(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no feature 'nope'" in failed(capsys, "plan", "--features", "nope")
    assert "no feature has the tag 'x'" in failed(capsys, "plan", "--tags", "x")
    (result,) = as_json(capsys, "plan", "-f", "spend", "--version", "4.0.0", "--engine", "duckdb")[
        "features"
    ]
    assert (result["version"], result["engine"]) == ("4.0.0", "duckdb")


def test_plan_fails_where_a_build_would(capsys: pytest.CaptureFixture[str]) -> None:
    Path("events/bad.parquet").write_bytes(b"no parquet")
    assert "quarantined bad.parquet" in failed(capsys, "plan")
    Path("events/one.parquet").unlink()
    assert as_json(capsys, "plan", code=1)["failures"][0]["error"] == "UnreadableFile"


def test_plan_goes_on_without_an_online_store_that_answers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_REDIS_URL", "redis://127.0.0.1:1/0")
    assert main(["plan", "--json"]) == 0
    captured = capsys.readouterr()
    (result,) = json.loads(captured.out)["features"]
    assert (result["version"], result["keys_written"]) == ("1.0.0", None)
    assert "how many keys a push would write is not known" in captured.err


# evidence


def test_a_change_of_logic_that_changes_no_value_is_said_to_be_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printed(capsys, "build")
    define(SAME_VALUES)
    printed(capsys, "build")
    change = as_json(capsys, "inspect", "spend")["change_summary"]
    assert (change["bump_type"], change["reason"]) == ("minor", "logic_changed")
    assert "all values stay the same" in change["details"]
    assert change["evidence"]["rows_differ"] == 0
    assert change["evidence"]["code_hash_before"] != change["evidence"]["code_hash_after"]
    assert "logic_changed: 0 rows differ" in printed(capsys, "versions", "spend")


def test_a_change_of_logic_tells_how_many_rows_differ(capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "build")
    define(NEGATED)
    printed(capsys, "build")
    change = as_json(capsys, "inspect", "spend")["change_summary"]
    assert "6 rows differ" in change["details"]
    assert change["evidence"]["rows_differ"] == 6
    page = " ".join(printed(capsys, "inspect", "spend").split())
    assert "rows differ 6" in page
    assert f"code hash before {change['evidence']['code_hash_before'][:12]} " in page


def test_metrics_and_columns_that_came_and_went_are_evidence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printed(capsys, "build")
    define(DEFINITIONS.replace('["sum", "count"]', '["sum", "max"]'))
    printed(capsys, "build")
    evidence = as_json(capsys, "inspect", "spend")["change_summary"]["evidence"]
    came, went = (
        [f"amount__{name}__{window}" for window in ("2d", "7d")] for name in ("max", "count")
    )
    assert sorted(evidence["metrics_added"]) == sorted(evidence["columns_added"]) == sorted(came)
    assert (
        sorted(evidence["metrics_removed"]) == sorted(evidence["columns_removed"]) == sorted(went)
    )
    assert "metrics removed" in printed(capsys, "inspect", "spend")


def test_files_entities_and_rows_that_changed_are_evidence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    drop("old", (7, 0, 1.0))
    printed(capsys, "build")
    drop("one", (1, 0, 1.0), (2, 0, 2.0), (3, 1, 3.0), (1, 2, 4.0), (4, 3, 1.0), (5, 3, 2.0))
    drop("new", (8, 0, 1.0))
    Path("events/old.parquet").unlink()
    printed(capsys, "build")
    change = as_json(capsys, "inspect", "spend")["change_summary"]
    assert change["details"] == ["4 rows of 3 entities"]
    assert change["evidence"] == {
        "rows_changed": 4,
        "entities": 3,
        "files_added": {"count": 1, "first": ["new.parquet"]},
        "files_removed": {"count": 1, "first": ["old.parquet"]},
        "files_replaced": {"count": 1, "first": ["one.parquet"]},
    }
    page = printed(capsys, "inspect", "spend")
    assert "\nevidence\n" in page
    assert "files replaced  1: one.parquet" in page


# diff


def test_the_exit_code_of_diff_tells_the_class_of_change(
    capsys: pytest.CaptureFixture[str],
) -> None:
    two_versions(capsys)
    define(NEGATED)
    printed(capsys, "build")
    define(NEGATED.replace('["2d", "7d"]', '["2d"]'))
    printed(capsys, "build")
    for a, b, code in [
        ("1.0.0", "1.0.0", 0),
        ("1.0.0", "1.0.1", 10),
        ("1.0.1", "1.1.0", 11),
        ("1.1.0", "2.0.0", 12),
        ("1.0.0", "2.0.0", 12),
        ("2.0.0", "1.1.0", 11),
    ]:
        printed(capsys, "diff", "spend", a, b, code=code)
    assert "spend has no version 9.9.9" in failed(capsys, "diff", "spend", "1.0.0", "9.9.9")
    assert "no feature 'nope'" in failed(capsys, "diff", "nope", "1.0.0", "1.0.1")
    assert main(["diff", "spend"]) == 2


def test_diff_shows_columns_configuration_logic_and_rows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    two_versions(capsys)
    document = as_json(capsys, "diff", "spend", "1.0.0", code=10)
    assert document == {
        "feature": "spend",
        "a": "1.0.0",
        "b": "1.0.1",
        "bump": "patch",
        "reason": "data_refresh",
        "details": ["1 row"],
        "columns": {"added": [], "removed": [], "retyped": []},
        "config": [],
        "logic_changed": False,
        "rows": {"added": 1, "removed": 0, "changed": 0, "sample": [{"user_id": 1}]},
    }
    page = printed(capsys, "diff", "spend", "1.0.0", code=10)
    assert page.startswith("spend 1.0.0 -> 1.0.1\n")
    assert "1 row added" in page
    retyped = DEFINITIONS.replace('"amount")\n', 'pl.col("amount").cast(pl.Int64))\n')
    define(retyped.replace("    metrics=", '    interval="1d",\n    metrics='))
    printed(capsys, "build")
    document = as_json(capsys, "diff", "spend", "1.0.1", code=12)
    assert document["config"][0] == {"key": "interval", "a": None, "b": "1d"}
    assert document["columns"]["retyped"] == ["amount__sum__2d", "amount__sum__7d"]
    assert document["logic_changed"]
    page = printed(capsys, "diff", "spend", "1.0.1", code=12)
    assert "~ amount__sum__2d Float64 -> Int64" in page
    assert "none -> 1d" in page


# rollback, approve


def test_rollback_serves_the_version_before_and_approve_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    two_versions(capsys)
    document = as_json(capsys, "rollback", "spend")
    assert "approve spend" in document.pop("hold")
    assert document == {
        "feature": "spend",
        "from": "1.0.1",
        "version": "1.0.0",
        "generation": 3,
        "online": None,
    }
    shown = as_json(capsys, "versions", "spend")
    assert shown["latest"] == "1.0.0"
    assert [(v["version"], v["served"]) for v in shown["versions"]] == [
        ("1.0.0", True),
        ("1.0.1", False),
    ]
    assert "is held: rolled back from 1.0.1" in printed(capsys, "versions", "spend")
    assert as_json(capsys, "list")["features"][0]["state"] == "held"
    assert "a build ends its hold" in printed(capsys, "plan")
    approved = as_json(capsys, "approve", "spend")
    assert approved["hold"].startswith("rolled back from 1.0.1")
    assert (approved["result"]["version"], approved["push"]) == ("1.0.2", None)
    assert as_json(capsys, "list")["features"][0]["state"] == "ready"


def test_the_online_store_follows_a_rollback_and_an_approval(
    capsys: pytest.CaptureFixture[str], online: RedisStore
) -> None:
    two_versions(capsys, "--online")
    assert "1.0.0 is served and online" in printed(capsys, "rollback", "spend", "1.0.0")
    books = online.books("spend")
    assert books is not None
    assert books.target is not None
    assert books.target.version == "1.0.0"
    row = online.read("spend", {"user_id": 1})
    assert row is not None
    assert row["amount__sum__7d"] == 5.0
    pushed = as_json(capsys, "approve", "spend")["push"]
    assert pushed["version"] == "1.0.2"
    assert pushed["written"] > 0
    row = online.read("spend", {"user_id": 1})
    assert row is not None
    assert row["amount__sum__7d"] == 14.0


def test_a_rollback_that_the_online_store_cannot_follow_is_done_and_said_to_be_half_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    two_versions(capsys)
    monkeypatch.setenv("TEST_REDIS_URL", "redis://127.0.0.1:1/0")
    assert "the online store does not follow yet" in failed(capsys, "rollback", "spend")
    assert as_json(capsys, "versions", "spend")["latest"] == "1.0.0"


def test_a_store_is_rolled_back_without_definitions(capsys: pytest.CaptureFixture[str]) -> None:
    two_versions(capsys)
    Path("definitions.py").unlink()
    assert "1.0.0 is served, in place of 1.0.1" in printed(
        capsys, "rollback", "spend", "--store", "feature_store"
    )
    assert as_json(capsys, "versions", "spend", "--store", "feature_store")["latest"] == "1.0.0"


def test_there_is_nothing_to_roll_back_to_before_the_first_version(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "the store has no feature 'spend'" in failed(capsys, "rollback", "spend")
    printed(capsys, "build")
    assert "there is no version before 1.0.0" in failed(capsys, "rollback", "spend")
    assert "no version 2.0.0" in failed(capsys, "rollback", "spend", "2.0.0")
    assert "no feature 'spent'" in failed(capsys, "rollback", "spent")
    assert not Path("feature_store/spent").exists()
    assert as_json(capsys, "list")["features"][0]["hold"] is None


def test_approve_lets_a_feature_go_on_that_was_held_for_what_it_would_lose(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printed(capsys, "build")
    reason = held(capsys)
    assert "mlforge approve spend" in reason
    assert "spend is held: 1 of 1 files are gone" in printed(capsys, "list")
    assert "published 1.0.1, data_refresh" in printed(capsys, "approve", "spend")
    assert as_json(capsys, "list")["features"][0]["hold"] is None
    assert "spend is not held" in printed(capsys, "approve", "spend")
    document = as_json(capsys, "approve", "spend")
    assert document == {"feature": "spend", "hold": None, "result": None, "push": None}
    assert "no feature 'nope'" in failed(capsys, "approve", "nope")


def test_a_feature_whose_source_is_gone_stays_held(capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "build")
    held(capsys)
    Path("events").rename("elsewhere")
    assert main(["approve", "spend"]) == 1
    assert "spend stays held: source_missing" in capsys.readouterr().err
    assert as_json(capsys, "list")["features"][0]["state"] == "held"


# pin, prune


def test_a_pinned_version_outlives_every_prune(capsys: pytest.CaptureFixture[str]) -> None:
    two_versions(capsys)
    drop("three", (1, 5, 1.0))
    printed(capsys, "build")
    assert as_json(capsys, "pin", "spend", "1.0.0") == {"feature": "spend", "pins": ["1.0.0"]}
    assert "pinned 1.0.0, 1.0.2" in printed(capsys, "pin", "spend")
    marks = {v["version"]: v["pinned"] for v in as_json(capsys, "versions", "spend")["versions"]}
    assert marks == {"1.0.0": True, "1.0.1": False, "1.0.2": True}
    assert "served, pinned" in printed(capsys, "versions", "spend")
    pruned = as_json(capsys, "prune", "--keep", "1")
    assert pruned["features"] == [
        {"feature": "spend", "versions": ["1.0.1"], "partials": 0, "unreadable": [], "in_use": []}
    ]
    assert "pinned 1.0.2" in printed(capsys, "pin", "spend", "1.0.0", "--unpin")
    assert as_json(capsys, "prune", "--keep", "1")["features"][0]["versions"] == ["1.0.0"]
    assert "no version 1.0.0" in failed(capsys, "pin", "spend", "1.0.0")


def test_a_dry_run_of_prune_says_the_same_and_removes_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    two_versions(capsys)
    dry = as_json(capsys, "prune", "spend", "--keep", "1", "--dry-run")
    assert dry["dry_run"]
    assert "nothing was removed" in printed(capsys, "prune", "--keep", "1", "--dry-run")
    assert LocalStore("feature_store").list_versions("spend") == ["1.0.0", "1.0.1"]
    done = as_json(capsys, "prune", "spend", "--keep", "1")
    assert dry["features"] == done["features"]
    assert LocalStore("feature_store").list_versions("spend") == ["1.0.1"]


def test_prune_by_age_keeps_what_is_young(capsys: pytest.CaptureFixture[str]) -> None:
    with clock.fixed(datetime.now(UTC) - timedelta(days=40)):
        two_versions(capsys)
    drop("three", (1, 5, 1.0))
    printed(capsys, "build")
    drop("four", (1, 6, 1.0))
    printed(capsys, "build")
    assert as_json(capsys, "prune", "--older-than", "60d")["features"][0]["versions"] == []
    gone = as_json(capsys, "prune", "--older-than", "30d", "--store", "feature_store")
    assert gone["features"][0]["versions"] == ["1.0.0", "1.0.1"]


def test_prune_without_a_rule_is_the_worker_s(capsys: pytest.CaptureFixture[str]) -> None:
    two_versions(capsys)
    assert as_json(capsys, "prune")["features"][0]["versions"] == []
    for wrong in (["--keep", "0"], ["--keep", "x"], ["--older-than", "2mo"]):
        assert main(["prune", *wrong]) == 2
    assert "'60d'" in capsys.readouterr().err
    assert "no feature 'nope'" in failed(capsys, "prune", "nope")
    assert not Path("feature_store/nope").exists()


# verify


def test_verify_finds_a_flipped_bit(capsys: pytest.CaptureFixture[str]) -> None:
    two_versions(capsys)
    assert as_json(capsys, "verify") == {
        "features": [{"feature": "spend", "versions": 2, "problems": []}]
    }
    data = Path("feature_store/spend/1.0.0/data.parquet")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.unlink()  # other versions may share its bytes
    data.write_bytes(content)
    assert "spend 1.0.0: data.parquet" in failed(capsys, "verify")
    (found,) = as_json(capsys, "verify", "spend", "--store", "feature_store", code=1)["features"]
    assert [problem["version"] for problem in found["problems"]] == ["1.0.0"]
    assert as_json(capsys, "verify", "--version", "1.0.1")["features"][0]["problems"] == []


def test_verify_finds_a_version_and_a_partial_that_are_gone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    two_versions(capsys)
    for partial in Path("feature_store/spend/_partials").glob("*.parquet"):
        partial.unlink()
        break
    assert "is missing" in printed_error(capsys, "verify")
    assert "no version 3.0.0" in printed_error(capsys, "verify", "--version", "3.0.0")
    assert "no feature 'nope'" in printed_error(capsys, "verify", "nope")
    Path("feature_store/spend/1.0.1").rename("away")
    assert "spend 1.0.1: is to be served, but is missing" in printed_error(capsys, "verify")


def printed_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(arguments) == 1
    return capsys.readouterr().err


def test_a_folder_that_is_no_store_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no store at " in failed(capsys, "verify", "--store", "nowhere")
    assert not Path("nowhere").exists()
    assert main(["verify", "--store", "x", "--definitions", "y"]) == 2


# completion


def complete(*words: str) -> list[str]:
    """What bash offers for the last word."""
    line = " ".join(f"'{word}'" for word in words)
    ask = (
        'eval "$1"; set -- "${@:2}"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        'COMPREPLY=(); _shtab_mlforge; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    script = subprocess.run(
        [sys.executable, "-m", "mlforge", "completion", "bash"],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    done = subprocess.run(
        ["bash", "--norc", "-c", ask, "bash", script, *words],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == "", line
    return done.stdout.split()


def test_bash_completes_commands_options_and_choices() -> None:
    assert complete("mlforge", "pl") == ["plan"]
    assert complete("mlforge", "build", "--fe") == ["--features"]
    assert complete("mlforge", "completion", "") == ["bash", "zsh", "fish"]
    assert complete("mlforge", "inspect", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for command in ("build", "plan", "rollback", "completion", "up"):
        assert command in script
    assert ("--older-than" if shell != "fish" else "-l older-than") in script
    assert main(["completion", "tcsh"]) == 2


# Ctrl-C


def test_ctrl_c_in_a_build_leaves_the_store_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "build")
    interrupted = NEGATED.replace(
        "def spend(df):\n",
        "def spend(df):\n    import signal\n    os.kill(os.getpid(), signal.SIGINT)\n",
    )
    define(interrupted)
    done = subprocess.run(
        [sys.executable, "-m", "mlforge", "build"],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, "", "")
    assert LocalStore("feature_store").list_versions("spend") == ["1.0.0"]
    define(NEGATED)
    assert as_json(capsys, "build")["features"][0]["version"] == "1.1.0"
    assert not list(Path("feature_store/spend").glob(".staged-*"))


# the server of a running `up`


def test_every_command_finds_the_server_of_a_running_up(
    redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    Path(".mlforge").mkdir()
    Path(".mlforge/up.json").write_text(json.dumps({"pid": os.getpid(), "url": redis_url}))
    assert as_json(capsys, "plan")["features"][0]["keys_written"] == 5
    assert as_json(capsys, "build", "--online")["features"][0]["keys_written"] == 5
    assert as_json(capsys, "explain", "spend", "user_id=1")["online"]["agrees"] is True
    audited = as_json(capsys, "audit", "--all")["features"][0]
    assert (audited["mismatches"], audited["skipped"]) == (0, [])
    drop("two", (1, 3, 5.0))
    assert as_json(capsys, "build", "--online")["features"][0]["version"] == "1.0.1"
    assert as_json(capsys, "rollback", "spend")["online"] is True
    store = RedisStore.from_url(redis_url)
    books = store.books("spend")
    assert books is not None
    assert books.target is not None
    assert books.target.version == "1.0.0"
    store.close()
    assert as_json(capsys, "approve", "spend")["push"]["version"] == "1.0.2"
    live = open_live(load(None, here=Path.cwd()), redis_url)
    assert main(["rename", "spend", "spent", "--yes"]) == 0
    assert main(["rename", "spent", "spend", "--yes"]) == 0
    renamed = [(each.kind, each.feature, each.details["before"]) for each in live.recent(2)]
    assert renamed == [("renamed", "spend", "spent"), ("renamed", "spent", "spend")]
    told = [(each.kind, each.details["version"]) for each in live.recent(9)[2:]]
    assert told == [
        ("approved", "1.0.2"),
        ("rolled_back", "1.0.0"),
        ("built", "1.0.1"),
        ("built", "1.0.0"),
    ]
    assert main(["forget", "user_id=1", "--yes"]) == 0
    [forgotten] = live.recent(1)
    assert forgotten.kind == "forgotten"
    assert forgotten.details == {"version": "1.0.3", "rows": 3, "keys_deleted": 1}
    live.close()


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "--version", "1.0"],
        ["build", "--version", "v1.0.0"],
        ["plan", "--version", "1.0.0.0"],
        ["build", "--engine", "pandas"],
        ["diff", "spend", "1"],
        ["diff", "spend", "1.0.0", "latest"],
        ["explain", "spend", "user_id=1", "--version", "01.0.0"],
        ["inspect", "spend", "--version", ""],
        ["pin", "spend", "1.0"],
        ["rollback", "spend", "one"],
        ["verify", "--version", "1.0.x"],
    ],
)
def test_an_argument_that_no_definitions_could_make_right_is_one_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("mlforge " + arguments[0] + ": error: ") == 1
    assert repr(arguments[-1]) in captured.err


# plan for pull requests

TWO = DEFINITIONS.replace(
    "url = os", '@feature(keys=["user_id"], source="events/", timestamp="at")\ndef raw(df):\n    return df\n\nurl = os'
).replace("[spend]", "[spend, raw]")  # fmt: skip


def test_plan_names_features_that_vanish_and_columns_that_go(
    capsys: pytest.CaptureFixture[str],
) -> None:
    define(TWO)
    printed(capsys, "build")
    define(DEFINITIONS.replace('["2d", "7d"]', '["7d"]'))
    document = as_json(capsys, "plan")
    assert document["vanish"] == [{"feature": "raw", "version": "1.0.0", "rows": 6}]
    [planned] = document["features"]
    gone = ["amount__sum__2d", "amount__count__2d"]
    assert sorted(document["columns"]["spend"]["removed"]) == sorted(gone)
    assert planned["bump"] == "major"
    text = " ".join(printed(capsys, "plan").split())
    assert "raw would vanish" in text
    assert "2 columns would go" in text
    assert all(column in text for column in gone)
    assert as_json(capsys, "plan", "--features", "spend")["vanish"] == []


def test_plan_names_columns_of_events_that_go_though_none_is_served(
    capsys: pytest.CaptureFixture[str],
) -> None:
    select = 'df.select("user_id", "at", "amount")'
    assert select in DEFINITIONS
    define(DEFINITIONS.replace(select, 'df.with_columns(note=pl.lit("x"), place=pl.lit(1))'))
    printed(capsys, "build")
    define(DEFINITIONS)
    text = " ".join(printed(capsys, "plan").split())
    assert "2.0.0 major columns_removed" in text
    gone = "columns of its events would go: note, place"
    assert f"spend: {gone}; no served column goes or changes its type" in text


@pytest.mark.parametrize(
    ("text", "files", "code"),
    [
        (TWO, {}, 0),
        (TWO, {"two": (1, 3, 5.0)}, 10),
        (TWO.replace('["2d", "7d"]', '["2d", "7d", "9d"]'), {}, 11),
        (TWO.replace('["2d", "7d"]', '["7d"]'), {}, 12),
        (TWO.replace('["2d", "7d"]', '["7d", "9d"]'), {"two": (1, 3, 5.0)}, 12),
        (DEFINITIONS, {}, 12),
        (TWO.replace("raw", "other"), {}, 12),
    ],
    ids=["nothing", "rows", "window added", "window removed", "both", "feature gone", "renamed"],
)
def test_the_exit_code_of_a_plan_is_the_class_of_its_greatest_change(
    text: str,
    files: dict[str, tuple[int, float, float]],
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    define(TWO)
    printed(capsys, "build")
    Path("definitions.py").write_text(text)
    for name, event in files.items():
        drop(name, event)
    printed(capsys, "plan", "--exit-code", code=code)
    printed(capsys, "plan")


def test_a_feature_that_comes_is_a_minor_change_and_one_that_fails_has_no_class(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printed(capsys, "build")
    define(TWO)
    printed(capsys, "plan", "--exit-code", code=11)
    define(TWO.replace('"amount")\n', '"nothing")\n'))
    printed(capsys, "plan", "--exit-code", code=1)


# validate


def test_rows_left_out_are_told_beside_values_that_are_null(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows(
        (1, 0, float("nan")), (None, 0, 1.0), (None, 1, 1.0), (1, None, 1.0), (1, 1, 1.0)
    ).write_parquet("events/two.parquet")
    rows((None, 1, 1.0)).write_parquet("events/void.parquet")
    assert main(["build"]) == 0
    told = capsys.readouterr()
    assert "spend 1.0.0 leaves out rows: 3 without a key, 1 without a time" in told.out
    assert (
        told.err
        == "mlforge: warning: spend: void.parquet: none of its rows counts: 1 without a key\n"
    )
    page = " ".join(printed(capsys, "inspect", "spend").split())
    assert "left out 3 without a key, 1 without a time as null 1 value, NaN or infinite" in page
    assert main(["validate"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:5] == ["spend", "ok", "3", "8", "4"]


def test_validate_says_that_windows_count_the_present_event(
    capsys: pytest.CaptureFixture[str],
) -> None:
    [note] = as_json(capsys, "validate")["notes"]
    assert note.startswith("windows of spend count an event at the very instant")
    assert 'closed="left"' in printed(capsys, "validate")


def test_a_function_that_is_not_row_wise_is_named_with_its_reason_before_and_after_the_first_build(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = "each drop will go through the whole source: the function is not taken for row-wise: it uses unique"
    define(DEFINITIONS.replace("return df", "return df.unique()"))
    assert as_json(capsys, "validate")["features"][0]["unproven"].startswith("it uses unique")
    for command in ("validate", "plan", "build"):
        assert told in " ".join(printed(capsys, command).split())
    assert "row-wise no: it uses unique" in " ".join(printed(capsys, "inspect", "spend").split())
    assert told not in printed(capsys, "build")


def test_an_author_who_says_that_a_function_is_not_row_wise_is_not_told_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    define(DEFINITIONS.replace('timestamp="at",', 'timestamp="at", incremental=False,'))
    for command in ("validate", "plan", "build"):
        assert "whole source" not in printed(capsys, command)


def test_validate_says_which_windows_are_always_empty_and_which_source_has_no_file_yet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    daily = DEFINITIONS.replace('timestamp="at",', 'timestamp="at", interval="1d",')
    define(daily.replace("Rolling", "ToDate").replace('["2d", "7d"]', '["1d", "1mo"]'))
    [note] = as_json(capsys, "validate")["notes"]
    assert note.startswith("spend: amount__sum__dtd, amount__count__dtd are always empty")
    define(DEFINITIONS)
    for file in Path("events").glob("*.parquet"):
        file.unlink()
    assert main(["validate"]) == 0
    assert "spend: events/ holds no parquet file yet" in capsys.readouterr().err


def test_validate_says_of_a_service_that_its_max_age_is_shorter_than_an_interval(
    capsys: pytest.CaptureFixture[str],
) -> None:
    daily = DEFINITIONS.replace('timestamp="at",', 'timestamp="at", interval="1d",')
    daily = daily.replace("import Definitions", "import Definitions, Service")
    for max_age, notes in (("6h", 1), ("1d", 0), ("30h", 0)):
        services = f'services=[Service("checkout", features=[spend], max_age="{max_age}")])'
        define(daily.rstrip().removesuffix(")") + f"    {services}\n")
        told = as_json(capsys, "validate")["notes"]
        assert len(told) == notes
        if told:
            assert told[0].startswith("checkout: max_age 6h is shorter than the interval of spend")


@pytest.mark.parametrize(
    "quiet",
    [
        DEFINITIONS.replace('"count"]})', '"count"]}, closed="left")'),
        DEFINITIONS.replace('"count"]})', '"count"]}, closed="none")'),
        DEFINITIONS.replace('"count"]})', '"count"]}, closed="both")'),
        DEFINITIONS.replace('"count"]})', '"count"]}, closed="right")'),
        DEFINITIONS.replace('"count"]})', '"count"]}, offset="1d")'),
        DEFINITIONS.replace('timestamp="at",', 'timestamp="at", interval="1d",'),
    ],
    ids=["left", "none", "both on purpose", "right on purpose", "offset", "aligned"],
)
def test_validate_says_nothing_where_windows_leave_the_present_event_out_or_it_is_meant(
    quiet: str, capsys: pytest.CaptureFixture[str]
) -> None:
    define(quiet)
    assert as_json(capsys, "validate")["notes"] == []
