"""Objects that lead to one another: their hash depends on no order that each process has its own of, nor on the depth of a stack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from random import Random
from typing import Any

import polars as pl
import pytest

from mlforge.features import known_texts
from mlforge.features.code_hash import CodeState, code_hash


class Node:
    """An object whose place in a set follows from when it came into it, as others' does from the process."""

    def __init__(self, number: int) -> None:
        self.number, self.near = number, set[Node]()
        self.next: Node | None = None

    def __hash__(self) -> int:
        return 0


def using(value: object) -> Callable[[pl.DataFrame], pl.DataFrame]:
    def function(df: pl.DataFrame) -> pl.DataFrame:
        return df.select("user_id", amount=value)

    return function


def ring(order: Sequence[int]) -> list[Node]:
    nodes = [Node(number) for number in range(len(order))]
    for node, after in zip(nodes, [*nodes[1:], nodes[0]], strict=True):
        node.next = after
    return [nodes[number] for number in order]


def tree(order: Sequence[int], last: int = 3) -> Node:
    root = Node(0)
    for number in order:
        child = Node(last if number == len(order) - 1 else number)
        child.next = root
        root.near.add(child)
    return root


def chain(length: int, last: int = 0) -> Node:
    node = Node(last)
    for _ in range(length):
        before = Node(1)
        before.next, node = node, before
    return node


ORDERS = [(0, 1, 2, 3), (2, 0, 3, 1), (3, 2, 1, 0)]
CYCLES: dict[str, Callable[[Sequence[int]], Any]] = {
    "a set of a ring": lambda order: {*ring(order)},
    "half of a ring": lambda order: {node for node in ring(order) if node.number % 2},
    "a node before and after the set": lambda order: _around(ring(order)),
    "sets within sets": lambda order: {
        frozenset(ring(order)),
        frozenset(sorted(ring(order), key=_number)[:1]),
    },
    "by a name": lambda order: {f"n{node.number}": node for node in ring(order)},
    "of another's attributes": lambda order: _of_attribute(ring(order)),
}


def _number(node: Node) -> int:
    return node.number


def _around(nodes: list[Node]) -> list[object]:
    first = min(nodes, key=_number)
    return [{*nodes}, first, {first}]


def _of_attribute(nodes: list[Node]) -> Node:
    root = Node(9)
    root.near = {*nodes}
    for node in nodes:
        node.near = {root}
    return root


@pytest.mark.parametrize("made", CYCLES.values(), ids=CYCLES)
def test_a_hash_follows_from_no_order_of_a_set(made: Callable[[Sequence[int]], Any]) -> None:
    states = [CodeState(using(made(order))) for order in ORDERS]
    assert len({state.look() for state in states}) == 1


def test_any_objects_that_lead_to_one_another_are_told_alike_in_any_order_of_sets() -> None:
    seeded = Random(1)
    for count in (2, 3, 4, 5) * 5:
        lead = {
            n: seeded.sample(range(count), seeded.randint(0, min(3, count))) for n in range(count)
        }
        in_sets = [seeded.random() < 0.5 for _ in range(count)]
        states = [CodeState(using(_leading(lead, in_sets, seeded))) for _ in range(6)]
        assert len({state.look() for state in states}) == 1
        assert all(state.tells_all for state in states)


def _leading(lead: Mapping[int, Sequence[int]], in_sets: Sequence[bool], seeded: Random) -> Any:
    """A set of objects that lead to others by lists or sets, whose order is drawn."""
    nodes: list[Any] = [Node(number) for number in lead]
    for node, of_set in zip(nodes, in_sets, strict=True):
        others = [nodes[other] for other in lead[node.number]]
        node.near = {*seeded.sample(others, len(others))} if of_set else others
    return {*seeded.sample(nodes, len(nodes))}


def test_members_of_an_enum_in_a_set_are_part_of_the_hash() -> None:
    colours = Enum("colours", "RED GREEN BLUE")
    one, two = (CodeState(using({colours.RED, other})) for other in (colours.GREEN, colours.BLUE))
    assert one.tells_all
    assert one.hash != two.hash


def test_a_set_whose_objects_lead_to_one_another_in_many_ways_is_told_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known_texts, "MOST_AGAIN", 10)
    state = CodeState(using({*ring(ORDERS[0])}))
    assert not state.tells_all
    [told] = state.warnings()
    assert told.startswith(
        "its code uses value, a set whose objects lead to one another in too many ways"
    )


def test_objects_of_a_set_that_lead_back_to_its_owner_are_part_of_the_hash() -> None:
    states = [CodeState(using(tree(order))) for order in ORDERS]
    assert all(state.tells_all for state in states)
    assert len({state.hash for state in states}) == 1
    assert states[0].hash != code_hash(using(tree(ORDERS[0], last=7)))


def test_a_long_chain_of_objects_is_part_of_the_hash_to_its_end() -> None:
    state = CodeState(using(chain(2_000)))
    assert state.tells_all
    assert state.hash == code_hash(using(chain(2_000)))
    assert state.hash != code_hash(using(chain(2_000, last=7)))


def test_what_lies_too_deep_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_texts, "DEEPEST", 150)
    state = CodeState(using(chain(200)))
    assert not state.tells_all
    assert state.hash == code_hash(using(chain(300, last=7))) != code_hash(using(chain(100)))
    [told] = state.warnings()
    assert told.startswith(
        "its code uses value.next.next.next.next.next.next.next..., a value that lies too deep within others, of which"
    )


def test_where_a_text_is_cut_depends_on_no_order_of_a_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_texts, "DEEPEST", 40)
    root = middle = chain(60)
    for _ in range(30):
        assert middle.next is not None
        middle = middle.next
    states = [CodeState(using(both)) for both in ({root, middle}, {middle, root})]
    assert len({state.look() for state in states}) == 1
    assert not any(state.tells_all for state in states)
