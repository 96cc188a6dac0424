"""Edits are noticed wherever the root is, and decide whatever they concern."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlforge.definitions.loader import load
from tests.support.workers import eventually
from worker.project import Settings, fingerprint
from worker.watch import definitions_watch
from worker.watch.definitions_watch import Follower, _own_files

TEXT = """
import polars as pl
import helpers_of_test
from mlforge import Definitions, feature
from mlforge.online import RedisStore
from mlforge.store import LocalStore


@feature(keys=["user_id"], source="drops/")
def spend(df: pl.DataFrame) -> pl.DataFrame:
    return df


defs = Definitions(store=LocalStore("feature_store"), features=[spend], name="shop", {settings})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "helpers_of_test.py").write_text("ONE = 1\n")
    yield tmp_path
    sys.modules.pop("helpers_of_test", None)


def hash_with(folder: Path, settings: str) -> str:
    (folder / "definitions.py").write_text(TEXT.format(settings=settings))
    return fingerprint(load("definitions.py", here=folder))


@pytest.mark.parametrize(
    "settings",
    [
        'root="data"',
        "online_store=RedisStore(port=1)",
        'online_store=RedisStore(prefix="other")',
        "online_store=RedisStore(ttl=60)",
        "online_store=RedisStore(db=3)",
        'online_store=RedisStore(host="elsewhere")',
        "hold_above=0.9",
        'gone_after="2h"',
        'engine="duckdb"',
        "follow_links=True",
        "max_file_memory=1 << 20",
    ],
)
def test_each_setting_that_decides_where_work_goes_makes_other_definitions(
    folder: Path, settings: str
) -> None:
    usual = hash_with(folder, "")
    assert hash_with(folder, settings) != usual
    assert hash_with(folder, "") == usual


@pytest.mark.parametrize("settings", ["", 'root="/elsewhere"'])
def test_the_files_of_the_definitions_are_watched_wherever_the_root_is(
    folder: Path, settings: str
) -> None:
    (folder / "definitions.py").write_text(TEXT.format(settings=settings))

    class Opened:
        definitions = load("definitions.py", here=folder)

    watched = {file.name for file in _own_files(Opened)}  # type: ignore[arg-type]
    assert watched >= {"definitions.py", "helpers_of_test.py"}


def test_definitions_that_are_a_link_are_watched_through_it(folder: Path, tmp_path: Path) -> None:
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "definitions.py").write_text(TEXT.format(settings=""))
    (folder / "definitions.py").symlink_to(tmp_path / "one/definitions.py")

    class Opened:
        definitions = load("definitions.py", here=folder)

    assert folder / "definitions.py" in _own_files(Opened)  # type: ignore[arg-type]


def test_an_edit_that_does_not_import_is_told_once_tried_again_and_then_taken_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pause in ("LOOK_EVERY_S", "_AGAIN_S", "_SHARE"):
        monkeypatch.setattr(definitions_watch, pause, 0)
    (folder / "definitions.py").write_text(TEXT.format(settings=""))
    definitions = load("definitions.py", here=folder)
    project = SimpleNamespace(definitions=definitions, settings=None, hash="before")
    verdicts = [
        {"error": "no module"},
        {"error": "no module"},
        {"error": "no server"},
        {"hash": "new"},
    ]

    def tried(settings: Settings) -> subprocess.Popen[str]:
        command = [sys.executable, "-I", "-S", "-c", f"print({json.dumps(verdicts.pop(0))!r})"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    monkeypatch.setattr(definitions_watch, "_try_out", tried)
    told: list[str | None] = []
    follower = Follower(
        project,  # type: ignore[arg-type]
        taken_up=lambda: told.append("taken up"),
        broken=lambda error: told.extend((error, follower.problem)),
        unsteady=told.append,
    )
    follower.tick()
    assert len(verdicts) == 4, "nothing was edited"
    (folder / "definitions.py").write_text("another text\n")
    stay = "edited definitions do not import, the old ones stay in use: "
    eventually(lambda: follower.tick() or follower.problem == f"{stay}no server")
    assert told == ["no module", f"{stay}no module"], "an edit is told once"
    (folder / "definitions.py").write_text("yet another text\n")
    eventually(lambda: follower.tick() or "taken up" in told)
    assert told == ["no module", f"{stay}no module", "taken up"]
    assert (follower.problem, verdicts) == (None, [])
