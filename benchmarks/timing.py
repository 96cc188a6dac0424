"""The time that something takes; needs nothing that the environment of a cluster's executors may lack."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable

import structlog


def quiet() -> None:
    """Let only errors be logged."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


def seconds(action: Callable[[], object]) -> float:
    """Seconds that an action takes, with the rubbish of what came before collected first."""
    gc.collect()
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun
