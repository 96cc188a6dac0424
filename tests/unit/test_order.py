"""The order in which test files are handed out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tests.support.importing import in_turn
from tests.support.order import LONGEST, longest_first, strewn
from tests.support.paths import ROOT


@dataclass(frozen=True)
class OneTest:
    """A test, as far as its order goes."""

    path: Path
    number: int


def several(name: str, count: int) -> list[Any]:
    return [OneTest(ROOT / "tests" / name, number) for number in range(count)]


def test_the_longest_files_come_first_each_in_its_own_order_and_a_small_one_fourth() -> None:
    short, small, first, second, third = (
        several("test_short.py", 5),
        several("test_small.py", 1),
        several(LONGEST[0], 2),
        several(LONGEST[1], 3),
        several(LONGEST[2], 2),
    )
    ordered = cast(list[Any], longest_first([*short, *second, *small, *third, *first], 3, LONGEST))
    assert ordered == [*first, *second, *third, *small, *short]


def test_files_that_wait_are_strewn_among_those_that_compute_and_short_ones_come_last() -> None:
    w = [several(f"process/test_w{number}.py", 1) for number in range(2)]
    c = [several(f"contracts/test_c{number}.py", 2) for number in range(6)]
    s = [several(f"unit/core/test_s{number}.py", 1) for number in range(2)]
    assert strewn([*w, *s, *c]) == [c[0], w[0], c[1], c[2], c[3], w[1], c[4], c[5], *s]


def test_each_process_imports_all_files_and_begins_with_some_of_its_own() -> None:
    files = [Path(f"test_{number}.py") for number in range(7)]
    orders = [in_turn(files, process, 3) for process in range(3)]
    assert [order[0] for order in orders] == [files[0], files[2], files[4]]
    assert all(sorted(order) == files for order in orders)


def test_each_file_that_is_named_as_long_is_there() -> None:
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(LONGEST) <= there
