"""The server of a project: where a running `mlforge up` notes its address, and the online store on it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlforge.definitions.environment import redis_url
from mlforge.definitions.loader import Target

if TYPE_CHECKING:
    from mlforge.definitions.registry import Definitions

FOLDER, NOTE = ".mlforge", "up.json"
TTL_S = 7 * 86_400
"""Seconds that rows outlive the pipeline, unless the definitions name an online store of their own."""


def project_folder(target: str | None, here: Path) -> Path:
    """The folder of the definitions file that a target names; that of a module is `here`."""
    file = Target.parse(target, here).file
    return here if file is None else file.absolute().parent


def read_note(path: Path) -> dict[str, Any]:
    """The note of an `mlforge up`: its `pid`, the `url` of its server, and its `profile` if it was given one.

    Empty if the file is missing or not JSON.
    """
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


def running_url(target: str | None, here: Path, profile: str | None = None) -> str | None:
    """The address of the server that a running `mlforge up` of these definitions and this profile uses; None if none runs."""
    note = read_note(project_folder(target, here) / FOLDER / NOTE)
    url, pid = note.get("url"), note.get("pid")
    if note.get("profile") != profile:
        return None
    return url if isinstance(url, str) and isinstance(pid, int) and _lives(pid) else None


def workers_url_of(definitions: Definitions) -> str | None:
    """The URL of the Redis of the definitions' workers: REDIS_URL, else that of a running `mlforge up` of them; None where there is neither."""
    url = redis_url()
    if url or definitions.loaded_from is None:
        return url
    # One that was started without a profile has that of the file's default.
    return running_url(*definitions.loaded_from, definitions.profile) or running_url(
        *definitions.loaded_from
    )


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:  # another user's
        return True
    except (OSError, OverflowError):
        return False
    return pid > 0


def serve_at(definitions: Definitions, url: str) -> Definitions:
    """Give definitions without an online store the one at a URL; returns the definitions.

    Workers and commands both call this, so that rows get the same keys and TTL whoever writes them.
    """
    if definitions.online_store is None:
        from mlforge.online import RedisStore

        definitions.online_store = RedisStore.from_url(url, ttl=TTL_S)
    return definitions
