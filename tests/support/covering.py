"""A covering part of large products of parameters: the default run takes that, the slow run takes all."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations

import pytest

SMALL = 3
"""Products of so many tests or fewer run whole."""
_Pair = tuple[tuple[str, str], tuple[str, str]]
TIMES = 1  # that each value of a parameter is to come
SEEDS = 2
"""Of so many seeds the default run draws random inputs: of tests with a parameter `seed`."""
SHARING = 4
"""So many tests of a file over the same few values take them by turns."""
BY_TURNS = "tests/contracts/"
"""Where tests take shared values by turns: elsewhere they are cheap, or few."""


def beyond(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """The tests of large products that a covering part can do without, in their order.

    In the part each value of each parameter comes at least `TIMES` times, where it can, each time beside others. A test of one
    parameter alone is kept for all of its values, but for a seed, and but for values that many tests of the file share, such as an
    engine or a place of the store: each of those tests is kept for one of them. Those that are slow by themselves stand for nothing: the
    default run leaves them out.
    """
    by_function: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if hasattr(item, "callspec") and item.get_closest_marker("slow") is None:
            by_function[item.nodeid.partition("[")[0]].append(item)
    spare: list[pytest.Item] = []
    small: list[list[pytest.Item]] = []
    for tests in by_function.values():
        product, others = _by_seed(tests)
        spare.extend(others)
        if len(product) > SMALL:
            kept = covering([_values(item) for item in product])
            spare.extend(item for number, item in enumerate(product) if number not in kept)
        else:
            small.append(product)
    return spare + _beyond_turns(small)


def _beyond_turns(products: Iterable[Sequence[pytest.Item]]) -> list[pytest.Item]:
    """The tests that others of their file stand for: functions that share their values take one each, the next the next."""
    sharing: dict[tuple[object, ...], list[Sequence[pytest.Item]]] = defaultdict(list)
    for tests in products:
        place = tests[0].nodeid.partition("[")[0].rpartition("::")[0]
        if place.startswith(BY_TURNS):
            shared = frozenset(frozenset(_values(test).items()) for test in tests)
            sharing[place, shared].append(tests)
    return [
        test
        for functions in sharing.values()
        if len(functions) >= SHARING
        for turn, tests in enumerate(functions)
        for number, test in enumerate(tests)
        if number != turn % len(tests)
    ]


def _by_seed(tests: Sequence[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """The tests of a function that draw from the first seeds, or from none, and the others."""
    seeds = [test.callspec.params.get("seed") for test in tests]  # type: ignore[attr-defined]
    first = [*dict.fromkeys(seeds)][:SEEDS]
    of_first: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for test, seed in zip(tests, seeds, strict=True):
        (of_first if seed in first else others).append(test)
    return of_first, others


def _values(item: pytest.Item) -> dict[str, str]:
    """A test's parameters by name, equal for equal ones: the tests of a product share the objects."""
    params = item.callspec.params  # type: ignore[attr-defined]
    return {name: _text(value) for name, value in params.items()}


def _text(value: object) -> str:
    plain = isinstance(value, bool | bytes | int | float | str | None)
    return repr(value) if plain else str(id(value))


def covering(rows: Sequence[dict[str, str]]) -> set[int]:
    """The positions of a small part of the rows in which each value of each column comes `TIMES` times, if it does in all.

    Deterministic: of rows that bring equally much that is new, the earliest is taken.
    """
    values = [frozenset(row.items()) for row in rows]
    pairs = [_pairs(row) for row in rows]
    there = Counter(value for row in values for value in row)
    lacking = {value: min(TIMES, count) for value, count in there.items()}
    kept: set[int] = set()
    seen: set[_Pair] = set()
    while short := {value for value, count in lacking.items() if count}:
        best = max(
            (number for number in range(len(rows)) if number not in kept),
            key=lambda number: (len(values[number] & short), len(pairs[number] - seen), -number),
        )
        kept.add(best)
        seen |= pairs[best]
        for value in values[best] & short:
            lacking[value] -= 1
    return kept


def _pairs(row: dict[str, str]) -> set[_Pair]:
    return set(combinations(sorted(row.items()), 2))
