"""The command line itself: help, exit codes, plugins."""

import importlib
import pkgutil
import sys
from pathlib import Path

import polars as pl
import pytest

from mlforge.cli import main

COMMANDS = [
    *("init", "build", "plan", "validate", "list", "manifest", "versions", "inspect", "diff"),
    *("rollback", "approve", "pin", "prune", "verify", "audit"),
    *("show", "services", "search", "lineage", "owners", "promote"),
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFORGE_DEFINITIONS", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))


def plugin(folder: Path, name: str, module: str) -> None:
    """Make a distribution whose entry point joins the command line, as pip would install it."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[mlforge.commands]\n{name} = {name}_plugin:COMMANDS\n")
    (folder / f"{name}_plugin.py").write_text(module)


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n  {command} " in printed
    assert printed.index("start:") < printed.index("\n  build ") < printed.index("look:")


def test_each_module_of_commands_is_listed_with_all_that_it_holds() -> None:
    import mlforge.cli.commands as package
    from mlforge.cli.main import MODULES

    held = {
        module.name: tuple(
            command.name
            for command in importlib.import_module(f"{package.__name__}.{module.name}").COMMANDS
        )
        for module in pkgutil.iter_modules(package.__path__)
    }
    assert held == MODULES


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself_with_an_example_in_80_columns(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([command, "--help"]) == 0
    printed = capsys.readouterr().out
    assert f"example:\n  mlforge {command}" in printed
    assert "--json" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mlforge {version('mlforge')}\n"


def test_no_command_is_a_usage_error_that_shows_the_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "start:" in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["bulid"],
        ["build", "--featurs", "a"],
        ["build", "--features", " , "],
        ["inspect"],
        ["list", "--js"],
    ],
)
def test_a_wrong_command_line_exits_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("usage: mlforge")


def test_a_misspelt_command_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bulid"]) == 2
    assert "did you mean 'build'?" in capsys.readouterr().err
    assert main(["frobnicate"]) == 2
    assert "no command 'frobnicate'; 'mlforge --help' lists them" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--feature", "a"], ["--feature=a"], ["--featurse", "a"]])
def test_a_mistyped_option_gets_the_near_one_of_its_command(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", *option]) == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: mlforge build ")
    assert f"unrecognized arguments: {' '.join(option)}; did you mean '--features'?" in said


@pytest.mark.parametrize("argument", ["qqq", "--bogus"])
def test_an_argument_that_resembles_no_option_is_named_without_a_guess(
    argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", argument]) == 2
    assert capsys.readouterr().err.endswith(f"error: unrecognized arguments: {argument}\n")


def test_an_error_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["list"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("mlforge: error: no definitions at ")
    assert captured.err.count("\n") == 1


def test_the_environment_names_definitions_and_the_option_goes_before_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFORGE_DEFINITIONS", "from_environment.py")
    assert main(["list"]) == 1
    assert "from_environment.py" in capsys.readouterr().err
    assert main(["list", "--definitions", "from_option.py"]) == 1
    assert "from_option.py" in capsys.readouterr().err


def test_a_plugin_adds_its_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin(
        tmp_path,
        "hello",
        "from mlforge.cli.command import Command\n"
        "COMMANDS = (Command('hello', 'say hello', lambda p: p.add_argument('name'), lambda a: print('hello', a.name) or 7),)",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["hello", "you"]) == 7
    assert capsys.readouterr().out == "hello you\n"


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("x = 1", "AttributeError"),
        ("COMMANDS = 3", "TypeError"),
        ("raise SystemExit(9)", "SystemExit"),
    ],
)
def test_a_broken_plugin_takes_nothing_along(
    module: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plugin(tmp_path, "broken", module)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "broken_plugin", raising=False)
    assert main(["--help"]) == 0
    assert f"not available: broken: {said}" in capsys.readouterr().out
    assert main(["init", "shop"]) == 0


def test_what_definitions_print_does_not_mix_with_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "definitions.py").write_text("print('loading')\n1 / 0")
    assert main(["list", "--json"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("loading\n")


def test_init_writes_a_project_and_never_overwrites(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "mine"]) == 0
    assert "cd mine" in capsys.readouterr().out
    definitions = tmp_path / "mine" / "definitions.py"
    definitions.write_text("# edited")
    (tmp_path / "mine" / "README.md").unlink()
    assert main(["init", "mine"]) == 1
    assert "mine/definitions.py" in capsys.readouterr().err
    assert definitions.read_text() == "# edited"
    assert not (tmp_path / "mine" / "README.md").exists()


def test_init_names_the_templates_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "mine", "--template", "../store"]) == 1
    assert "no template '../store'; there are shop" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "/proc/nowhere"]) == 1
    error = capsys.readouterr().err
    assert "/proc/nowhere" in error
    assert error.count("\n") == 1


def test_serving_without_an_online_store_is_refused_and_not_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert main(["init", "."]) == 0
    capsys.readouterr()
    assert main(["serve", "--port", "0"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "there is no online store to serve from" in told.err


def test_serving_without_its_extra_names_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlforge.serve.server.find_spec", lambda _: None)
    assert main(["serve"]) == 1
    assert "needs the extra 'serve'" in " ".join(capsys.readouterr().err.split())
    assert main(["serve", "--port", "65536"]) == 2
    assert "a number from 0 to 65535" in capsys.readouterr().err


ENDED = """
import os, signal
import polars as pl
from mlforge import Definitions, feature
from mlforge.store import LocalStore

def end(where):
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    if where == {where!r}:
        os.kill(os.getpid(), signal.SIGTERM)

@feature(keys=["user_id"], source="users/", incremental=True)
def users(df):
    end("function")
    return df

end("import")
defs = Definitions(store=LocalStore("store"), features=[users])
"""


@pytest.mark.parametrize("where", ["import", "function"])
def test_sigterm_is_no_fault_of_the_code_in_which_it_comes(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "users").mkdir()
    pl.DataFrame({"user_id": [1], "age": [30]}).write_parquet(tmp_path / "users" / "a.parquet")
    (tmp_path / "definitions.py").write_text(ENDED.format(where=where))

    assert main(["build"]) == 143
    assert capsys.readouterr() == ("", "")
    assert not list(tmp_path.glob("store/users/_books.json")), "the file is not set aside"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["wait", "x", "--timeout", "nan"], "'nan' is not a number of seconds from 0 to"),
        (["watch", "--scan-every", "0"], "'0' is not a number of seconds from 0.1 to"),
        (["up", "--audit-every", "-1"], "'-1' is not a number of seconds from 0 to"),
    ],
)
def test_seconds_that_nobody_could_wait_are_a_wrong_command_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err
