"""The order in which test files are handed out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tests.support.order import LONGEST, longest_first
from tests.support.paths import ROOT


@dataclass(frozen=True)
class OneTest:
    """A test, as far as its order goes."""

    path: Path
    number: int


def several(name: str, count: int) -> list[Any]:
    return [OneTest(Path("tests") / name, number) for number in range(count)]


def test_the_longest_files_come_first_each_in_its_own_order_and_a_small_one_fourth() -> None:
    short, small, first, second, third = (
        several("test_short.py", 5),
        several("test_small.py", 1),
        several(LONGEST[0], 2),
        several(LONGEST[1], 3),
        several(LONGEST[2], 2),
    )
    ordered = cast(list[Any], longest_first([*short, *second, *small, *third, *first]))
    assert ordered == [*first, *second, *third, *small, *short]


def test_each_file_that_is_named_as_long_is_there() -> None:
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(LONGEST) <= there
