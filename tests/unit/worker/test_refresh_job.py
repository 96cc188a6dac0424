"""The job of a worker: its lease while it works."""

from __future__ import annotations

import threading

import pytest
from polars.exceptions import PanicException
from redis.exceptions import ConnectionError as Away

from worker.queue import refresh_job
from worker.state.work_queue import Lease


class Renewals:
    """A work queue whose first renewals fail."""

    def __init__(self, *faults: BaseException) -> None:
        self.faults, self.renewed = list(faults), threading.Event()

    def renew(self, feature: str, job: str) -> bool:
        if self.faults:
            raise self.faults.pop()
        self.renewed.set()
        return True


@pytest.mark.parametrize(
    "fault",
    [Away("gone"), OSError("no thread"), ValueError("no number"), PanicException("a panic")],
    ids=lambda fault: type(fault).__name__,
)
def test_a_lease_is_renewed_again_after_any_fault(
    fault: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh_job, "RENEW_S", 0.001)
    work_queue = Renewals(fault, fault)
    with refresh_job._renewed(work_queue, Lease("spend", "job", 1, None, "drop")):
        assert work_queue.renewed.wait(5)
