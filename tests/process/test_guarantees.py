"""The page of guarantees names tests: each must exist, and those that it calls long must be those that are."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from checks.packages import blocks
from mlforge.core.syntax import module_tree
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "guarantees.md"


@cache
def known_tests(file: str) -> dict[str, bool]:
    """The tests of all files of a name, and whether each is left out of the default run."""
    trees = [module_tree(path.read_text()) for path in files_of_tests() if path.stem == file]
    return {
        node.name: any(ast.unparse(mark) == "pytest.mark.slow" for mark in node.decorator_list)
        for tree in trees
        for node in blocks(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@cache
def files_of_tests() -> list[Path]:
    """All files of tests."""
    return list((ROOT / "tests").rglob("test_*.py"))


def named() -> list[tuple[str, str, bool]]:
    """File, test, and whether the page calls it long."""
    found = re.findall(r"(\*long\* )?`(test_\w+)::(test_\w+)`", PAGE.read_text())
    return [(file, test, bool(long)) for long, file, test in found]


def test_every_test_that_the_page_names_exists_and_is_as_long_as_it_says() -> None:
    wrong = [
        f"{file}::{test}" for file, test, long in named() if known_tests(file).get(test) is not long
    ]
    assert wrong == []
    assert len(named()) > 80


def test_every_promise_says_what_it_assumes_and_what_shows_it() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith("| promise |")]
    assert len(promises) > 40
    for row in promises:
        promise, assumes, shown = (cell.strip() for cell in row.strip("|").split(" | "))
        assert promise
        assert assumes
        assert "::" in shown, promise
