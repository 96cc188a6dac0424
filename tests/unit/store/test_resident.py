"""Resident events answer for versions whose partials they are of, and for no others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlforge.store.resident import Resident
from mlforge.testing.store_values import FIRST, described, events, partial_of

ROWS = events(1, 2, 3)
SPEND = replace(described(FIRST), partials=(partial_of(ROWS, "a1"), partial_of(events(2), "b2")))
RESIDENT = Resident.of(SPEND, SPEND.events, 0)


def test_events_are_those_of_another_feature_with_the_same_partials() -> None:
    other = replace(SPEND, spec=replace(SPEND.spec, name="other"))
    assert RESIDENT.is_of(SPEND)
    assert RESIDENT.is_of(other)
    assert RESIDENT.is_of(replace(other, partials=(*other.partials[:1], partial_of(ROWS, "c3"))))


@pytest.mark.parametrize(
    "other",
    [
        replace(SPEND, partials=(SPEND.partials[0]._replace(digest=7), SPEND.partials[1])),
        replace(SPEND, partials=(partial_of(ROWS, "c3"),)),
        replace(SPEND, partials=()),
        replace(SPEND, spec=replace(SPEND.spec, keys=("x",))),
        replace(SPEND, spec=replace(SPEND.spec, timestamp="then")),
    ],
    ids=["other rows", "other partials", "no partials", "other keys", "another timestamp"],
)
def test_events_are_not_those_of_a_version_with(other: object) -> None:
    assert not RESIDENT.is_of(other)  # type: ignore[arg-type]


def test_a_partial_that_counts_twice_is_resident_once() -> None:
    twice = replace(SPEND, partials=(*SPEND.partials, SPEND.partials[0]))
    resident = Resident.of(twice, SPEND.events, 0)
    assert resident.partials == SPEND.partials
    assert resident.newer(twice.partials) == [SPEND.partials[0]]
