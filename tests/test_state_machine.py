"""Histories of drops, definitions, engines and clocks: mlforge against the oracle."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machine import Machine

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
@pytest.mark.timeout(900)
def test_thousands_of_longer_histories_mean_what_the_oracle_says() -> None:
    run_state_machine_as_test(
        Machine, settings=settings(SMALL, max_examples=1_000, stateful_step_count=14)
    )
