"""The lock of a project's `mlforge up`, which runs once on a machine, and the note by which others find its server."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlforge.definitions.environment import REDIS_URL
from mlforge.definitions.running import NOTE, read_note
from mlforge.errors import MlforgeError
from worker.connection import hide_password

_NOTED_S = 5.0
_LOOK_S = 0.25


@contextmanager
def only_one(folder: Path, profile: str | None, is_own: bool) -> Iterator[Callable[[str], None]]:
    """Hold the project's lock; yields a function that writes the REDIS_URL where other processes find it.

    is_own: whether the server is the user's own, whose password is not told to whoever starts a second one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    path = folder / NOTE
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            running = _note_of_another(path)
            url = str(running.get("url") or "...")
            told = hide_password(url) if running.get("own") else url
            raise MlforgeError(
                f"mlforge up runs here already (process {running.get('pid', 'unknown')}); "
                f"use it: {REDIS_URL}={told}, or stop it with Ctrl-C in its terminal"
            ) from error

        def note(url: str | None) -> None:
            file.seek(0)
            file.truncate()
            named = {} if profile is None else {"profile": profile}
            own = {"own": True} if is_own else {}
            json.dump({"pid": os.getpid(), "url": url, **named, **own}, file)
            file.flush()

        note(None)
        try:
            yield note
        finally:
            file.seek(0)
            file.truncate()


def _note_of_another(path: Path) -> dict[str, Any]:
    """The note of the `up` that runs here; an `up` that has just started gets time to write it."""
    deadline = time.monotonic() + _NOTED_S
    while not (note := read_note(path)).get("url") and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    return note
