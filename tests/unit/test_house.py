"""The house in order: the picture of packages is that of the code, docstrings begin as agreed."""

import ast
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

from checks import circles, packages, sentences


def test_the_picture_of_packages_is_what_the_imports_give() -> None:
    drawing = packages.picture(packages.imports())
    assert packages.PICTURE.read_text() == drawing, "run python -m checks.packages"


def test_packages_stand_on_floors_without_a_circle_the_worker_on_top() -> None:
    floors = packages.ranks(packages.imports())
    assert floors["errors"] == 0
    assert floors["core"] == 1
    assert max(floors, key=lambda name: floors[name]) == "worker"
    assert max(floors.values()) <= 12


def test_a_circle_of_packages_is_found_and_named() -> None:
    graph = {"a": frozenset("b"), "b": frozenset("c"), "c": frozenset("a")}
    with pytest.raises(ValueError, match="a circle: a -> b -> c -> a"):
        packages.ranks(graph)


def test_an_arrow_that_others_imply_is_left_out() -> None:
    graph = {"a": frozenset("bc"), "b": frozenset("c"), "c": frozenset()}
    assert packages.reduced(graph) == {"a": {"b"}, "b": {"c"}, "c": set()}


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ('"""What it does."""', 1),
        ('def f():\n    """It runs."""', 1),
        ('class A:\n    x: int\n    """Those of before."""', 1),
        (
            'class A:\n    """One row."""\n    def f(self):\n        """\n        These and those."""',
            2,
        ),
        ('"""A row: what it holds."""\nx = lambda: 1', 0),
        ('def f():\n    """Iterate."""\n    return "What"', 0),
        ('def f():\n    """Oneself."""', 0),
    ],
)
def test_docstrings_that_begin_with_a_pronoun_are_found(source: str, count: int) -> None:
    found = [
        text for _, text in sentences.docstrings(ast.parse(source)) if sentences.begins_badly(text)
    ]
    assert len(found) == count


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


def test_install_lines_name_a_checkout_or_a_wheel_never_the_public_index() -> None:
    pages = [packages.ROOT / "README.md", *(packages.ROOT / "docs").rglob("*.md")]
    sources = [*(packages.ROOT / "mlforge").rglob("*.py"), *(packages.ROOT / "deploy").rglob("*")]
    by_name = re.compile(r"pip3? install (?:-\S+ )*['\"]?mlforge\b(?!['\"]?[^\s]*/)")
    for file in [*pages, *(path for path in sources if path.is_file())]:
        for line in file.read_text(errors="replace").splitlines():
            assert not by_name.search(line) or "never by" in line, f"{file}: {line}"


def test_no_docstring_begins_with_a_pronoun() -> None:
    assert list(sentences.offenders()) == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circles.circles(circles.imports()) == []


@pytest.mark.parametrize(
    ("modules", "found"),
    [
        ({"a": "from mlforge.b import f", "b": "def f():\n    from mlforge.a import g"}, ["ab"]),
        ({"a": "import mlforge.b", "b": "from mlforge import c", "c": "import mlforge.a"}, ["abc"]),
        ({"a": "import mlforge.b", "b": "import mlforge.c", "c": "import mlforge.b"}, ["bc"]),
        ({"a": "from mlforge.b import f", "b": "if TYPE_CHECKING:\n    import mlforge.a"}, []),
        ({"a": "import mlforge.b\nimport mlforge.c", "b": "import mlforge.c", "c": ""}, []),
    ],
)
def test_circles_of_modules_are_found_late_imports_included(
    tmp_path: Path, modules: dict[str, str], found: list[str]
) -> None:
    (tmp_path / "mlforge").mkdir()
    for name, code in modules.items():
        (tmp_path / "mlforge" / f"{name}.py").write_text(code)
    graph = circles.imports(tmp_path)
    assert [[f"mlforge.{n}" for n in names] for names in found] == [
        sorted(circle) for circle in circles.circles(graph)
    ]


def test_no_module_is_longer_than_400_lines() -> None:
    lengths = {
        str(path.relative_to(packages.ROOT)): len(path.read_text().splitlines())
        for folder in circles.FOLDERS
        for path in (packages.ROOT / folder).rglob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length > 400} == {}
