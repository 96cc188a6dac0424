"""What partials add up to follows from the sums of the version before and what differs."""

from __future__ import annotations

import random

from mlforge.core.list_diff import differing
from mlforge.core.manifest import MODULUS, Partial, PartialSums
from mlforge.core.values import TimeRange


def made(chance: random.Random) -> Partial:
    times = TimeRange(0, chance.randint(0, 9)) if chance.random() < 0.8 else None
    dropped = {"null key": chance.randint(0, 2)} if chance.random() < 0.5 else {}
    hash_ = f"{chance.getrandbits(64):x}"
    return Partial(hash_, 1, times, (), dropped, chance.randrange(MODULUS))


def test_sums_that_follow_from_those_before_are_the_sums() -> None:
    chance, followed = random.Random(7), 0
    partials = [made(chance) for _ in range(12)]
    for _ in range(300):
        before, sums = [*partials], PartialSums.of(partials)
        for _ in range(chance.randint(1, 3)):
            if partials and chance.random() < 0.5:
                del partials[chance.randrange(len(partials))]
            else:
                partials.insert(chance.randint(0, len(partials)), made(chance))
        after = sums.after(*differing(before, partials))
        followed += after is not None
        assert after in (None, PartialSums.of(partials))
    assert followed > 100
