"""Random sequences of every fault, for a while."""

from __future__ import annotations

import pytest

from tests.faults import chaos
from tests.support.agreement import TALLY


@pytest.mark.slow
def test_random_faults_leave_nothing_wrong(record_property) -> None:
    told: list[str] = []
    wrong = chaos.run(seconds=50, seed=1, say=told.append)
    record_property("chaos", told[-2])
    assert not wrong, "\n".join(told)
    assert TALLY["values"] > 1_000
