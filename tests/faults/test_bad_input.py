"""What a user may get wrong, on the command line: one clear message each, and nothing half-written."""

import ctypes
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent

import polars as pl
import pytest

from mlforge.cli import main

PROJECT = """
    import polars as pl
    import mlforge.validators as v
    from mlforge import Definitions, feature
    from mlforge.metrics import Rolling
    from mlforge.store import LocalStore

    @feature(
        keys=["user_id"],
        source="events/",
        timestamp="event_time",
        interval=None,
        metrics=[Rolling(windows=["7d"], aggregations={"amount": ["sum"]}, closed=None)],
        validators={"user_id": [v.not_null()]},
    )
    def user_spend(df):
        return df.select("user_id", "event_time", "amount")

    defs = Definitions(store=LocalStore("feature_store"), features=[user_spend], engine="polars")
"""


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFORGE_DEFINITIONS", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write_events(tmp_path)


def write_events(folder: Path, name: str = "one.parquet") -> None:
    (folder / "events").mkdir(exist_ok=True)
    days = [datetime(2025, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
    pl.DataFrame(
        {"user_id": [1, 2, 1], "event_time": days, "amount": [1.0, 2.0, 3.0]}
    ).write_parquet(folder / "events" / name)


def define(*edits: tuple[str, str]) -> None:
    """Write the project's definitions, with parts of the text replaced."""
    text = dedent(PROJECT)
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    Path("definitions.py").write_text(text)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a failing run says: each line an error of its own, and no version made."""
    capsys.readouterr()
    assert main(arguments or ("build",)) == 1
    return complained(capsys.readouterr().err)


def complained(stderr: str) -> str:
    lines = stderr.splitlines()
    assert lines
    assert [line for line in lines if not line.startswith("mlforge: error: ")] == []
    assert sorted(Path().glob("feature_store/*/[0-9.]*/*")) == []
    assert sorted(Path().glob("feature_store/*/.staged*")) == []
    return stderr


def test_the_project_builds_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    define()
    assert main(["build"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "user_spend  1.0.0" in captured.out


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            ("import polars as pl", "import polars_ as pl"),
            "definitions.py:2: does not import: ModuleNotFoundError",
        ),
        (
            ("defs = Definitions", "def s = Definitions"),
            "definitions.py:19: does not import: SyntaxError",
        ),
        (("defs = Definitions", "Definitions"), "holds no Definitions"),
        (
            ("defs = ", "more = Definitions(store=LocalStore('b'), features=[])\ndefs = "),
            "holds 2 Definitions: defs, more",
        ),
        (('keys=["user_id"]', 'keys=["a", "a"]'), "keys must name different columns"),
        (('keys=["user_id"]', 'key=["user_id"]'), "unexpected keyword argument 'key'"),
        (('["7d"]', '["7x"]'), "window '7x' is not a fixed duration"),
        (('["7d"]', '["1mo"]'), "the nearest fixed one is '30d'"),
        (('["sum"]', '["avg"]'), "unknown aggregation 'avg'"),
        (
            ("closed=None", "closed='up'"),
            "closed='up' is unknown; use one of both, right, left, none",
        ),
        (("interval=None", "interval='2d'"), "window 7d is not a multiple of the interval 2d"),
        (
            ("interval=None", "engine='pandas'"),
            "unknown engine 'pandas'; there are polars, duckdb, spark",
        ),
        (
            ('engine="polars")', 'engine="pandas")'),
            "unknown engine 'pandas'; there are polars, duckdb, spark",
        ),
        (("v.not_null()]", "v.not_null]"), "not_null"),
        (
            (
                "features=[user_spend]",
                "features=[user_spend, feature(keys=['a'], source='b', name='user_spend')(len)]",
            ),
            "two features are named 'user_spend'",
        ),
        (("features=[user_spend]", "features=['user_spend']"), "'user_spend'"),
        (
            ('source="events/"', 'source="events/", online_clock="sun"'),
            "online_clock='sun' is unknown",
        ),
        (('source="events/"', 'source="events/", name="../up"'), "'../up' is not allowed"),
    ],
)
@pytest.mark.parametrize("command", ["build", "list", "validate"])
def test_definitions_that_are_wrong_say_where_and_what(
    edit: tuple[str, str], said: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    define(edit)
    text = complaint(capsys, command)
    assert said in text
    assert "definitions.py" in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("edit", "said", "marked"),
    [
        (
            ("interval=None", "derive={'a': '\"a\" + 1'}"),
            "user_spend: derive 'a': + mixes \"a\" (text) and 1 (a whole number), at character 1",
            '"a" + 1',
        ),
        (
            ("interval=None", "derive={'a': 'amount__sum__7d * (t + 1)'}"),
            "user_spend: derive 'a': + mixes t (an instant) and 1 (a whole number), at character 20",
            "t + 1",
        ),
        (
            ("interval=None", "derive={'a': 'amount__sum__7d > \"high\"'}"),
            '> mixes amount__sum__7d (a number) and "high" (text), at character 1',
            'amount__sum__7d > "high"',
        ),
        (
            ("interval=None", "derive={'a': 'amount__sum__8d / 2'}"),
            "no column 'amount__sum__8d', at character 1; did you mean 'amount__sum__7d'?",
            "amount__sum__8d",
        ),
        (
            ("interval=None", "derive={'a': 'amount__sum__7d / '}"),
            "this does not parse (invalid syntax), at character 18",
            " ",
        ),
        (
            ("closed=None", "where='amount > 1'"),
            "Rolling: where: this is an expression, at character 1; where= names a boolean column",
            "amount > 1",
        ),
    ],
)
@pytest.mark.parametrize("command", ["build", "plan", "validate"])
def test_an_expression_that_is_wrong_is_shown_with_its_place_before_any_file_is_read(
    edit: tuple[str, str],
    said: str,
    marked: str,
    command: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    define(edit)
    Path("events/one.parquet").unlink()
    assert main([command]) == 1
    first, text, carets = capsys.readouterr().err.splitlines()
    assert first.startswith("mlforge: error: ")
    assert "definitions.py" in first
    assert said in first
    assert text[carets.index("^") : len(carets)] in (marked, "")


def test_no_definitions_at_all_says_how_to_name_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--definitions" in complaint(capsys)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('return df.select("user_id", "event_time", pl.col("amt").alias("amount"))', "amt"),
        ('return df.select("user_id", "amount")', "event_time"),
        ('return df.drop("amount")', "amount"),
        pytest.param("return None", "None", marks=pytest.mark.slow),
        pytest.param("pass", "None", marks=pytest.mark.slow),
        ('return df["amount"]', "Series"),
        pytest.param("return df.to_dicts()", "list", marks=pytest.mark.slow),
        pytest.param(
            'raise RuntimeError("no luck")', "RuntimeError: no luck", marks=pytest.mark.slow
        ),
        pytest.param("return 1 / 0", "ZeroDivisionError", marks=pytest.mark.slow),
        ("raise SystemExit(0)", "SystemExit"),
        ('return df.select(pl.col("user_id").cast(pl.Float64), "event_time", "amount")', "Float64"),
        pytest.param(
            'return df.with_columns(event_time=pl.lit("soon"))', "String", marks=pytest.mark.slow
        ),
        ('return df.with_columns(amount=pl.lit("much"))', "sum of String"),
    ],
)
@pytest.mark.parametrize("command", ["build", "validate"])
def test_a_function_that_goes_wrong_is_one_message(
    body: str, said: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    define(('return df.select("user_id", "event_time", "amount")', body))
    text = complaint(capsys, command)
    assert said in text
    assert "user_spend" in text


def test_a_validator_of_a_column_that_is_not_there_names_those_that_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    define(('{"user_id": [', '{"usr_id": ['))
    for command in ("build", "validate"):
        text = complaint(capsys, command)
        assert "usr_id" in text
        assert "amount" in text


def test_an_unknown_engine_feature_tag_or_version_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    define()
    text = complaint(capsys, "build", "--features", "user_spent")
    assert "user_spent" in text
    assert "user_spend" in text.replace("user_spent", "")
    assert "daily" in complaint(capsys, "build", "--tags", "daily")
    for option, value, says in (
        ("--engine", "pandas", "unknown engine 'pandas'"),
        ("--version", "1.0", "'1.0' is not a version"),
    ):
        capsys.readouterr()
        assert main(["build", option, value]) == 2, "the command itself is wrong"
        assert says in capsys.readouterr().err


def test_a_source_that_does_not_exist_yet_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    define(('"events/"', '"later/"'))
    assert main(["build"]) == 0
    captured = capsys.readouterr()
    assert "waiting" in captured.out
    assert "later is not there" in captured.err


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("event/", r"did you mean 'events'\?"),
        ("nowhere/at/all/", "is not there; correct source="),
        ("events/nope*.parquet", "no file is there that its source 'events/nope*.parquet' names"),
        ("events/other.parquet", "no file is there that its source"),
    ],
)
def test_validate_says_that_a_source_is_not_there(
    capsys: pytest.CaptureFixture[str], source: str, said: str
) -> None:
    define(('"events/"', f'"{source}"'))
    assert main(["validate"]) == 1
    captured = capsys.readouterr()
    assert "missing" in captured.out or "failed" in captured.out
    assert re.search(said, captured.err) or said in captured.err
    assert main(["validate", "--json"]) == 1


def test_an_empty_folder_is_a_source_whose_files_are_yet_to_come(
    capsys: pytest.CaptureFixture[str],
) -> None:
    define(('"events/"', '"later/"'))
    Path("later").mkdir()
    assert main(["validate"]) == 0
    assert main(["validate"]) == 0
    Path("events").rename("later")
    assert main(["build"]) == 0
    assert "1.0.0" in capsys.readouterr().out


def test_a_redis_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    define(
        ("from mlforge.store", "from mlforge.online import RedisStore\nfrom mlforge.store"),
        ("features=[", "online_store=RedisStore(port=1), features=["),
    )
    assert main(["build", "--online"]) == 1
    error = capsys.readouterr().err
    assert "localhost:1" in error
    assert error.startswith("mlforge: error: ")
    assert "Traceback" not in error


def test_online_without_an_online_store_says_what_to_add(
    capsys: pytest.CaptureFixture[str],
) -> None:
    define()
    assert main(["build", "--online"]) == 1
    error = capsys.readouterr().err
    assert "online_store" in error
    assert error.count("\n") == 1


def test_a_store_inside_a_source_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    define(('"events/"', '"."'))
    assert "lies inside the source" in complaint(capsys)


def test_a_damaged_file_is_quarantined_the_rest_is_built_and_the_run_fails(
    capsys: pytest.CaptureFixture[str],
) -> None:
    define()
    Path("events/bad.parquet").write_bytes(b"PAR1 not really PAR1")
    assert main(["build"]) == 1
    captured = capsys.readouterr()
    assert "user_spend  1.0.0" in captured.out
    assert "mlforge: error: user_spend: quarantined bad.parquet: " in captured.err
    assert main(["validate"]) == 1
    assert "bad.parquet" in capsys.readouterr().err


def test_one_failing_feature_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    define(
        (
            "defs = ",
            '@feature(keys=["user_id"], source="events/")\ndef broken(df):\n    return 3\n\ndefs = ',
        ),
        ("features=[user_spend]", "features=[broken, user_spend]"),
    )
    assert main(["build"]) == 1
    captured = capsys.readouterr()
    assert "user_spend  1.0.0" in captured.out
    assert "mlforge: error: broken: " in captured.err


def _without_the_powers_of_root() -> None:
    """Give up reading and writing where the permissions of files forbid it, as root may not."""
    if sys.platform == "linux" and os.geteuid() == 0:
        drop_from_bounding_set, dac_override, dac_read_search = 24, 1, 2
        for capability in (dac_override, dac_read_search):
            if ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0) != 0:
                os._exit(77)


def complaint_without_the_powers_of_root() -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mlforge", "build"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=_without_the_powers_of_root,
    )
    if done.returncode == 77:
        pytest.skip("root keeps its powers here")
    assert done.returncode == 1, done
    return complained(done.stderr)


def test_a_folder_that_cannot_be_read_is_named() -> None:
    define()
    Path("events").chmod(0)
    text = complaint_without_the_powers_of_root()
    Path("events").chmod(0o755)
    assert "events" in text
    assert "ermission" in text


def test_a_store_that_cannot_be_written_is_named() -> None:
    define()
    Path("feature_store").mkdir(mode=0o555)
    text = complaint_without_the_powers_of_root()
    assert "feature_store" in text
    assert "ermission" in text
