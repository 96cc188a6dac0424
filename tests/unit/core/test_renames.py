"""Renames: present names of former ones, and locks that say former ones."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from mlforge.core.lock import Lock, LockedColumn
from mlforge.core.renames import Rename, Renames

NAMES = "abcd"
_PARTS = {"code": "x", "keys": ["id"], "timestamp": None, "interval": None}


def renamed(*names: str) -> Renames:
    steps = (Rename(a, b, at) for at, (a, b) in enumerate(pairwise(names)))
    return Renames(tuple(steps))


def test_a_former_name_leads_to_the_present_one_however_often_it_changed() -> None:
    chain = renamed("a", "b", "c")
    assert [chain.now(name) for name in "abcd"] == ["c", "c", "c", "d"]
    assert chain.formerly("c") == ("b", "a")
    assert chain.sentence("a") == "a was renamed to c at 1970-01-01T00:00:00.000000Z"
    assert chain.sentence("c") is None
    back = renamed("a", "b", "a")
    assert (back.now("a"), back.now("b"), back.formerly("a")) == ("a", "a", ("b",))
    assert Renames.from_json(chain.to_json()) == chain


def test_the_names_of_a_feature_that_is_no_more_are_free() -> None:
    two = Renames((*renamed("a", "b").done, *renamed("c", "d").done))
    left = two.without("b")
    assert (left.now("a"), left.now("c"), left.formerly("b")) == ("a", "d", ())
    assert not left.without("d")


@pytest.mark.parametrize("length", [1, 2, 5, 12])
def test_names_are_those_of_features_that_are_followed_one_by_one(length: int) -> None:
    draw = random.Random(length)
    for _ in range(80):
        check_followed([(draw.randrange(2), draw.choice(NAMES)) for _ in range(length)])


def check_followed(steps: list[tuple[int, str]]) -> None:
    """Renames of two features: which of them, and the name that it takes where the other never had it."""
    names, history = ["a", "b"], [["a"], ["b"]]  # now and ever
    renames = Renames()
    for feature, name in steps:
        other = history[1 - feature]
        if name in other or name == names[feature]:
            continue
        renames = renames.with_rename(Rename(names[feature], name, 0))
        names[feature] = name
        history[feature].append(name)
    for now, ever in zip(names, history, strict=True):
        assert {renames.now(name) for name in ever} == {now}
        assert set(renames.formerly(now)) == {*ever} - {now}


@pytest.mark.parametrize("document", [[{}], [{"before": 1, "after": "b", "at": None}], [3], 3])
def test_a_damaged_document_is_no_renames(document: object) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        Renames.from_json(document)  # type: ignore[arg-type]


def test_a_lock_says_present_names_and_keeps_the_names_of_its_columns() -> None:
    own = LockedColumn("a__x", "Float64", {"feature": "a", "name": "x", **_PARTS, "column": "x"})
    reads = {"a__x": own.meaning, "id": "key"}
    derived = LockedColumn("r", "Float64", {"name": "r", "derive": "a__x * 2", "reads": reads})
    lock = Lock("s", (own, derived), ("a@1.0.0", "c@2.0.0"))
    now = lock.renamed({"a": "b"})
    assert now.versions == ("b@1.0.0", "c@2.0.0")
    assert now.features == ("b",)
    assert [column.name for column in now.columns] == ["a__x", "r"]
    assert now.columns[1].parts["reads"] == {"a__x": now.columns[0].meaning, "id": "key"}
    assert Lock.from_json(now.to_json()) == now
    assert lock.renamed({"z": "b"}) is lock
    assert now.renamed({"b": "a"}) == lock
