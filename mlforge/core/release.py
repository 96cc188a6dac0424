"""The release of mlforge that is at work."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version


@cache
def release() -> str:
    """The number of the installed release, as in "1.2.3"; looking it up parses a file."""
    return version("mlforge")
