"""The language of derived columns: its meaning by hand, and its messages."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from mlforge import feature
from mlforge.core.expression.columns import (
    Derived,
    RowDerivation,
    check_names,
    columns_of_t,
    typed,
)
from mlforge.core.values import to_us
from mlforge.errors import ExpressionError
from mlforge.metrics import Rolling

DTYPES = {
    "n": "Int64",
    "m": "Int8",
    "x": "Float64",
    "money": "Decimal(10, 2)",
    "ok": "Boolean",
    "city": "String",
    "seen": "Datetime(us, UTC)",
    "day": "Date",
    "tags": "List(String)",
    "ids": "List(Int64)",
    "clock": "Time",
    "nothing": "Null",
}
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
ROW = {
    "n": 7,
    "m": None,
    "x": 2.5,
    "money": Decimal("1.10"),
    "ok": True,
    "city": "Köln",
    "seen": datetime(2026, 1, 1, 12, tzinfo=UTC),
    "day": date(2026, 1, 1),
    "tags": ["a", "b"],
    "ids": [],
    "clock": None,
    "nothing": None,
}
MOST = (1 << 63) - 1


def value(expression: str, **changes: Any) -> Any:
    return values(Derived("d", expression), **changes)["d"]


def values(*derived: Derived, **changes: Any) -> dict[str, Any]:
    columns = typed(derived, "f", tuple(DTYPES.items()), True)
    by_row = RowDerivation(columns, DTYPES, [column.name for column in columns])
    return by_row(ROW | changes, to_us(NOON))


def refusal(expression: str) -> str:
    with pytest.raises(ExpressionError) as caught:
        value(expression)
    return str(caught.value)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("n / 2", 3.5),
        ("n // 2", 3),
        ("-n // 2", -4),
        ("-n % 4", 1),
        ("-x % 2", 1.5),
        ("n / 0", None),
        ("n // 0", None),
        ("n % 0", None),
        ("x / 0.0", None),
        ("n + m", None),
        (f"n + {MOST}", None),
        (f"-{MOST} - 1", -MOST - 1),
        ("1e308 * 10", None),
        ("1 / (1e308 * 10)", None),
        ("money * 2", 2.2),
        ("round(x)", 2.0),
        ("round(3.5)", 4.0),
        ("round(2.675, 2)", 2.68),
        ("round(n)", 7),
        ("floor(-x)", -3.0),
        ("ceil(x)", 3.0),
        ("sqrt(-x)", None),
        ("log(0)", None),
        ("exp(1000)", None),
        ("log1p(0)", 0.0),
        ("clip(n, 0, 5)", 5),
        ("clip(n, 0, m)", None),
        ("min(n, x)", 2.5),
        ("max(n, m)", None),
        ("abs(-x)", 2.5),
    ],
)
def test_numbers(expression: str, expected: Any) -> None:
    answer = value(expression)
    assert (type(answer), answer) == (type(expected), expected)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("coalesce(m, n)", 7),
        ("coalesce(m, m + 1, x)", 2.5),
        ("is_null(m)", True),
        ("is_null(clock)", True),
        ("not is_null(m)", False),
        ("is_null(m) or m > 3", True),
        ("m > 3 and not ok", False),
        ("m > 3 and ok", None),
        ("m > 3 or not ok", None),
        ("not (m > 3)", None),
        ("1 if m > 3 else 2", None),
        ("n if ok else m", 7),
        ("m if ok else n", None),
        ("n if not ok else None", None),
        ("m in (1, 2)", None),
        ("n in (1, 7)", True),
        ("n not in (1, 7)", False),
        ("n in (1, 7.0)", True),
        ("m in ids", None),
        ("n in ids", False),
        ("nothing * 2", None),
        ("is_null(nothing)", True),
        ("coalesce(nothing, city)", "Köln"),
    ],
)
def test_nulls(expression: str, expected: Any) -> None:
    answer = value(expression)
    assert (type(answer), answer) == (type(expected), expected)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("length(city)", 4),
        ("length(tags)", 2),
        ("length(ids)", 0),
        ("contains(city, 'öl')", True),
        ("contains(city, '')", True),
        ("contains(city, '.')", False),
        ("contains(tags, 'b')", True),
        ("'c' not in tags", True),
        ("city < 'L'", True),
        ("seconds(t - seen)", 86400.0),
        ("hours(t - seen)", 24.0),
        ("days(t - day)", 1.5),
        ("(t - seen) / (t - day)", 24 / 36),
        ("t - (t - seen)", datetime(2026, 1, 1, 12, tzinfo=UTC)),
        ("day", date(2026, 1, 1)),
        ("day < '2026-01-02'", True),
        ("day == seen", False),
        ("max(day, seen)", datetime(2026, 1, 1, 12, tzinfo=UTC)),
        ("seen >= '2026-01-01T13:00:00+01:00'", True),
        ("0 < n < 7", False),
        ("ok == True", True),
    ],
)
def test_texts_lists_and_times(expression: str, expected: Any) -> None:
    answer = value(expression)
    assert (type(answer), answer) == (type(expected), expected)


def test_an_instant_outside_the_years_1_to_9999_is_null() -> None:
    assert value("seen + (t - seen)", seen=datetime(9999, 12, 31, tzinfo=UTC)) == NOON
    late = datetime(9999, 12, 31, tzinfo=UTC)
    assert value("seen + (seen - t)", seen=late) is None


def test_later_columns_use_earlier_ones_and_know_what_depends_on_t() -> None:
    derived = (
        Derived("age", "days(t - seen)"),
        Derived("twice", "n * 2"),
        Derived("old", "age > twice"),
    )
    assert values(*derived) == {"age": 1.0, "twice": 14, "old": False}
    assert columns_of_t(derived, "f") == ("age", "old")


def test_some_columns_are_computed_and_the_others_read_from_the_row() -> None:
    derived = (Derived("twice", "n * 2"), Derived("age", "days(t - seen) + twice"))
    columns = typed(derived, "f", tuple(DTYPES.items()), True)
    finish = RowDerivation(columns, DTYPES, ["age"])
    assert finish({"seen": ROW["seen"], "twice": 3}, to_us(NOON)) == {"age": 4.0}


@pytest.mark.parametrize(
    ("expression", "problem", "advice"),
    [
        ("n +", "does not parse", "at character 4"),
        ("n m", "does not parse", "at character 3"),
        ("", "is empty", "as in 'a / b'"),
        ("clip(n, 1)", "clip takes 3 arguments, not 2", "as in clip(x, 0, 1)"),
        ("log(n, 2)", "log takes 1 argument, not 2", "as in log(x)"),
        ("coalesce()", "coalesce takes 2 or more arguments, not 0", "as in coalesce(a, b)"),
        ("n = 1", "does not parse", "write == to compare"),
        ("n > 1 && ok", "does not parse", "write: and"),
        ("ok || ok", "does not parse", "write: or"),
        ("n <> 1", "does not parse", "write: !="),
        ("n =< 1", "does not parse", "write: <="),
        ("n => 1", "does not parse", "write: >="),
        ("n between 1 and 2", "does not parse", "write: a <= x and x <= b"),
        ("if ok then n", "does not parse", "write: x if c else y"),
        ("n == NULL", "no column 'NULL'", "is_null(x) to ask for it"),
        ("!ok", "does not parse", "write: not"),
        ("ok ? n : m", "does not parse", "write: x if c else y"),
        ("n > 1 AND ok", "does not parse", "in small letters"),
        ("city == 'a = b' +", "does not parse", "write one expression"),
        ("n if ok else null", "no column 'null'", "write None"),
        ("ok == true", "no column 'true'", "write True"),
        ("(" * 300 + "n" + ")" * 300, "does not parse", ""),
        ("-" * 3000 + "n", "nested more than 100 deep", "earlier derived columns"),
        ("not " * 900 + "ok", "nested more than 100 deep", "earlier derived columns"),
        (" + ".join(["n"] * 900), "nested more than 100 deep", "earlier derived columns"),
        ("min(" + ", ".join(["n"] * 1200) + ")", "more than 1000 parts", "earlier"),
        ("n" * 5000, "5000 characters", "earlier derived columns"),
        ("m ** 2", "there is no **", "x * x"),
        ("ok & ok", "there is no &", "write: and"),
        ("~ok", "there is no ~", "write: not"),
        ("n is None", "there is no `is`", "is_null(x)"),
        ("n == None", "nothing equals null", "is_null(x)"),
        ("city.upper()", "no attributes and methods", "as in log(x)"),
        ("tags[0]", "no [...] behind a value", "at character 1"),
        ("(1, 2)", "only behind `in`", "x in (1, 2)"),
        ("f'{n}'", "no f-strings", "plain text"),
        ("b'x'", "no number and no text", ""),
        ("[n for n in ids]", "no part of an expression", "coalesce"),
        ("lambda: n", "no part of an expression", ""),
        ("(n := 3)", "no part of an expression", ""),
        ("__import__('os').system('x')", "no attributes and methods", ""),
        ("__import__('os')", "there is no function '__import__'", ""),
        ("len(city)", "there is no function 'len'", "'length'"),
        ("minutes(t - seen)", "there is no function 'minutes'", "seconds(x) / 60"),
        ("sum(x)", "there is no function 'sum'", "aggregate in metrics="),
        ("sqroot(x)", "there is no function 'sqroot'", "'sqrt'"),
        ("log(x, 2)", "log takes 1 argument, not 2", ""),
        ("log(x=2)", "plain arguments", ""),
        ("round(x, n)", "digits of round are a whole number", "round(x, 2)"),
        ("1e400", "larger than any float", ""),
        (str(MOST + 1), "more than 64 bits", "with a point"),
        ("n in ()", "no value behind `in`", ""),
        ("n in (m, 2)", "numbers and texts", "join others by: or"),
        ("'ö' in city", "looks into lists", "contains(text, part)"),
    ],
)
def test_what_is_no_expression_is_refused_where_it_stands(
    expression: str, problem: str, advice: str
) -> None:
    message = refusal(expression)
    assert message.startswith("f: derive 'd': ")
    assert problem in message
    assert advice in message


@pytest.mark.parametrize(
    ("expression", "problem", "advice"),
    [
        ("city + 1", "+ mixes city (text) and 1 (a whole number)", "cast the column"),
        ("ok + 1", "+ mixes ok (true or false) and 1", "(1 if x else 0)"),
        ("(t - seen) > 3", "> mixes", "hours(...)"),
        ("t - seen", "a column cannot be a duration", "days(...)"),
        ("tags", "a column cannot be a list (text)", "derive a number"),
        ("clock", "a type that only is_null() takes", ""),
        ("n and ok", "and takes true or false, not n (a whole number)", "x > 0"),
        ("1 if n else 2", "if takes true or false", "x > 0"),
        ("n if ok else city", "if ... else mixes n (a whole number) and city (text)", ""),
        ("coalesce(n, city)", "coalesce mixes", ""),
        ("days(n)", "days takes a duration", ""),
        ("length(n)", "length takes a text or a list", ""),
        ("contains(n, 1)", "contains takes a text and a part of it", ""),
        ("n in tags", "in mixes n (a whole number) and tags (a list (text))", ""),
        ("x in ids", "in mixes x (a number)", ""),
        ("x in (1, 'a')", "in mixes x (a number) and 'a' (text)", "cast the column"),
        ("city in ('a', 1, 'b')", "in mixes city (text) and 1 (a whole number)", "cast the column"),
        ("clip(x, 1, city)", "clip mixes x (a number) and city (text)", "cast the column"),
        ("max('a', 1, 2.5)", "max mixes 'a' (text) and 1 (a number)", "cast the column"),
        ("coalesce(m, n, x, seen)", "coalesce mixes x (a number) and seen (an instant)", ""),
        ("min(None, ok)", "an order, not ok (true or false), at character 11", ""),
        ("clip(None, ok, ok)", "an order, not ok (true or false), at character 12", ""),
        ("t + seen", "+ takes numbers", "subtract two instants"),
        ("-city", "- takes numbers, not city (text)", ""),
        ("seen < 'soon'", "'soon' is no date", "'2026-01-31'"),
        ("tags == tags", "== takes single values", ""),
        ("ok < ok", "< takes values that have an order", ""),
        ("amonut", "no column 'amonut'", "there are n, m, x"),
        ("cty", "no column 'cty'", "did you mean 'city'?"),
    ],
)
def test_kinds_that_do_not_go_together_are_refused_with_a_way_out(
    expression: str, problem: str, advice: str
) -> None:
    message = refusal(expression)
    assert problem in message
    assert advice in message


def test_a_message_points_at_the_place_in_the_text() -> None:
    message = refusal("'Köln' == city and city >\n n").splitlines()
    assert "> mixes city (text) and n (a whole number), at character 20" in message[0]
    assert message[1:] == ["    'Köln' == city and city >  n", "                       ^^^^^^^^^"]
    lines = refusal("n + cty").splitlines()
    assert lines[1:] == ["    n + cty", "        ^^^"]
    lines = refusal("0 + " * 40 + "cty + 1").splitlines()
    assert len(lines[1]) <= 104
    assert lines[1][lines[2].index("^") :].startswith("cty")


PIECES = """n x t ok city tags 1 2.5 'é' ( ) + - * / // % ** < >= == and or not if else in is lambda : , [ ] { }
min coalesce log days contains . = := # ' " \\ 0x 1e None True f'' ` @ ~ await yield *n ** ... __import__"""


def parses(text: str) -> bool:
    try:
        typed((Derived("d", text),), "f", tuple(DTYPES.items()), True)
    except ExpressionError:
        return False
    return True


def test_no_text_does_anything_but_parse_or_be_refused() -> None:
    r, pieces = random.Random(5), PIECES.split()
    texts = (
        r.choice(["", " ", "\n"]).join(r.choice(pieces) for _ in range(r.randint(1, 7)))
        for _ in range(4_000)
    )
    seen = Counter(map(parses, texts))
    assert min(seen[True], seen[False]) > 50


def test_a_column_of_itself_or_of_a_later_one_is_told_from_no_column() -> None:
    own, later = Derived("a", "1 + a"), (Derived("a", "1 + b"), Derived("b", "n"))
    for check in (
        lambda derived: check_names(derived, "f", ["n"], None),
        lambda derived: typed(tuple(derived), "f", (("n", "Int64"),), False),
    ):
        with pytest.raises(ExpressionError, match="'a' is computed from itself, at character 5"):
            check([own])
        with pytest.raises(ExpressionError, match=r"'b' is derived after .* put 'b' before 'a'"):
            check(later)
        check([Derived("a", "n"), Derived("b", "a")])


def test_names_are_checked_before_there_is_a_schema() -> None:
    derived = (Derived("a", "n / 2"), Derived("b", "a + c"))
    with pytest.raises(ExpressionError, match="derive 'b': no column 'c', at character 5"):
        check_names(derived, "f", ["n"], "at")
    with pytest.raises(ExpressionError, match="'at' is the events' time"):
        check_names((Derived("a", "at"),), "f", ["n"], "at")
    with pytest.raises(ExpressionError, match="without timestamp= has no instant t"):
        check_names((Derived("a", "days(t - n)"),), "f", ["n"], None)
    check_names((Derived("a", "days(t - n)"),), "f", ["n"], "at")


SPEND = {
    "keys": ["k"],
    "source": "in/",
    "timestamp": "at",
    "metrics": [Rolling("7d", {"x": ["sum", "count", "last", "last_time"], "city": "count_distinct"})],
}  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "problem", "place", "advice"),
    [
        ("'a' + 1", "+ mixes 'a' (text) and 1 (a whole number)", 1, "cast the column"),
        ("t + 1", "+ mixes t (an instant) and 1 (a whole number)", 1, "subtract two instants"),
        ("x__last__7d + ('a' + 1)", "+ mixes 'a' (text)", 16, "cast the column"),
        ("x__sum__7d + 'a'", "+ mixes x__sum__7d (a number) and 'a' (text)", 1, "cast the column"),
        ("t - x__last_time__7d", "a column cannot be a duration", 1, "days(...)"),
        ("t - x__last_time__7d > 3", "> mixes t - x__last_time__7d (a duration)", 1, "hours(...)"),
        ("length(city__count_distinct__7d)", "length takes a text or a list", 8, ""),
        ("early > 'b'", "> mixes early (a whole number) and 'b' (text)", 1, ""),
    ],
)  # fmt: skip
def test_kinds_that_no_events_could_make_right_are_refused_as_the_feature_is_defined(
    expression: str, problem: str, place: int, advice: str
) -> None:
    derive = {"early": "x__count__7d * 2", "d": expression}
    with pytest.raises(ExpressionError) as caught:
        feature(**SPEND, derive=derive, name="f")(lambda df: df)
    said, text, carets = str(caught.value).splitlines()
    assert said.startswith("f: derive 'd': ")
    assert problem in said
    assert f"at character {place}" in said
    assert advice in said
    assert (text.strip(), carets.index("^") - 4) == (expression, place - 1)


@pytest.mark.parametrize(
    "expression",
    [
        "x__last__7d + 1",
        "x__last__7d + 'a'",
        "k + x__sum__7d",
        "x__sum__7d in (1, 2)",
        "coalesce(x__last__7d, 'none')",
        "days(t - x__last_time__7d) + x__count__7d",
        "1 if x__last__7d == 'a' else 2",
    ],
)
def test_what_some_events_would_make_right_is_left_to_them(expression: str) -> None:
    feature(**SPEND, derive={"d": expression}, name="f")(lambda df: df)


def test_a_feature_without_metrics_is_checked_as_far_as_it_says() -> None:
    raw = {"keys": ["k"], "source": "in/", "name": "f"}
    with pytest.raises(ExpressionError, match=r"derive 'd': .* mixes 'a' \(text\) and 1"):
        feature(**raw, derive={"d": "'a' + 1"})(lambda df: df)
    with pytest.raises(
        ExpressionError, match="without timestamp= has no instant t, at character 6"
    ):
        feature(**raw, derive={"d": "days(t - seen)"})(lambda df: df)
    feature(**raw, derive={"d": "amount + 1"})(lambda df: df)
