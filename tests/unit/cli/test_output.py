"""What the command line prints: tables, colours, progress."""

import io
import json
import time

import pytest

from mlforge.cli import output
from mlforge.cli.output import lines_for
from mlforge.cli.progress import Progress
from mlforge.cli.style import Styled, style
from mlforge.cli.table import pairs, table
from mlforge.cli.wrap import columns_of, hard_wrap, shorten
from mlforge.core.text import duration, printable
from mlforge.errors import BuildError, DataError


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


STATUS = (
    ("feature", "state", "version", "rows", "online", "as of (UTC)", "ms p50/95/99", "proven"),
    ("user_merchant_spend", "quarantined", "12.104.1006", "1,165,000,006", "12.104.1005",
     "2026-11-24 10:00", "1,165/2,900/13,006", "12.104.1005 3 min ago"),
)  # fmt: skip


@pytest.mark.parametrize("width", [120, 100, 80, 60, 40, 30])
def test_numbers_and_names_are_whole_at_every_width(width: int) -> None:
    text = table(STATUS[0], [STATUS[1]], right=("rows", "ms p50/95/99"), width=width)
    assert max(map(len, text.splitlines())) <= width
    milliseconds = [STATUS[1][6]] if width > 30 else ["1,165/2,900/", "13,006"]
    for whole in (*STATUS[1][:5], *milliseconds, "2026-11-24", "10:00", "3"):
        assert whole in text
    assert "…" not in text


def test_dates_and_lists_go_on_below_before_a_row_becomes_a_list_of_facts() -> None:
    row = ("user_spend", "3,000", "2026-11-24 10:00", "user_id, merchant_id")
    text = table(("feature", "rows", "updated", "keys"), [row], right=("rows",), width=44)
    assert text.splitlines() == [
        "feature      rows  updated     keys",
        "user_spend  3,000  2026-11-24  user_id,",
        "                   10:00       merchant_id",
    ]


def test_a_path_goes_on_below_between_its_folders() -> None:
    path = "/a/very/long/folder/name/of/a/source/with/many/parts/and/an/end.parquet"
    text = table(("feature", "path"), [("user_spend", path)], width=40)
    assert max(map(len, text.splitlines())) <= 40
    assert (
        "".join(line.removeprefix("user_spend").strip() for line in text.splitlines()[1:]) == path
    )


def test_a_word_that_is_wider_than_a_line_is_broken_and_the_text_goes_on_behind_its_rest() -> None:
    text = f"spend: quarantined {'x' * 30}.parquet: amount: a/{'y' * 12}/b fails in 17 of 17 rows"
    for width in range(8, 90):
        lines = hard_wrap(text, width)
        assert max(map(columns_of, lines)) <= width
        assert "".join("".join(lines).split()) == "".join(text.split())
    assert hard_wrap(text, 24)[:4] == [
        "spend: quarantined",
        "x" * 24,
        "xxxxxx.parquet: amount:",
        "a/yyyyyyyyyyyy/b fails",
    ]
    assert hard_wrap("", 10) == hard_wrap("  ", 10) == []


@pytest.mark.parametrize("width", [80, 60, 40, 30])
def test_a_row_that_fits_no_table_is_a_list_of_facts(width: int) -> None:
    row = ("x" * 90, "y" * 30, "zzz")
    text = table(("a", "b", "c"), [row], width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "zzz" in text
    assert text.count("x") == 90
    assert text.count("y") == 30


def test_a_table_of_many_rows_that_do_not_fit_names_each_row_once() -> None:
    rows = [(f"feature_{number}", "w" * 50, "v" * 50) for number in range(3)]
    lines = table(("feature", "one", "two"), rows, width=70).splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [row[0] for row in rows]


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


def test_a_line_in_a_terminal_ends_between_words_and_elsewhere_it_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    text = "user_spend held: 3 of 5 files of 1.0.0 are gone"
    assert lines_for(Terminal(), text) == ["user_spend held: 3 of 5", "  files of 1.0.0 are gone"]
    assert lines_for(io.StringIO(), text) == [text]


def test_a_message_about_a_version_names_its_feature_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.fail("lst 1.0.0 was made by other code", "lst no", "lsts: no", about="lst")
    assert capsys.readouterr().err.splitlines() == [
        "mlforge: error: lst 1.0.0 was made by other code",
        "mlforge: error: lst: lst no",
        "mlforge: error: lst: lsts: no",
    ]


@pytest.mark.parametrize("message", ["lst: no column 'a'", "no column 'a'"])
def test_an_error_names_its_feature_once(message: str, capsys: pytest.CaptureFixture[str]) -> None:
    output.fail(message, about="lst")
    assert capsys.readouterr().err == "mlforge: error: lst: no column 'a'\n"
    error = BuildError({"lst": DataError(message)}, {})
    assert str(error) == "1 of 1 features failed\nlst: no column 'a'"


def test_the_place_of_a_fault_in_an_expression_stands_below_its_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    expression = "    a + b\x1b\n      ^"
    output.fail(f"derive 'x':\n  a and b are mixed\n{expression}", "no\n    column", about="lst")
    assert capsys.readouterr().err.splitlines() == [
        "mlforge: error: lst: derive 'x': a and b are mixed",
        "    a + b\\x1b",
        "      ^",
        "mlforge: error: lst: no column",
    ]


def test_pairs_line_values_up() -> None:
    assert pairs([("a", 1), ("long", None)], indent=2) == "  a     1\n  long  -"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "12 ms"), (3.44, "3.4 s"), (125.2, "2 min 5 s"), (119.7, "2 min 0 s")],
)
def test_times_are_short(value: float, text: str) -> None:
    assert duration(value) == text


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
        deadline = time.monotonic() + 60
        while "1/2  b" not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "1/2  b" in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_progress_on_short_work_or_outside_a_terminal_shows_nothing() -> None:
    for stream, after in ((Terminal(), 60.0), (io.StringIO(), 0.0)):
        with Progress("a", stream=stream, after=after) as progress:
            progress.step()
        assert stream.getvalue() == ""
