"""Names of folders that are not versions yet, or not any more; a name carries its owner."""

from __future__ import annotations

import os
import socket
import time
import uuid
from contextlib import suppress
from pathlib import Path

PREFIX = ".staged-"
_ABANDONED_S = 86_400


def new_name() -> str:
    """A new name for a folder that is not a version yet, or not any more; it carries its owner."""
    return f"{PREFIX}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"


def is_litter(staged: Path) -> bool:
    """Whether nobody is at work in it: its process is dead, or, if of another host, it is a day old."""
    host, _, pid = staged.name.removeprefix(PREFIX).rpartition("-")[0].rpartition("-")
    if host != socket.gethostname() or not pid.isdigit():
        return is_abandoned(staged)
    return int(pid) == os.getpid() or not _is_alive(int(pid))


def is_abandoned(folder: Path) -> bool:
    """Whether nothing has been written to a folder for a day."""
    with suppress(OSError):
        return time.time() - folder.stat().st_mtime > _ABANDONED_S
    return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
