"""The part of a product of parameters that the default run takes."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest

from tests.support.covering import TIMES, covering


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
