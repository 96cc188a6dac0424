"""Differences of long lists are exact, whichever blocks of them are equal, the very same, or neither."""

from __future__ import annotations

import random

import pytest

from mlforge.core import list_diff
from mlforge.core.list_diff import alike, differing


@pytest.mark.parametrize("block", [1, 3, 4_096])
def test_lists_differ_in_what_lies_between_what_they_begin_and_end_with(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(list_diff, "_BLOCK", block)
    chance = random.Random(block)
    for _ in range(500):
        old = [object() for _ in range(chance.randint(0, 12))]
        new = [*old]
        for _ in range(chance.randint(0, 2)):
            place = chance.randint(0, len(new))
            new[place : place + chance.randint(0, 2)] = [object()] * chance.randint(0, 2)
        if chance.random() < 0.7:  # of tuples the answer is known when they are compared again
            old, new = tuple(old), tuple(new)
            alike(new, old)
        went, came = differing(old, new)
        head = alike(old, new)
        assert [*old[:head], *went, *old[head + len(went) :]] == [*old]
        assert [*new[:head], *came, *old[head + len(went) :]] == [*new]
        assert not (went and came) or (went[0] is not came[0] and went[-1] is not came[-1])
