"""What the command line prints: tables, colours, progress."""

import io
import json
import time

import pytest

from mlforge.cli import output
from mlforge.cli.output import Styled, pairs, seconds, shorten, style, table
from mlforge.cli.progress import Progress
from mlforge.core.text import printable


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_a_table_lines_its_columns_up_and_numbers_flush_right() -> None:
    text = table(("name", "rows"), [("a", "1"), ("long", "1,234")], right=("rows",))
    assert text.splitlines() == ["name   rows", "a         1", "long  1,234"]


def test_a_table_never_gets_wider_than_asked_and_shortens_the_middle() -> None:
    path = "/a/very/long/folder/name/of/a/source/with/many/parts/and/an/end.parquet"
    text = table(("feature", "path", "why"), [("user_spend", path, "refreshed" * 8)], width=80)
    assert max(map(len, text.splitlines())) == 80
    assert "user_spend  /a/very" in text
    assert "…" in text


@pytest.mark.parametrize("width", [80, 60, 40, 30])
def test_a_table_with_many_wide_columns_still_fits(width: int) -> None:
    text = table(("a", "b", "c"), [("x" * 90, "y" * 30, "z" * 3)], width=width)
    assert max(map(len, text.splitlines())) == width
    assert "zzz" in text


def test_names_and_headers_are_the_last_to_be_shortened() -> None:
    name, rows = "a_feature_with_a_name", [("a_feature_with_a_name", "x" * 40, "y" * 9)]
    header, line = table(("feature", "something", "more"), rows, width=60).splitlines()
    assert line.split()[0] == name
    assert header.split() == ["feature", "something", "more"]
    assert table(("feature", "something", "more"), rows, width=24).startswith("feature")


def test_a_table_without_rows_is_its_headers() -> None:
    assert table(("a", "b"), []) == "a  b"


def test_what_is_not_known_is_a_dash() -> None:
    assert table(("a", "b"), [(None, 0)]).splitlines()[1] == "-  0"


def test_characters_that_take_two_columns_are_counted_as_two() -> None:
    lines = table(("name", "n"), [("東京", 1), ("abcd", 2)]).splitlines()
    assert lines[1:] == ["東京  1", "abcd  2"]
    assert shorten("東京東京", 5) == "東…京"


def test_control_characters_of_a_file_name_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[31m\nb\udcff") == "a\\x1b[31m\\nb\\udcff"
    assert "\x1b" not in table(("path",), [("\x1b]0;title\x07",)])


@pytest.mark.parametrize(
    ("width", "short"),
    [(9, "user_spend"[:4] + "…" + "pend"), (2, "u…"), (1, "…"), (10, "user_spend")],
)
def test_shortened_text_keeps_its_ends(width: int, short: str) -> None:
    assert shorten("user_spend", width) == short


def test_colours_are_for_terminals_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    assert style("x", "red", Terminal()) == "\x1b[31mx\x1b[0m"
    assert style("x", "red", io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert style("x", "red", Terminal()) == "x"


def test_colours_do_not_move_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", Terminal())
    line = table(("a", "b"), [(Styled("x", "green"), "y"), ("long", "z")]).splitlines()[1]
    assert line == "\x1b[32mx\x1b[0m     y"


def test_pairs_line_values_up() -> None:
    assert pairs([("a", 1), ("long", None)], indent=2) == "  a     1\n  long  -"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "12 ms"), (3.44, "3.4 s"), (125.2, "2 min 5 s"), (119.7, "2 min 0 s")],
)
def test_times_are_short(value: float, text: str) -> None:
    assert seconds(value) == text


def test_json_keeps_letters_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"name": "Zoë"})
    printed = capsys.readouterr().out
    assert "Zoë" in printed
    assert json.loads(printed) == {"name": "Zoë"}


def test_progress_shows_in_a_terminal_and_is_wiped_at_the_end() -> None:
    stream = Terminal()
    with Progress("a", total=2, stream=stream, after=0) as progress:
        progress.step()
        progress.name("b")
        deadline = time.monotonic() + 10
        while "1/2  b" not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "1/2  b" in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_progress_on_short_work_or_outside_a_terminal_shows_nothing() -> None:
    for stream, after in ((Terminal(), 60.0), (io.StringIO(), 0.0)):
        with Progress("a", stream=stream, after=after) as progress:
            progress.step()
        assert stream.getvalue() == ""
