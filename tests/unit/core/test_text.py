"""Counts in texts for people: grouped by thousands, with the noun that they take."""

from __future__ import annotations

import pytest

from mlforge.build.categorizer import DataChange
from mlforge.build.loss import Files, Loss
from mlforge.core.text import by_reason, plural


@pytest.mark.parametrize(
    ("count", "many", "text"),
    [
        (0, None, "0 files"),
        (1, None, "1 file"),
        (1_234_567, None, "1,234,567 files"),
        (1, "fileses", "1 file"),
        (2_000, "fileses", "2,000 fileses"),
    ],
)
def test_a_count_comes_with_its_noun(count: int, many: str | None, text: str) -> None:
    """A count of one takes the noun as it is."""
    assert plural(count, "file", many) == text


def test_reasons_of_holds_and_versions_group_their_numbers() -> None:
    """The numbers that people decide by are read at a glance."""
    gone = Files(("a.parquet",), 1_200_000)
    loss = Loss(2_500_000, 1_299_000, 1_500, 1_499, 1_201_000, gone, Files())
    assert loss.sentence("spend") == (
        "1 of 1,500 files are gone (1,200,000 events: a.parquet); "
        "1,000 of 2,500,000 events are gone from files that are still there, "
        "so 1,201,000 of 2,500,000 events would stop counting; "
        "'mlforge approve spend' or a build goes on with 1,299,000 events of 1,499 files"
    )
    assert DataChange(rows=1_000, entities=1).text == "1,000 rows of 1 entity"


def test_what_is_the_matter_with_many_files_is_told_once_for_each_reason() -> None:
    reasons = [(f"{name}.parquet", "is empty") for name in "abcde"]
    told = by_reason([*reasons[:2], ("x.parquet", "is not parquet"), *reasons[2:]])
    assert told == [
        "a.parquet, b.parquet, c.parquet and 2 more: is empty",
        "x.parquet: is not parquet",
    ]
    assert by_reason(reasons[:3]) == ["a.parquet, b.parquet, c.parquet: is empty"]
