"""`where`: only events for which a boolean column is true count, in builds, training, online and `explain`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import explain, get_training_data
from mlforge.build.diff import diff
from mlforge.errors import BuildError, DefinitionError
from mlforge.metrics import Rolling
from mlforge.store.manifest_json import from_json, to_json
from tests.support.projects import Project, at, rows

FLAGS = (True, False, None, True)


def all_columns(df: pl.DataFrame) -> pl.DataFrame:
    return df


def flagged(flags: Any = FLAGS, dtype: Any = pl.Boolean) -> pl.DataFrame:
    """Four events of one user, a day apart, of the amounts 1, 10, 100, 1000."""
    frame = rows(*((1, day, 10.0**day) for day in range(4)))
    return frame.with_columns(pl.Series("is_refund", flags, dtype=dtype))


def refunds(**options: Any) -> Rolling:
    return Rolling("7d", {"amount": ["sum", "count"]}, where="is_refund", **options)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_only_events_of_which_the_column_is_true_count(project: Project) -> None:
    project.drop("a", flagged())
    project.build(
        project.define(all_columns, metrics=[refunds(), Rolling("7d", {"amount": "sum"})])
    )
    spine = pl.DataFrame({"user_id": [1, 1, 2], "at": [at(3), at(1.5), at(3)]})
    answers = get_training_data(spine, ["spend"], project.store)
    assert answers["spend__amount__sum__7d__is_refund"].to_list() == [1001.0, 1.0, None]
    assert answers["spend__amount__count__7d__is_refund"].to_list() == [2, 1, 0]
    assert answers["spend__amount__sum__7d"].to_list() == [1111.0, 11.0, None]


def test_an_entity_with_events_of_which_none_counts_has_a_row_of_zero_and_null(
    project: Project,
) -> None:
    project.drop("a", flagged([False, None, False, False]))
    project.build(project.define(all_columns, metrics=[refunds()]))
    stored = project.store.read("spend")
    assert stored["amount__count__7d__is_refund"].to_list() == [0] * 4
    assert stored["amount__sum__7d__is_refund"].to_list() == [None] * 4


def test_columns_and_conditions_whose_names_run_together_are_two(project: Project) -> None:
    frame = rows((1, 0, 1.0)).rename({"amount": "c"})
    project.drop("a", frame.with_columns(b_c=10.0, a_b=True, a=False))
    metrics = [
        Rolling("7d", {column: "count"}, where=where)
        for column, where in (("c", "a_b"), ("b_c", "a"))
    ]
    project.build(project.define(all_columns, metrics=metrics))
    [stored] = project.store.read("spend").to_dicts()
    assert (stored["c__count__7d__a_b"], stored["b_c__count__7d__a"]) == (1, 0)


def test_a_column_that_is_null_throughout_is_true_of_no_event(project: Project) -> None:
    project.drop("a", flagged([None] * 4, pl.Null()))
    project.build(project.define(all_columns, metrics=[refunds()]))
    assert project.store.read("spend")["amount__count__7d__is_refund"].to_list() == [0] * 4


def test_a_file_without_the_column_or_of_another_dtype_is_set_aside(project: Project) -> None:
    project.drop("a", flagged())
    project.drop("b", flagged().drop("is_refund"))
    project.drop("c", flagged([0, 1, 0, 1], pl.Int8()))
    result = project.build(project.define(all_columns, metrics=[refunds()]))
    reasons = {Path(bad.path).name: bad.reason for bad in result.quarantined}
    assert "is_refund" in reasons["b.parquet"]
    assert "where='is_refund' is Int8" in reasons["c.parquet"]
    assert "pl.col('is_refund') != 0" in reasons["c.parquet"]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("amount", "where='amount' is Float64.*pl.col\\('amount'\\) != 0"),
        ("at", "where='at' is Datetime"),
        ("is_refunded", "where='is_refunded': no column 'is_refunded'.*is_refund"),
        ("amount = 1 AND x", "no column 'amount = 1 AND x'.*alias.*write where="),
    ],
)
def test_a_column_that_is_absent_or_not_boolean_is_an_error_that_says_so(
    where: str, expected: str, project: Project
) -> None:
    project.drop("a", flagged())
    with pytest.raises(BuildError) as caught:
        project.build(
            project.define(all_columns, metrics=[Rolling("7d", {"amount": "sum"}, where=where)])
        )
    assert caught.match(expected)


@pytest.mark.parametrize("where", [True, pl.col("amount") > 1, ["is_refund"], ""])
def test_where_is_a_name_and_an_error_says_how_to_make_the_column(where: Any) -> None:
    with pytest.raises(DefinitionError, match='where="is_refund", which the function returns: df'):
        Rolling("7d", {"amount": "sum"}, where=where)


@pytest.mark.parametrize(
    "where", ["amount > 1", "not is_refund", "is_refund and amount < 3", "city in ('a', 'b')", "is_null(x)"]
)  # fmt: skip
def test_a_condition_in_the_place_of_a_name_is_refused_where_it_is_written(where: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Rolling("7d", {"amount": "sum"}, where=where)
    said, text, carets = str(caught.value).splitlines()
    assert said.startswith("Rolling: where: this is an expression, at character 1; where= names a")
    assert said.endswith('alias("is_large")), and write where="is_large"')
    assert (text.strip(), carets.strip()) == (where, "^" * len(where))


@pytest.mark.parametrize("where", ["plan=pro", "is refund", "a-b", "amount__count__7d", "x.y"])
def test_any_other_text_may_be_a_columns_name(where: str) -> None:
    [column] = Rolling("7d", {"amount": "sum"}, where=where).columns(None)
    assert column.where == where


def test_an_expression_for_a_column_to_aggregate_is_told_how_to_make_the_column(
    project: Project,
) -> None:
    project.drop("a", flagged())
    with pytest.raises(BuildError, match="not an expression: have the function return the value"):
        project.build(project.define(all_columns, metrics=[Rolling("7d", {"amount * 2": "sum"})]))


def test_an_added_condition_is_minor_and_a_removed_one_major(project: Project) -> None:
    project.drop("a", flagged())
    plain = [Rolling("7d", {"amount": "sum"})]
    one = project.build(project.define(all_columns, metrics=plain))
    two = project.build(project.define(all_columns, metrics=[*plain, refunds()]))
    three = project.build(project.define(all_columns, metrics=plain))
    assert [str(each.version) for each in (one, two, three)] == ["1.0.0", "1.1.0", "2.0.0"]
    assert diff(project.store, "spend", "1.0.0", "1.1.0").reason == "metrics_added"


def test_a_version_without_conditions_reads_as_before_and_one_with_them_is_refused_by_older_releases(
    project: Project,
) -> None:
    project.drop("a", flagged())
    project.build(project.define(all_columns, metrics=[Rolling("7d", {"amount": "sum"})]))
    before = to_json(project.store.resolve("spend"))
    project.build(project.define(all_columns, metrics=[refunds()]))
    after = to_json(project.store.resolve("spend"))
    assert (before["format"], after["format"]) == (1, 2)
    assert "where" not in before["metrics"][0]
    assert from_json(after, "here").spec == project.store.resolve("spend").spec


def test_explain_shows_the_events_that_count(project: Project) -> None:
    project.drop("a", flagged())
    project.build(
        project.define(all_columns, metrics=[refunds(), Rolling("2d", {"amount": "sum"})])
    )
    found = explain("spend", {"user_id": 1}, project.store, at(3))
    assert {value.column: value.rows for value in found.values} == {
        "amount__sum__7d__is_refund": 2,
        "amount__count__7d__is_refund": 2,
        "amount__sum__2d": 3,
    }
    windows = [row["windows"] for row in found.to_json()["rows"]]
    assert windows == [["7d where is_refund"], ["2d"], ["2d"], ["7d where is_refund", "2d"]]


def test_the_audit_counts_the_same_events(project: Project) -> None:
    project.drop("a", flagged())
    definitions = project.definitions(project.define(all_columns, metrics=[refunds()]))
    definitions.build()
    assert definitions.audit("spend").is_proof


@pytest.mark.parametrize(
    "wrong",
    [
        Rolling("7d", {"tags": "mean"}),
        Rolling("7d", {"amonut": "sum"}),
        Rolling("7d", {"amount": "sum"}, where="amount"),
    ],
)
@pytest.mark.parametrize("served", [False, True])
def test_metrics_that_are_put_right_take_in_what_was_set_aside_for_the_wrong_ones(
    wrong: Rolling, served: bool, project: Project
) -> None:
    right = project.define(all_columns, metrics=[Rolling("7d", {"amount": "sum"})])
    if served:
        project.drop("before", flagged().with_columns(tags=pl.lit(1.0), amonut=pl.lit(1.0)).head(1))
        project.build(right)
    project.drop("a", flagged().with_columns(tags=pl.Series([["x"]] * 4)))
    for _ in range(2):  # the second time by what was noted of the first
        with suppress(BuildError):
            project.build(project.define(all_columns, metrics=[wrong]))
    again = project.build(right)
    assert again.quarantined == ()
    assert project.store.read("spend").height == 4
