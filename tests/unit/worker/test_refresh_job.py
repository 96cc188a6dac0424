"""How a refresh goes about what ended the attempt before."""

from __future__ import annotations

import pytest

from worker.queue.refresh_job import may_be_a_files_fault
from worker.state.work_queue import Ticket


@pytest.mark.parametrize(
    ("before", "apart"),
    [
        (Ticket("spend"), False),
        (Ticket("spend", failures=1, error="ColumnNotFound: spend: no column 'amt'"), False),
        (Ticket("spend", interruptions=1, error="ConnectionError: no server"), False),
        (Ticket("spend", deaths=1, error="the process at work was ended by SIGKILL"), True),
        (Ticket("spend", interruptions=1, error="MemoryError: no memory"), True),
        (
            Ticket("spend", failures=1, error="it was not done within 9 s (MLFORGE_JOB_TIMEOUT)"),
            True,
        ),
    ],
)
def test_files_are_read_apart_only_where_one_may_have_ended_the_attempt_before(
    before: Ticket, apart: bool
) -> None:
    assert may_be_a_files_fault(before) is apart
