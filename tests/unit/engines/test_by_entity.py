"""Which run of the entity index is written next, beside those that are stored."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from mlforge.core.manifest import Partial
from mlforge.engines.tiles.by_entity import AT_ONCE, MERGED, STALE, next_run
from mlforge.store.entity_index import LEVELS, Run
from mlforge.store.file_tasks import mark_of


def partial(number: int, rows: int) -> Partial:
    return Partial(f"{number:064x}"[::-1], rows, None, (), {}, 0)


class Index:
    """Runs as a store has them: a run that was merged into one before it stays until another takes its place."""

    def __init__(self) -> None:
        self.runs: dict[int, Run] = {}
        self.written = 0

    def follow(self, partials: Sequence[Partial]) -> None:
        following = next_run([self.runs[level] for level in sorted(self.runs)], partials, STALE)
        if following is not None:
            self.write(following.level, following.partials)

    def write(self, level: int, partials: Sequence[Partial]) -> None:
        rows = sum(each.rows for each in partials)
        marks = tuple(mark_of(each.hash) for each in partials)
        self.runs[level] = Run("file", "of", level, marks, rows)
        self.written += rows

    def missing(self, partials: Sequence[Partial]) -> int:
        marks = {mark for run in self.runs.values() for mark in run.marks}
        return sum(each.rows for each in partials if mark_of(each.hash) not in marks)


@pytest.mark.parametrize("rows", [8_000, 40_000, 400_000])
def test_drops_are_written_a_few_times_each_and_few_are_missing(rows: int) -> None:
    first = 10_000_000
    partials, index = [partial(0, first)], Index()
    index.follow(partials)
    for number in range(1, 2_000_000 // rows + 1):
        partials.append(partial(number, rows))
        index.follow(partials)
        total = sum(each.rows for each in partials)
        assert index.missing(partials) <= min(total // STALE, AT_ONCE // 2)
        assert len(index.runs) <= 3
    assert index.runs[0].rows == first
    assert index.written - first <= MERGED * 2_000_000


def test_a_run_of_which_much_is_gone_is_written_anew_with_those_behind_it() -> None:
    partials, index = [partial(number, 1_000) for number in range(100)], Index()
    index.follow(partials)
    assert index.runs[0].rows == 100_000
    partials += [partial(200, 10_000)]
    index.follow(partials)
    assert [run.rows for run in index.runs.values()] == [100_000, 10_000]
    index.follow(partials[3:])
    assert index.written == 110_000, "three of a hundred do not matter"
    index.follow(partials[4:])
    assert index.runs[0].rows == 106_000
    assert next_run([*index.runs.values()], partials[4:], STALE) is None


@pytest.mark.parametrize("seed", range(5))
def test_any_history_leaves_each_partial_in_some_run_or_few_of_them(seed: int) -> None:
    chance, index = random.Random(seed), Index()
    partials: list[Partial] = []
    for number in range(300):
        partials.append(partial(number, chance.choice([10, 1_000, 100_000])))
        if chance.random() < 0.2:
            partials.remove(chance.choice(partials))
        if chance.random() < 0.05 and index.runs:
            del index.runs[max(index.runs)]
        index.follow(partials)
        total = sum(each.rows for each in partials)
        assert index.missing(partials) * STALE <= total
        assert len(index.runs) <= LEVELS
        assert (
            next_run([index.runs[level] for level in sorted(index.runs)], partials, STALE) is None
        )
