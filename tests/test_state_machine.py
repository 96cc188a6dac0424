"""Histories of drops, definitions, engines and clocks: mlforge against the oracle."""

from __future__ import annotations

import sys
import time

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machine import TALLY, Machine

SMALL = settings(
    max_examples=200,
    stateful_step_count=8,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)


def test_any_history_means_what_the_oracle_says() -> None:
    run_state_machine_as_test(Machine, settings=SMALL)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_thousands_of_histories_mean_what_the_oracle_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Up to 3,000 histories, each batch from a seed of its own, as far as a quarter of an hour goes."""
    began = time.monotonic()
    for batch in range(60):
        if time.monotonic() - began > 840:
            break
        profile = settings(SMALL, max_examples=50, stateful_step_count=10, derandomize=False)
        run_state_machine_as_test(seed(batch)(Machine), settings=profile)
    counted = ", ".join(f"{number:,} {what}" for what, number in sorted(TALLY.items()))
    with capsys.disabled():
        sys.stdout.write(f"\n{counted}\n")
