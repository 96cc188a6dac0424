"""What is changed in a notebook, or in a REPL, is seen at the next build of the same definitions."""

from __future__ import annotations

import importlib
import itertools
import linecache
import sys
from pathlib import Path
from typing import Any

import pytest

from mlforge import Definitions
from tests.support.projects import Project, column, rows

_cells = itertools.count()
DEFINE = """
@feature(keys=["user_id"], source="events", timestamp="at", name="spend",
         metrics=[Rolling("7d", {"amount": "sum"})])
def spend(df):
    return df.select("user_id", "at", amount=pl.col("amount") * factor(df))
"""


class Notebook:
    """Cells that run in one namespace, with their sources where a kernel keeps them."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.names: dict[str, Any] = {"__name__": "__main__", "project": project}
        self.run(
            "import polars as pl\nfrom mlforge import Definitions, feature\n"
            "from mlforge.metrics import Rolling"
        )

    def run(self, cell: str) -> None:
        name = f"/tmp/ipykernel_1/{next(_cells)}.py"
        linecache.cache[name] = len(cell), None, cell.splitlines(keepends=True), name
        exec(compile(cell, name, "exec"), self.names)

    def define(self, *cells: str) -> Definitions:
        for cell in (*cells, DEFINE):
            self.run(cell)
        self.run("defs = Definitions(project.store, [spend], root=project.root)")
        definitions = self.names["defs"]
        assert isinstance(definitions, Definitions)
        return definitions

    def total(self) -> float:
        [total] = column(self.project.store.read("spend"), "amount__sum__7d", user_id=1)
        return float(total)


@pytest.fixture
def notebook(tmp_path: Path) -> Notebook:
    project = Project(tmp_path / "project")
    project.drop("a", rows((1, 1, 2.0)))
    return Notebook(project)


FACTOR = "def factor(df):\n    return {}"
CHANGES = {
    "a constant": (["RATE = 2", FACTOR.format("RATE")], "RATE = 3"),
    "a helper": ([FACTOR.format("2")], FACTOR.format("3")),
    "a helper's helper": (
        ["def inner():\n    return 2", FACTOR.format("inner()")],
        "def inner():\n    return 3",
    ),
    "a default": ([FACTOR.format("2")], "def factor(df, by=3):\n    return by"),
    "a list in place": (["RATES = [2]", FACTOR.format("RATES[0]")], "RATES[0] = 3"),
    "a dict in place": (["RATES = {'a': 2}", FACTOR.format("RATES['a']")], "RATES['a'] = 3"),
    "an attribute of a class": (
        ["class Config:\n    rate = 2", FACTOR.format("Config.rate")],
        "Config.rate = 3",
    ),
    "a closure": (
        ["def make(by):\n    return lambda df: by[0]", "box = [2]", "factor = make(box)"],
        "box[0] = 3",
    ),
    "an expression": (["RATE = pl.lit(2)", FACTOR.format("RATE")], "RATE = pl.lit(3)"),
    "a frame": (
        ["RATES = pl.DataFrame({'a': [2]})", FACTOR.format("RATES['a'][0]")],
        "RATES = pl.DataFrame({'a': [3]})",
    ),
    "the state of an object from elsewhere": (
        ["import string", "RATE = string.Template('2')", FACTOR.format("int(RATE.template)")],
        "RATE.template = '3'",
    ),
    "a lambda": (["factor = lambda df: 2"], "factor = lambda df: 3"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_a_function_uses_is_seen_at_the_next_build(
    notebook: Notebook, change: str
) -> None:
    cells, edit = CHANGES[change]
    definitions = notebook.define(*cells)
    definitions.build()
    assert notebook.total() == 4.0
    assert not definitions.build()["spend"].changed
    notebook.run(edit)
    assert definitions.plan()["spend"].reason == "logic_changed"
    built = definitions.build()["spend"]
    assert (built.version, built.reason, notebook.total()) == ("1.1.0", "logic_changed", 6.0)
    assert not definitions.build()["spend"].changed


def test_a_helper_module_that_is_loaded_anew_is_seen(notebook: Notebook, tmp_path: Path) -> None:
    module = tmp_path / "rates_of_notebook.py"
    module.write_text("def rate():\n    return 2\n")
    sys.path.insert(0, str(tmp_path))
    try:
        definitions = notebook.define(
            "import rates_of_notebook", FACTOR.format("rates_of_notebook.rate()")
        )
        definitions.build()
        module.write_text("def rate():\n    return 1 + 2\n")
        assert not definitions.build()["spend"].changed  # what runs is still the old one
        importlib.reload(sys.modules["rates_of_notebook"])
        assert definitions.build()["spend"].reason == "logic_changed"
        assert notebook.total() == 6.0
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("rates_of_notebook", None)


def test_what_a_function_itself_changes_is_no_change_of_its_code(notebook: Notebook) -> None:
    definitions = notebook.define(
        "CACHE = {}", "def factor(df):\n    return CACHE.setdefault(len(CACHE), 2)"
    )
    assert definitions.build()["spend"].version == "1.0.0"
    assert not definitions.build()["spend"].changed
    notebook.project.drop("b", rows((1, 30, 5.0)))
    assert definitions.build()["spend"].version == "1.0.1"
    assert not definitions.build(full=True)["spend"].changed


def test_a_state_that_the_function_itself_changes_is_told(notebook: Notebook) -> None:
    definitions = notebook.define(
        "import string\nMODEL = string.Template('')",
        "def factor(df):\n    MODEL.template += '.'\n    return len(MODEL.template)",
    )
    built = definitions.build()["spend"]
    assert "its function changes factor.MODEL while it runs" in built.warnings[0]
    assert not definitions.build()["spend"].changed


def test_an_unattended_refresh_goes_by_the_code_that_was_loaded(notebook: Notebook) -> None:
    definitions = notebook.define("RATE = 2", FACTOR.format("RATE"))
    definitions.build()
    before = definitions.hash
    notebook.run("RATE = 3")
    assert not definitions.refresh("spend", attended=False).changed
    assert definitions.hash == before


def test_an_audit_says_that_the_code_changed_since(notebook: Notebook) -> None:
    definitions = notebook.define("RATE = 2", FACTOR.format("RATE"))
    definitions.build()
    notebook.run("RATE = 3")
    with pytest.raises(Exception, match="was made by other code"):
        definitions.audit("spend")
