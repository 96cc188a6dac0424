"""The side of the executors: a task is run, by the definitions that lie where the order says."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Lock

from mlforge.build.orders import Answer, Order
from mlforge.build.runner import Origin, Task
from mlforge.build.tasks import tasks_at_once
from mlforge.core import machine
from mlforge.definitions.loader import load
from mlforge.definitions.registry import Definitions
from mlforge.definitions.tasks import parsed_task
from mlforge.engines import engine_named
from mlforge.errors import MlforgeError, TaskRefused

log = logging.getLogger("mlforge.runners")
"""The log of the cluster's own process, which shows no values of variables beside a traceback, as structlog may."""

_loading, _loaded = Lock(), dict[Origin, Definitions]()
_change, _running = Condition(), [0]


def answered(order: str) -> str:
    """The answer to an order, as JSON both; whatever the task raises is in the answer."""
    asked, host = Order.from_json(order), socket.gethostname()
    try:
        with _place(asked.at_once or tasks_at_once(machine.memory())):
            result = _run(parsed_task(asked.task), asked)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # polars' PanicException is no Exception
        log.error("a task of mlforge failed", exc_info=error)
        return Answer.of(error, host).to_json()
    return Answer(host, json.loads(result)).to_json()


def _run(task: Task, asked: Order) -> str:
    # Releases first: another release might not even load the definitions.
    task.check_releases(engine_named(task.engine))
    return _definitions(task, asked.origin).run_task(asked.task)


def _definitions(task: Task, origin: Origin) -> Definitions:
    """The definitions there, kept while tasks are of them."""
    with _loading:
        known = _loaded.get(origin)
        if known is None or task.definitions not in ("", known.hash):
            known = _loaded[origin] = _load(origin)
        return known


def _load(origin: Origin) -> Definitions:
    try:
        return load(origin.target, here=Path(origin.here), profile=origin.profile)
    except MlforgeError as error:
        raise TaskRefused(
            f"the definitions do not load: {error}; they must lie at the same place on all machines, "
            "or at that which the runner's `definitions` names"
        ) from error


@contextmanager
def _place(most: int) -> Iterator[None]:
    """Wait until fewer than `most` tasks run in this process, and count as one of them."""
    with _change:
        _change.wait_for(lambda: _running[0] < most)
        _running[0] += 1
    try:
        yield
    finally:
        with _change:
            _running[0] -= 1
            _change.notify_all()
