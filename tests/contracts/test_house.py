"""The house in order, as far as lint does not look: few floors, documentation of code that is there, no module that is too long."""

import ast
import importlib
import importlib.util
import re
from collections.abc import Iterator
from textwrap import dedent

import pytest

from checks import circles, packages
from mlforge.core import syntax
from mlforge.errors import MissingExtra


@pytest.mark.slow
def test_packages_stand_on_floors_without_a_circle_the_worker_on_top() -> None:
    floors = packages.ranks(packages.imports())
    assert floors["errors"] == 0
    assert floors["core"] == 1
    assert max(floors, key=lambda name: floors[name]) == "worker"
    assert max(floors.values()) <= 12


IDENTIFIER = re.compile(r"^::: (\S+)", re.MULTILINE)
REFERRED = sorted(
    {
        name
        for page in (packages.ROOT / "docs").rglob("*.md")
        for name in IDENTIFIER.findall(page.read_text())
    }
)


@pytest.mark.parametrize("name", REFERRED)
def test_code_that_the_documentation_shows_is_there(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        pytest.skip("its package is not installed")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        assert hasattr(importlib.import_module(module), attribute)


EXAMPLE = re.compile(r"^```python[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def imported(example: str) -> Iterator[tuple[str, str]]:
    """The names that an example imports from modules of ours; none of a fragment that is no whole code."""
    try:
        nodes = list(ast.walk(syntax.module_tree(dedent(example))))
    except SyntaxError:
        return
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "mlforge":
            yield from ((str(node.module), alias.name) for alias in node.names)


def test_examples_of_the_documentation_import_what_is_there() -> None:
    pages = [packages.ROOT / "README.md", *(packages.ROOT / "docs").rglob("*.md")]
    examples = [text for page in pages for text in EXAMPLE.findall(page.read_text())]
    gone = []
    for module, name in sorted({each for text in examples for each in imported(text)}):
        try:
            if not hasattr(importlib.import_module(module), name):
                importlib.import_module(f"{module}.{name}")
        except MissingExtra:
            continue
        except ModuleNotFoundError:
            gone.append(f"{module}.{name}")
    assert gone == []


def test_install_lines_name_a_checkout_or_a_wheel_never_the_public_index() -> None:
    pages = [packages.ROOT / "README.md", *(packages.ROOT / "docs").rglob("*.md")]
    sources = [*(packages.ROOT / "mlforge").rglob("*.py"), *(packages.ROOT / "deploy").rglob("*")]
    by_name = re.compile(r"pip3? install (?:-\S+ )*['\"]?mlforge\b(?!['\"]?[^\s]*/)")
    for file in [*pages, *(path for path in sources if path.is_file())]:
        for line in file.read_text(errors="replace").splitlines():
            assert not by_name.search(line) or "never by" in line, f"{file}: {line}"


def test_no_module_is_longer_than_400_lines() -> None:
    lengths = {
        str(path.relative_to(packages.ROOT)): len(path.read_text().splitlines())
        for folder in circles.FOLDERS
        for path in (packages.ROOT / folder).rglob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length > 400} == {}
