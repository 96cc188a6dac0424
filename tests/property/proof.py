"""Run histories with fresh random seeds for as long as one likes, and print what was compared.

python -m tests.property.proof --seconds 3600
"""

from __future__ import annotations

import argparse
import logging
import secrets
import sys
import time
import traceback

import structlog
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.machine import TALLY, Machine

BATCH = 25


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.property.proof", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="when to stop (60)")
    parser.add_argument("--steps", type=int, default=10, help="steps of a history, at most (10)")
    parser.add_argument("--seed", type=int, help="repeat one batch")
    options = parser.parse_args(arguments)
    errors_only = structlog.make_filtering_bound_logger(logging.ERROR)
    structlog.configure(wrapper_class=errors_only)
    profile = settings(
        max_examples=BATCH,
        stateful_step_count=options.steps,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    mismatches, began = 0, time.monotonic()
    while True:
        chosen = options.seed if options.seed is not None else secrets.randbits(48)
        try:
            run_state_machine_as_test(seed(chosen)(Machine), settings=profile)
        except KeyboardInterrupt:
            break
        except BaseException:  # noqa: BLE001 - a mismatch is counted, and the proof goes on
            mismatches += 1
            say(f"mismatch, --seed {chosen} --steps {options.steps}\n{traceback.format_exc()}")
        seconds = time.monotonic() - began
        counts = ", ".join(f"{n:,} {what}" for what, n in sorted(TALLY.items()))
        say(f"{seconds:6.0f} s: {counts}, {mismatches} mismatches")
        if seconds >= options.seconds or options.seed is not None:
            break
    return 1 if mismatches else 0


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
