"""Profiles at work: a store for each, and definitions that are taken from one to another."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from mlforge.cli import main
from mlforge.store.manifest_json import from_json, to_json
from tests.support.commands import as_json, printed
from worker.project import Project, Settings

DEFINITIONS = """
from mlforge import Definitions, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore

@feature(keys=["user_id"], source="events/", timestamp="at", metrics=[Rolling("7d", {"amount": ["sum"]})])
def spend(df):
    return df.select("user_id", "at", "amount")

@feature(keys=["user_id"], source=spend, timestamp="at", metrics=[Rolling("7d", {"amount__sum__7d": "max"})])
def peaks(df):
    return df

defs = Definitions(LocalStore("store"), [spend, peaks], name="shop")
"""
TOML = """
[profiles.prod]
store = "prod/store"
root = "${PROD_ROOT}"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("MLFORGE_DEFINITIONS", "MLFORGE_PROFILE", "REDIS_URL", "REDIS_URL_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("PROD_ROOT", str(tmp_path / "prod"))
    Path("definitions.py").write_text(DEFINITIONS)
    Path("mlforge.toml").write_text(TOML)
    drop(Path("events"), 1, 2, 3)
    drop(Path("prod/events"), 10)
    return tmp_path


def drop(source: Path, *amounts: float) -> None:
    source.mkdir(parents=True, exist_ok=True)
    at = [datetime(2025, 1, 1, tzinfo=UTC)] * len(amounts)
    frame = {"user_id": [1] * len(amounts), "at": at, "amount": [float(a) for a in amounts]}
    pl.DataFrame(frame).write_parquet(source / f"{len(list(source.iterdir()))}.parquet")


def edit(old: str, new: str) -> None:
    text = Path("definitions.py").read_text()
    assert old in text
    Path("definitions.py").write_text(text.replace(old, new))


def served(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, str | None]:
    features = as_json(capsys, "list", *options)["features"]
    return {feature["name"]: feature["version"] for feature in features}


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_definitions_are_promoted_without_data_once_somebody_says_yes(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    printed(capsys, "build")
    assert main(["promote", "--to", "prod"]) == 1
    captured = capsys.readouterr()
    assert "2 definitions to apply to prod: spend, peaks" in captured.out
    assert "nothing was applied; --yes applies without asking" in captured.err
    assert not (folder / "prod/store").exists()
    shown = printed(capsys, "promote", "--to", "prod", "--yes")
    assert "1.0.0" in shown
    assert served(capsys, "--profile", "prod") == {"spend": "1.0.0", "peaks": "1.0.0"}
    ours, prods = (
        pl.read_parquet(f"{place}/spend/1.0.0/*.parquet") for place in ("store", "prod/store")
    )
    assert (ours["amount__sum__7d"].max(), prods["amount__sum__7d"].max()) == (6.0, 10.0)
    before = bytes_of(folder / "prod/store")
    assert "prod has these definitions already" in printed(
        capsys, "promote", "--to", "prod", "--yes"
    )
    assert bytes_of(folder / "prod/store") == before


@pytest.mark.parametrize(
    ("url", "times"),
    [
        ("redis://127.0.0.1:1/0", 1),
        ("redis+sentinel://host/shop", 0),  # where no event log can be
        ("redis://one,two?cluster=true", 0),
    ],
)
def test_what_was_built_is_done_although_no_event_log_answers_which_is_said_once(
    url: str, times: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    for command in (["build"], ["promote", "--to", "prod", "--yes"]):
        assert main(command) == 0
        captured = capsys.readouterr()
        assert "peaks" in captured.out
        assert captured.err.count("what was done is not in the event log: ") == times


def test_features_in_which_data_alone_changed_are_left_to_the_other_s_own_builds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printed(capsys, "promote", "--to", "prod", "--yes")
    drop(Path("prod/events"), 5)
    document = as_json(capsys, "promote", "--to", "prod", "--yes")
    assert (document["features"], document["left"]) == ([], ["spend", "peaks"])
    assert served(capsys, "--profile", "prod")["spend"] == "1.0.0"
    edit('"max"', '["max", "min"]')
    document = as_json(capsys, "promote", "--to", "prod", "--yes")
    assert [(f["feature"], f["version"], f["bump"]) for f in document["features"]] == [
        ("peaks", "1.1.0", "minor")
    ]
    assert (document["profile"], document["left"]) == ("prod", ["spend"])
    edit('Rolling("7d", {"amount"', 'Rolling("14d", {"amount"')
    edit(
        'source=spend, timestamp="at", metrics=[Rolling("7d", {"amount__sum__7d"',
        'source=spend, timestamp="at", metrics=[Rolling("7d", {"amount__sum__14d"',
    )
    shown = printed(capsys, "promote", "--to", "prod", "--yes", "--features", "spend")
    assert "1 column would go: amount__sum__7d" in shown
    assert served(capsys, "--profile", "prod") == {"spend": "2.0.0", "peaks": "1.1.0"}


def test_places_of_tables_defaults_and_services_are_definitions_too(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for root in (folder, folder / "prod"):
        for name in ("old", "new"):
            table = pl.DataFrame(
                {"amount": [10.0, 1.0], "rate": [2.0 if name == "new" else 1.0] * 2}
            )
            table.write_parquet(root / f"{name}.parquet")
    edit('at", metrics=[Rolling("7d", {"amount": ["sum"]})])\ndef spend(df):\n    return df.select("user_id", "at", "amount")',
         'at", metrics=[Rolling("7d", {"amount": ["sum"]})], tables={"rates": "old.parquet"})\n'
         'def spend(df, rates):\n    return df.join(rates, on="amount").select("user_id", "at", amount="rate")')  # fmt: skip
    printed(capsys, "promote", "--to", "prod", "--yes")
    meta = folder / "prod/store/spend/1.0.0/.meta.json"
    assert json.loads(meta.read_text())["table_sources"] == {"rates": ["old.parquet"]}
    (folder / "prod/old.parquet").write_bytes((folder / "prod/new.parquet").read_bytes())
    assert as_json(capsys, "promote", "--to", "prod", "--yes")["left"] == ["spend", "peaks"]
    edit("old.parquet", "new.parquet")
    document = as_json(capsys, "promote", "--to", "prod", "--yes")
    assert [f["feature"] for f in document["features"]] == ["spend"]
    document = json.loads(meta.read_text())
    del document["table_sources"]  # as a release before wrote it
    assert "table_sources" not in to_json(from_json(document, "spend"))
    edit("name=", 'services=[Service("checkout", [spend])], name=')
    edit("import Definitions,", "import Definitions, Service,")
    document = as_json(capsys, "promote", "--to", "prod", "--yes")
    assert (document["features"], document["services"]) == ([], ["checkout"])
    assert (folder / "prod/store/_metadata/services/checkout/1.0.0.json").exists()
    edit('tables={"rates"', 'defaults={"amount__sum__7d": 7}, tables={"rates"')
    document = as_json(capsys, "promote", "--to", "prod", "--yes")
    assert [f["feature"] for f in document["features"]] == ["spend"]
    assert "prod has these definitions already" in printed(capsys, "promote", "--to", "prod")
    version = served(capsys, "--profile", "prod")["spend"]
    meta = folder / f"prod/store/spend/{version}/.meta.json"
    document = json.loads(meta.read_text())
    del document["table_sources"]
    meta.write_text(json.dumps(document))
    table.with_columns(rate=pl.lit(3.0)).write_parquet(folder / "prod/new.parquet")
    document = as_json(capsys, "promote", "--to", "prod", "--yes")
    assert (document["features"], document["left"]) == ([], ["spend", "peaks"])
    edit("[spend])]", '[spend], defaults={"amount__sum__7d": "much"})]')
    unkept = as_json(capsys, "plan", "--profile", "prod")["unkept"]
    assert "'spend__amount__sum__7d' is Float64, not 'much'" in unkept["checkout"]


def test_a_feature_that_is_new_and_another_that_would_vanish_may_be_one_that_was_renamed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printed(capsys, "build")
    edit("def spend", "def outlay")
    edit("source=spend", "source=outlay")
    edit("[spend, peaks]", "[outlay, peaks]")
    shown = " ".join(printed(capsys, "plan").split())
    assert "outlay would begin anew with the code and settings of spend" in shown
    assert "'mlforge rename spend outlay' keeps its history" in shown
    printed(capsys, "rename", "spend", "outlay", "--yes")
    shown = printed(capsys, "plan")
    assert "vanish" not in shown
    assert "rename" not in shown


def test_nothing_is_applied_where_a_feature_would_fail_or_the_choice_is_unclear(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit('"user_id", "at", "amount")', '"user_id", "at", "sum")')
    assert main(["promote", "--to", "prod", "--yes"]) == 1
    assert "spend" in capsys.readouterr().err
    assert not (folder / "prod/store").exists()
    assert main(["promote", "--to", "prod", "--profile", "dev"]) == 1
    assert "--to is enough" in capsys.readouterr().err
    assert main(["promote", "--to", "prod", "--json"]) == 1
    assert "add --yes" in capsys.readouterr().err
    assert main(["promote", "--to", "prd"]) == 1
    assert "did you mean 'prod'?" in capsys.readouterr().err
    monkeypatch.delenv("PROD_ROOT")
    assert main(["promote", "--to", "prod"]) == 1
    assert "root: needs PROD_ROOT" in capsys.readouterr().err


def test_a_worker_s_project_is_that_of_its_profile(folder: Path, redis_url: str) -> None:
    settings = Settings(redis_url, None, folder, profile="prod")
    prod, ours = Project.open(settings), Project.open(Settings(redis_url, None, folder))
    assert str(prod.definitions.store) == f"LocalStore('{folder}/prod/store')"
    assert prod.definitions.root == folder / "prod"
    assert prod.scope != ours.scope
    assert prod.hash != ours.hash
