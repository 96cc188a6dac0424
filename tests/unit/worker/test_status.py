"""The parts of a status that follow from a version, its hold and what is online."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mlforge.build.broken_locks import FOR_A_LOCK
from mlforge.build.drifting import FOR_DRIFT
from mlforge.core import clock
from mlforge.online import Target
from mlforge.store import Books
from worker.monitor.held import held_now
from worker.monitor.status import _lag_seconds

SECOND_US = 1_000_000


@pytest.mark.parametrize("reason", [FOR_A_LOCK, FOR_DRIFT])
def test_a_hold_that_no_lost_file_is_the_cause_of_is_told_of_no_files(reason: str) -> None:
    made_of_files: Any = SimpleNamespace(sources=(None,))
    nowhere: Any = None  # no source is looked at
    assert held_now(nowhere, "spend", made_of_files, Books(hold=f"{reason}: more")) is None


@pytest.mark.parametrize(("online", "lag_s"), [("1.0.0", 20.0), ("1.0.1", 5.0)])
def test_rows_of_an_older_version_lag_since_the_newer_one_was_made(
    online: str, lag_s: float
) -> None:
    manifest: Any = SimpleNamespace(
        version="1.0.1", created_at=10 * SECOND_US, as_of=lambda now: 25 * SECOND_US
    )
    with clock.fixed(30 * SECOND_US):
        assert _lag_seconds(manifest, Target(online, 1, 20 * SECOND_US)) == lag_s
