"""Measure 9: peak memory, each task in a process of its own; also what such a process runs."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")
LIMIT = 2_000_000_000
"""What a full build may take, however long the history."""
LEAN = 300_000_000
"""What all else may take above the imports."""


def resident() -> int:
    """Bytes of this process in memory now."""
    return _status("VmRSS")


def peak(pid: int | None = None) -> int:
    """The most that a process, by default this one, ever had in memory. A child's own, also right after it was started."""
    return _status("VmHWM", _STATUS if pid is None else Path(f"/proc/{pid}/status"))


def peak_of(action: Callable[[], object]) -> int:
    """The bytes by which this process grows while it runs, at most; 0 where that cannot be told."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return 0
    gc.collect()
    reset.write_text("5")
    before = resident()
    action()
    return max(0, peak() - before)


def _status(field: str, status: Path = _STATUS) -> int:
    if not _STATUS.exists():
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    line = next(x for x in status.read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) * 1024


@dataclass(frozen=True)
class Task:
    """What a child is to do, and where; it travels as JSON."""

    name: str
    root: str
    store: str
    prefix: str
    url: str
    engine: str
    size: str
    spine: int = 0

    def run(self) -> int:
        """Run it in a process of its own; the bytes of its peak above the imports."""
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", json.dumps(asdict(self))],
            cwd=Path(__file__).parents[1],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return int(done.stdout)


def _child(task: Task) -> int:
    """Prepare the task, note the memory in use, do it, and tell by how much the peak is above."""
    from benchmarks import data
    from benchmarks.project import NAME, spend, stores_at
    from benchmarks.timing import quiet
    from mlforge import get_training_data
    from mlforge.engines import engine_named

    quiet()
    engine_named(task.engine)
    stores = stores_at(
        Path(task.root), Path(task.store), task.url, task.prefix, spend(), task.engine
    )
    definitions = stores.definitions
    assert definitions.online_store is not None
    definitions.online_store.ping()
    spine = data.spine(data.SIZES[task.size], task.spine)
    tasks: dict[str, Callable[[], Any]] = {
        "build": lambda: definitions.refresh(NAME, full=True),
        "refresh": lambda: definitions.refresh(NAME),
        "push": lambda: definitions.push(NAME),
        "training": lambda: get_training_data(spine, [NAME], definitions.store, engine=task.engine),
    }
    before = resident()
    done = tasks[task.name]()
    assert done is not None
    return max(0, peak() - before)


if __name__ == "__main__":
    sys.stdout.write(str(_child(Task(**json.loads(sys.argv[1])))))
