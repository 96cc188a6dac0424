"""Rules: what they say of themselves, and what they say of rows."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest

import mlforge.validators as v
from mlforge.errors import ColumnNotFound, DefinitionError, ValidationError
from mlforge.frames.validate import Report, check

NAN, INF = float("nan"), float("inf")
DAY = date(2024, 5, 1)
MIDNIGHT = datetime(2024, 5, 1, tzinfo=UTC)


def report(values: object, *rules: v.Rule) -> Report:
    return check({"x": rules}, pl.DataFrame({"x": values}), "spend: a.parquet")


def broken(values: object, rule: v.Rule) -> int:
    failures = report(values, rule).failures
    return failures[0].rows if failures else 0


# Descriptions.


@pytest.mark.parametrize(
    ("rule", "text", "arguments"),
    [
        (v.not_null(), "not_null()", []),
        (v.unique(), "unique()", []),
        (v.greater_than(0), "greater_than(0)", [0]),
        (v.less_than(1.5), "less_than(1.5)", [1.5]),
        (v.greater_than_or_equal(Decimal("0.10")), "greater_than_or_equal(0.10)", ["0.10"]),
        (v.less_than_or_equal(DAY), "less_than_or_equal(2024-05-01)", ["2024-05-01"]),
        (v.in_range(0, 10), "in_range(0, 10)", [0, 10]),
        (v.matches_regex("^a$"), "matches_regex('^a$')", ["^a$"]),
        (v.is_in(["a", "b"]), "is_in(['a', 'b'])", [["a", "b"]]),
        (
            v.is_in([MIDNIGHT]),
            "is_in([2024-05-01 00:00:00+00:00])",
            [["2024-05-01T00:00:00.000000Z"]],
        ),
    ],
)
def test_a_rule_describes_itself_in_text_and_json(rule, text, arguments):
    assert rule.describe() == str(rule) == text
    assert json.loads(json.dumps(rule.to_json())) == {
        "name": rule.name,
        "arguments": arguments,
        "on_fail": "error",
    }


def test_rules_are_values():
    assert v.in_range(0, 10) == v.in_range(0, 10)
    assert len({v.is_in([1, 2]), v.is_in((1, 2)), v.is_in([1, 2], on_fail="warn")}) == 2
    assert str(v.unique(on_fail="drop")) == "unique(on_fail='drop')"
    assert str(v.in_range(0, 1, on_fail="warn")) == "in_range(0, 1, on_fail='warn')"
    with pytest.raises(AttributeError):
        v.not_null().name = "other"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: v.not_null(on_fail="ignore"), "use one of error, drop, warn"),
        (lambda: v.matches_regex("(a"), "is not a pattern"),
        (lambda: v.matches_regex(1), "is not a text"),
        (lambda: v.is_in([]), "give at least one"),
        (lambda: v.is_in("abc"), r"write is_in\(\['abc'\]\)"),
        (lambda: v.is_in([1, "a"]), "mixes number and text"),
        (lambda: v.is_in([1, True]), "mixes boolean and number"),
        (lambda: v.is_in([None]), "neither a number nor a date"),
        (lambda: v.in_range(10, 0), "give the lower bound first"),
        (
            lambda: v.in_range(datetime(2024, 5, 1, 1, tzinfo=UTC), DAY),
            "give the lower bound first",
        ),
        (lambda: v.in_range(0, DAY), "cannot be compared"),
        (lambda: v.greater_than("a"), "neither a number nor a date"),
        (lambda: v.greater_than(True), "neither a number nor a date"),
        (lambda: v.less_than(NAN), "counts as null"),
        (lambda: v.less_than(Decimal("Infinity")), "counts as null"),
        (lambda: v.greater_than(2**64), "more than 64 bits"),
    ],
)
def test_arguments_that_make_no_rule_are_refused(make, says):
    with pytest.raises(DefinitionError, match=says):
        make()


# Rows.


@pytest.mark.parametrize(
    ("values", "rule", "rows"),
    [
        ([1, None, 3], v.not_null(), 1),
        ([NAN, INF, None, 1.0], v.not_null(), 3),
        ([1, 2, 1, 1, None, None], v.unique(), 2),
        ([NAN, NAN, 1.0], v.unique(), 0),
        ([[1], [1], [2]], v.unique(), 1),
        ([-1, 0, 1, None], v.greater_than(0), 2),
        ([-1, 0, 1, None], v.less_than(0), 2),
        ([-1, 0, 1, None], v.greater_than_or_equal(0), 1),
        ([-1, 0, 1, None], v.less_than_or_equal(0), 1),
        ([-1, 0, 5, 10, 11], v.in_range(0, 10), 2),
        ([NAN, INF, -INF, -1.0], v.greater_than(0), 1),
        ([1, 2], v.greater_than(1.5), 1),
        (pl.Series([0, 255], dtype=pl.UInt8), v.in_range(-1, 300), 0),
        (pl.Series([2**64 - 1], dtype=pl.UInt64), v.greater_than(2**63), 0),
        ([Decimal("1.10"), Decimal("1.20")], v.greater_than(Decimal("1.1")), 1),
        (["ab", "b", None], v.matches_regex("a"), 1),
        (["ab", "b", "a"], v.matches_regex("^a$"), 2),
        (["a", "b", None], v.is_in(["a"]), 1),
        ([1, 2, None], v.is_in([1.0, 2.5, -(2**63)]), 1),
        (pl.Series([0, 255], dtype=pl.UInt8), v.is_in([-1, 255, 256]), 1),
        (pl.Series([0.1, 0.2], dtype=pl.Float32), v.is_in([0.1]), 1),
        ([NAN, 1.0, 2.0], v.is_in([1]), 1),
        ([Decimal("1.10"), Decimal("1.20")], v.is_in([1.1]), 1),
        ([True, False, None], v.is_in([True]), 1),
        ([None, None], v.not_null(), 2),
        ([None, None], v.greater_than(0), 0),
        ([None, None], v.matches_regex("a"), 0),
    ],
)
def test_a_rule_finds_the_rows_that_break_it(values, rule, rows):
    assert broken(values, rule) == rows


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Enum(["a", "b"])])
def test_categories_are_compared_as_text(dtype):
    values = pl.Series(["a", "b", "b", None], dtype=dtype)
    assert broken(values, v.unique()) == 1
    assert broken(values, v.matches_regex("^a$")) == 2
    assert broken(values, v.is_in(["b"])) == 1


@pytest.mark.parametrize("unit", ["ns", "us", "ms"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
@pytest.mark.parametrize("bound", [DAY, MIDNIGHT, MIDNIGHT.replace(tzinfo=None)])
def test_instants_are_compared_in_utc_whatever_their_unit_and_zone(unit, zone, bound):
    values = pl.Series([MIDNIGHT, MIDNIGHT.replace(year=2023)]).cast(pl.Datetime(unit, "UTC"))
    values = values.dt.convert_time_zone(zone) if zone else values.dt.replace_time_zone(None)
    assert broken(values, v.greater_than_or_equal(bound)) == 1
    assert broken(values, v.greater_than(bound)) == 2
    assert broken(values, v.is_in([bound])) == 1


def test_dates_are_compared_with_dates_and_instants():
    values = [DAY, date(2024, 5, 2), None]
    assert broken(values, v.less_than_or_equal(DAY)) == 1
    assert broken(values, v.in_range(MIDNIGHT, datetime(2024, 5, 1, 1, tzinfo=UTC))) == 1
    assert broken(values, v.is_in([DAY])) == 1


def test_instants_beyond_the_calendar_are_compared_and_shown():
    far = pl.Series([2**62]).cast(pl.Datetime("ms"))
    assert report(far, v.less_than(date(2100, 1, 1))).text() == (
        "x: less_than(2100-01-01) fails in 1 of 1 rows (4611686018427387904000 us since 1970)"
    )


def test_no_rows_break_no_rule():
    frame = pl.DataFrame({"x": pl.Series([], dtype=pl.Int64)})
    got = check({"x": [v.not_null(), v.unique(on_fail="drop"), v.is_in([1])]}, frame, "spend")
    assert (got.failed, got.failures, got.dropped, got.text()) == (False, (), 0, "")


@pytest.mark.parametrize(
    ("values", "rule", "says"),
    [
        ([1], v.matches_regex("1"), "column 'x', which is Int64; it is for text columns"),
        (["1"], v.greater_than(0), "column 'x', which is String; it is for number columns"),
        ([True], v.greater_than(0), "which is Boolean; it is for number columns"),
        ([1], v.is_in([True]), "which is Int64; it is for boolean columns"),
        ([MIDNIGHT], v.greater_than(0), r"which is Datetime\(us, UTC\); it is for number columns"),
        ([[1]], v.greater_than(0), r"which is List\(Int64\); it is for number columns"),
    ],
)
def test_a_rule_that_does_not_go_with_the_dtype_is_an_error(values, rule, says):
    with pytest.raises(ValidationError, match=f"^spend: a.parquet: .* does not go with .*{says}"):
        report(values, rule)


def test_a_pattern_that_only_python_knows_is_an_error_of_the_definition():
    with pytest.raises(DefinitionError, match="look-ahead and look-behind, is not supported"):
        report(["a"], v.matches_regex("(?=a)"))


@pytest.mark.parametrize("rule", [v.required(), v.not_null()])
def test_a_missing_column_that_must_be_there_is_named(rule):
    with pytest.raises(ColumnNotFound, match="spend: no column 'y'; there are x"):
        check({"y": [rule]}, pl.DataFrame({"x": [1]}), "spend")


def test_required_asks_for_the_column_and_not_for_values():
    assert not report([None, 1], v.required()).failures
    assert not report([None, None], v.required()).failures


@pytest.mark.parametrize(("on_fail", "kept"), [("drop", 0), ("warn", 2)])
def test_a_file_without_a_required_column_is_dropped_or_told_of_where_the_rule_says_so(
    on_fail, kept
):
    got = check({"y": [v.required(on_fail=on_fail)]}, pl.DataFrame({"x": [1, 2]}), "spend")
    assert (got.kept.height, got.failed) == (kept, False)
    assert got.text() == "y: required() fails in 2 of 2 rows (there is no such column)"


def test_a_column_that_is_missing_is_null_to_rules():
    rules = [v.greater_than(0), v.unique(), v.is_in(["a"]), v.matches_regex("a")]
    frame = pl.DataFrame({"x": [1, 2]})
    passed = check({"y": rules}, frame, "spend")
    assert (passed.failures, passed.kept.columns) == ((), ["x"])
    null = check({"y": [v.not_null(on_fail="drop")]}, frame, "spend")
    assert null.text() == "y: not_null() fails in 2 of 2 rows (there is no such column)"
    assert null.kept.is_empty()


# Reports.


def test_a_report_says_which_rule_fails_in_how_many_rows_with_examples():
    values = [-1.0, -5.0, -5.0, -2.0, -3.0, *[1.0] * 995]
    got = report(values, v.greater_than(0), v.not_null(), v.in_range(-9, 9))
    assert got.failed
    assert got.text() == "x: greater_than(0) fails in 5 of 1,000 rows (-1.0, -5.0, -2.0)"
    assert got.failures[0].examples == ("-1.0", "-5.0", "-2.0")


def test_examples_are_short_and_missing_values_have_none():
    assert report([None, 1], v.not_null()).text() == "x: not_null() fails in 1 of 2 rows"
    text = report(["y" * 1000], v.is_in(["a"])).failures[0].examples[0]
    assert (len(text), text[:3], text[-3:]) == (40, "'yy", "...")


def test_dropped_rows_are_counted_once_and_the_others_are_kept_in_order():
    frame = pl.DataFrame({"x": [5, -1, None, 3, -2], "y": ["b", None, None, "a", "c"]})
    rules = {
        "x": [v.not_null(on_fail="drop"), v.greater_than(0, on_fail="drop")],
        "y": [v.not_null(on_fail="drop"), v.is_in(["a", "b"], on_fail="warn")],
    }
    got = check(rules, frame, "spend")
    assert (got.failed, got.dropped, got.rows) == (False, 3, 5)
    assert got.kept.rows() == [(5, "b"), (3, "a")]
    assert got.text("warn") == "y: is_in(['a', 'b']) fails in 1 of 5 rows ('c')"
    assert got.text("error") == ""
    assert len(got.failures) == 4


def test_unique_with_drop_keeps_the_first_row_of_each_value():
    frame = pl.DataFrame({"x": [2, 1, 2, None, 1, None], "row": range(6)})
    got = check({"x": [v.unique(on_fail="drop")]}, frame, "spend")
    assert got.kept["row"].to_list() == [0, 1, 3, 5]


def test_an_error_rule_sees_rows_that_another_rule_drops():
    got = report([-1, 1], v.greater_than(0, on_fail="drop"), v.greater_than(-1))
    assert (got.failed, got.dropped, got.kept["x"].to_list()) == (True, 1, [1])
