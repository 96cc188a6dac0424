"""The page "Quick start" says what is true: its blocks are run, in order, in a project that `mlforge init` has written."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from mlforge import get_online_features
from mlforge.cli import main
from mlforge.definitions.loader import load
from tests.support.commands import as_json
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "quickstart.md"


@pytest.fixture
def _shop(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDIS_URL", redis_url)
    assert main(["init", "shop"]) == 0
    monkeypatch.chdir("shop")
    monkeypatch.syspath_prepend(Path.cwd())
    monkeypatch.delitem(sys.modules, "definitions", raising=False)
    runpy.run_path("generate.py")["main"](3)
    assert main(["build", "--online"]) == 0


@pytest.mark.usefixtures("_shop")
def test_the_blocks_of_the_page_run_in_the_project_that_init_writes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    capsys.readouterr()
    assert {each["state"] for each in as_json(capsys, "list")["features"]} == {"ready"}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    definition, online, train, pandas, library = blocks
    feature = definition[definition.index("@feature") : definition.index("\n\n\ndefs =")]
    assert feature in Path("definitions.py").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(online, names)
    definitions = load(None, here=Path.cwd())
    [answer] = get_online_features(
        definitions.services["offer"],
        entities=[{"user_id": 1, "product": "bread"}],
        request=[{"price": 9.5}],
        store=names["redis"],
    )
    assert answer["price"] == 9.5
    for block in (train, pandas, library):
        exec(block, names)
    assert names["result"]["user_spend"].reason == "unchanged"
