"""The part of a product of parameters that the default run takes."""

from __future__ import annotations

from collections import Counter
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.covering import TIMES, beyond, covering


@pytest.mark.parametrize("sizes", [(2, 2), (15, 3, 3), (8, 2, 2, 2), (40, 6), (30,), (1, 1)])
def test_each_value_comes_as_often_as_it_should_and_the_part_is_small(
    sizes: tuple[int, ...],
) -> None:
    rows = [
        {f"p{at}": str(value) for at, value in enumerate(values)}
        for values in product(*map(range, sizes))
    ]
    kept = covering(rows)
    there = Counter(value for row in rows for value in row.items())
    taken = Counter(value for number in kept for value in rows[number].items())
    assert all(taken[value] >= min(TIMES, count) for value, count in there.items())
    assert len(kept) <= min(len(rows), 3 * max(sizes))
    assert kept == covering(rows)


def test_of_seeds_the_first_stand_for_all() -> None:
    def item(seed: int, engine: str) -> SimpleNamespace:
        return SimpleNamespace(
            nodeid=f"test_x[{seed}-{engine}]",
            callspec=SimpleNamespace(params={"seed": seed, "engine": engine}),
            get_closest_marker=lambda name: None,
        )

    items: Any = [item(*pair) for pair in product(range(9), ("polars", "duckdb"))]
    kept = [each.nodeid for each in items if each not in beyond(items)]
    assert kept == ["test_x[0-polars]", "test_x[1-duckdb]"]


def test_a_test_that_is_slow_by_itself_stands_for_none_of_its_values() -> None:
    def item(shape: int, engine: str) -> SimpleNamespace:
        params = {"shape": shape, "engine": engine}
        is_slow = engine == "duckdb" and shape
        return SimpleNamespace(
            nodeid=f"test_x[{shape}-{engine}]",
            callspec=SimpleNamespace(params=params),
            get_closest_marker=lambda name: pytest.mark.slow if is_slow else None,
        )

    items: Any = [item(*pair) for pair in product(range(5), ("polars", "duckdb", "third"))]
    spare = beyond(items)
    kept = [each for each in items if each not in spare and each.get_closest_marker("slow") is None]
    assert {each.callspec.params["shape"] for each in kept} == {*range(5)}
    assert {each.callspec.params["engine"] for each in kept} == {"polars", "duckdb", "third"}
    assert spare


def _tests_of(functions: str, place: str) -> Any:
    return [
        SimpleNamespace(
            nodeid=f"{place}::test_{function}[{store}]",
            callspec=SimpleNamespace(params={"store": store}),
            get_closest_marker=lambda name: None,
        )
        for function in functions
        for store in ("folder", "bucket")
    ]


def test_tests_of_one_file_over_the_same_few_values_take_them_by_turns() -> None:
    items = _tests_of("abcd", "tests/contracts/test_x.py")
    kept = [each.nodeid.rpartition("::")[2] for each in items if each not in beyond(items)]
    assert kept == ["test_a[folder]", "test_b[bucket]", "test_c[folder]", "test_d[bucket]"]


@pytest.mark.parametrize(
    ("functions", "place"),
    [("abc", "tests/contracts/test_x.py"), ("abcd", "tests/faults/test_x.py")],
)
def test_few_tests_and_those_of_faults_take_all_of_their_values(functions: str, place: str) -> None:
    assert beyond(_tests_of(functions, place)) == []
