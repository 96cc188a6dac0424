"""Differences of long lists are exact, whichever blocks of them are equal, the very same, or neither."""

from __future__ import annotations

import random

import pytest

from mlforge.core import list_diff
from mlforge.core.list_diff import alike, appended, differing


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


def test_lists_made_from_one_another_are_told_apart_as_exactly_as_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(list_diff, "_BLOCK", 2)
    chance = random.Random(5)
    lists: list[tuple[object, ...]] = [tuple(object() for _ in range(4))]
    for _ in range(500):
        base = chance.choice(lists[-8:])
        more = tuple(object() for _ in range(chance.randint(0, 2)))
        is_shorter = chance.random() < 0.3
        lists.append(base[: chance.randint(0, 8)] + more if is_shorter else appended(base, more))
        some, other = chance.choices(lists[-8:], k=2)
        differ = (n for n, (a, b) in enumerate(zip(some, other, strict=False)) if a is not b)
        assert alike(some, other) == next(differ, min(len(some), len(other)))
