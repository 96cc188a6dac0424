"""Colours, where they are welcome."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import IO

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


@dataclass(frozen=True, slots=True)
class Styled:
    """A value with a look: bold, dim, red, green, yellow, or None."""

    value: object
    style: str | None


def coloured(stream: IO[str]) -> bool:
    """Whether colours are welcome: in a terminal, unless NO_COLOR is set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def style(text: str, name: str, stream: IO[str] | None = None) -> str:
    """The text in a colour, where colours are welcome on the stream (stdout by default)."""
    if not coloured(stream or sys.stdout):
        return text
    return f"\x1b[{_CODES[name]}m{text}\x1b[0m"
