"""Histories of drops, definitions, engines, clocks and kills: mlforge against the oracle."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.machine import TALLY, Machine

HISTORIES = settings(
    max_examples=5,
    stateful_step_count=8,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)
MINUTES = 2


def test_any_history_means_what_the_oracle_says() -> None:
    run_state_machine_as_test(Machine, settings=HISTORIES)


class OnServers(Machine):
    """Histories of which some lie in a bucket of a real server."""

    places = ("folder", "bucket in memory", "bucket of a server")


@pytest.mark.slow
@pytest.mark.timeout(60 * (MINUTES + 8))
def test_thousands_of_histories_mean_what_the_oracle_says(
    record_property: Callable[[str, object], None],
) -> None:
    """The same batches in the same order, as many as fit: small ones, so that the last ends soon after its time."""
    longer = settings(HISTORIES, derandomize=False, max_examples=25, stateful_step_count=10)
    end = time.monotonic() + 60 * MINUTES
    for number in itertools.count():
        run_state_machine_as_test(seed(number)(OnServers), settings=longer)
        if time.monotonic() > end:
            break
    counted = (f"{count:,} {what}" for what, count in sorted(TALLY.items()))
    record_property("compared with the oracle", ", ".join(counted))
