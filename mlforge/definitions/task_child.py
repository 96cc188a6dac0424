"""The process that `mlforge.build.processes` starts: it loads the definitions, and answers tasks until its standard input ends."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from mlforge.build.orders import Answer
from mlforge.core.bound import die_with_parent
from mlforge.definitions.loader import load
from mlforge.definitions.tasks import task_run
from mlforge.errors import MlforgeError, TaskRefused

log = logging.getLogger("mlforge.build")
_HOST = "a process of this machine"


def main(target: str, here: str, profile: str, memory_limit: str, parent: str) -> int:
    """Answer tasks, a line each. parent: the process that asks."""
    die_with_parent(int(parent))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the definitions print is no answer
    run = _run(target or None, Path(here), profile or None, int(memory_limit))
    for task in sys.stdin:
        answers.write(f"{_answer(run, task).to_json()}\n")
        answers.flush()
    return 0


def _run(
    target: str | None, here: Path, profile: str | None, memory_limit: int
) -> Callable[[str], str]:
    """The function that runs a task; where the definitions do not load, as after an edit, it refuses each."""
    try:
        definitions = load(target, here=here, profile=profile)
    except MlforgeError as error:
        why = f"the definitions do not load: {error}"

        def refuse(task: str) -> str:
            raise TaskRefused(why)

        return refuse
    return lambda task: task_run(definitions, task, memory_limit)


def _answer(run: Callable[[str], str], task: str) -> Answer:
    try:
        return Answer(_HOST, json.loads(run(task)))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # polars' PanicException is no Exception
        log.debug("a task failed", exc_info=error)
        return Answer.of(error, _HOST)
