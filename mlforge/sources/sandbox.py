"""Decoding within bounds: a limit on this process's memory, or a process of its own that may die.

A parquet file of a few kilobytes can honestly hold terabytes, and one that lies about its sizes can
make a reader end its process. So decoding gets bounded memory; where that does not
help, the file is decoded in a process whose loss does no harm.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

try:
    import resource
except ImportError:  # pragma: no cover - a system without limits
    resource = None  # type: ignore[assignment]

from mlforge.errors import UnreadableFile

OVERHEAD_BYTES = 256 << 20
"""Memory that a decoder needs besides the rows: stacks of its threads, pages, dictionaries."""
_PER_THREAD_BYTES = 16 << 20
_CORES = os.cpu_count() or 1
_LINE_BYTES = 1_000
_TIMEOUT_S = 600.0
REFUSED = 3
"""The exit code that says: what is wrong stands in the output."""

_lock = threading.Lock()
_before: list[tuple[int, int]] = []  # the limit to go back to, once for each who is inside


@contextmanager
def at_most(more: int | None) -> Iterator[None]:
    """Limit this process to so many more bytes within the block; allocations beyond the limit fail.

    Enforced on Linux only; None is no limit. Concurrent blocks of several threads share the greatest limit.
    """
    used_bytes = _taken()
    if more is None or used_bytes is None:
        yield
        return
    with _lock:
        now = resource.getrlimit(resource.RLIMIT_DATA)
        _before.append(_before[0] if _before else now)
        soft, hard = _before[0]
        limit_bytes = used_bytes + more + OVERHEAD_BYTES + _PER_THREAD_BYTES * _CORES
        bounds = [bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY]
        own = min([limit_bytes, *bounds])
        shared = own if len(_before) == 1 else max(own, now[0])
        resource.setrlimit(resource.RLIMIT_DATA, (shared, hard))
    try:
        yield
    finally:
        with _lock:
            before = _before.pop()
            if not _before:
                resource.setrlimit(resource.RLIMIT_DATA, before)


def decode(raw: bytes, path: str, max_bytes: int | None) -> pa.Table:
    """The table of a file's bytes, decoded in a process of its own; UnreadableFile if that fails or dies."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "mlforge.sources.sandbox_child",
        path,
        str(max_bytes or ""),
    ]
    try:
        run = subprocess.run(
            command, input=raw, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UnreadableFile(
            f"{path}: cannot be decoded within {_TIMEOUT_S:.0f} s; write the file again, or split it"
        ) from error
    if run.returncode == 0:
        table: pa.Table = pa.ipc.open_stream(run.stdout).read_all()
        return table
    if run.returncode == REFUSED:
        raise UnreadableFile(json.loads(run.stdout))
    cause = (
        signal.Signals(-run.returncode).name
        if run.returncode < 0
        else f"exit code {run.returncode}"
    )
    raise UnreadableFile(
        f"{path}: ends the process that decodes it ({cause}); write the file again, or split it"
    )


def _taken() -> int | None:
    """The bytes of data that this process has allocated; None where the system does not report them."""
    try:
        descriptor = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fields = os.read(descriptor, _LINE_BYTES).split()
        finally:
            os.close(descriptor)
        return int(fields[5]) * resource.getpagesize()
    except (OSError, AttributeError):
        return None
