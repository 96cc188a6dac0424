"""The checks of the whole tree, on small examples."""

from pathlib import Path

import pytest

from checks import circles, packages, sentences
from mlforge.core.syntax import module_tree


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
        text
        for _, text in sentences.docstrings(module_tree(source))
        if sentences.begins_badly(text)
    ]
    assert len(found) == count


def test_a_comment_that_tears_a_statement_apart_is_found() -> None:
    torn = ["    ):  # only then", ")  # as before", "],  # the last"]
    whole = ["# only then", "f(x)  # as before", ")  # fmt: skip", '    ")  # text"']
    assert [line for line in [*torn, *whole] if sentences.hangs(line)] == torn


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
