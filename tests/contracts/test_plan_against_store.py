"""`mlforge plan --store`: what definitions would change in another store, which nothing is written to."""

import json
from pathlib import Path

import polars as pl
import pytest

from mlforge.cli import main

DEFINITIONS = """
from mlforge import Definitions, feature
from mlforge.store import LocalStore

@feature(keys=["user_id"], source="users.parquet")
def age(df):
    return df.select({columns})

defs = Definitions(LocalStore({store!r}), [age], online_store={online!r})
"""
NOBODY = "redis://127.0.0.1:1"


def _define(columns: str, store: str, online: str | None = None) -> None:
    text = DEFINITIONS.format(columns=columns, store=store, online=online)
    Path("definitions.py").write_text(text)


def test_a_plan_compares_with_another_store_and_writes_to_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pl.DataFrame({"user_id": [1], "age": [30], "city": ["Bern"]}).write_parquet("users.parquet")
    _define("'user_id', 'age', 'city'", "production")
    assert main(["build"]) == 0
    before = {path: path.stat().st_mtime_ns for path in Path("production").rglob("*")}
    _define("'user_id', 'age'", "own", NOBODY)
    capsys.readouterr()

    assert main(["plan", "--store", "production", "--exit-code", "--json"]) == 12

    planned = json.loads(capsys.readouterr().out)
    assert planned["columns"]["age"]["removed"] == ["city"]
    [feature] = planned["features"]
    assert (feature["version"], feature["keys_written"]) == ("2.0.0", None)
    assert {path: path.stat().st_mtime_ns for path in Path("production").rglob("*")} == before
    assert not Path("own").exists()

    assert main(["plan", "--store", "nowhere"]) == 1
    assert "no store at" in capsys.readouterr().err
