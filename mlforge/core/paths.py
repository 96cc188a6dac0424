"""From a text to the path that it names: what is checked before a write is what is written."""

from __future__ import annotations

import os
from pathlib import Path


def path_of(text: str | os.PathLike[str]) -> Path:
    """The path that a text names; nothing is looked up on the disk.

    `~` and `~name` at its start are the home folders of users that there are, and names as any other where there is none.
    """
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises RuntimeError for a name


def real_path_of(text: str | os.PathLike[str]) -> Path:
    """The path that a text names, from the file system's root and with its links followed; nothing of it needs to be there."""
    return Path(os.path.realpath(path_of(text)))
