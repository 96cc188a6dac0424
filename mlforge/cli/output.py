"""Text that commands print: numbers, sentences, JSON, warnings and errors."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import IO

from mlforge.cli.style import style
from mlforge.cli.wrap import hard_wrap
from mlforge.core.text import printable
from mlforge.errors import with_owner

_NARROWEST = 20
# The end of an error about an expression: its text, and below it marks of the faulty part.
_MARKED = re.compile(r"\n( {4}.*)\n( {4} *\^+)$")
_MOST = 10


def number(value: int | None) -> str | None:
    """`1,234,567`."""
    return None if value is None else f"{value:,}"


def minute(iso: str | None) -> str | None:
    """`2025-01-15 10:00`."""
    return None if iso is None else iso[:16].replace("T", " ")


def second(iso: str | None) -> str | None:
    """`2025-01-15 10:00:00`."""
    return None if iso is None else iso[:19].replace("T", " ")


def instant(iso: str | None) -> str | None:
    """`2025-01-15 10:00:00`, with microseconds where there are some."""
    exact = iso is not None and iso[19:].strip(".0Z")
    return iso.removesuffix("Z").replace("T", " ") if iso and exact else second(iso)


def nearby(place: str | Path) -> str:
    """A path as seen from here, if it lies below; a URL as it is."""
    if "://" in str(place):
        return str(place)
    path, here = Path(place), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def note(text: str, look: str | None = None) -> None:
    """Print a sentence on stdout at once, as wide as the terminal at most, or 80 columns where there is none."""
    for line in _indented(printable(text)):
        print(style(line, look) if look else line, flush=True)


def lines_for(stream: IO[str], text: str) -> list[str]:
    """A record as a stream shows it: in a terminal its lines end between words, elsewhere it stays one line."""
    return _indented(text) if stream.isatty() else [text]


def _indented(text: str) -> list[str]:
    """Lines as wide as the terminal at most; all but the first are set in."""
    width = max(shutil.get_terminal_size().columns, _NARROWEST)
    first, *more = hard_wrap(text, width - 2) or [""]
    return [first, *(f"  {line}" for line in more)]


def print_json(value: object) -> None:
    """Print a value as JSON on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def warn(*texts: str, about: str | None = None) -> None:
    """Yellow lines on stderr, each about a feature; of many the first ones."""
    _say("warning", "yellow", texts, about)


def fail(*texts: str, about: str | None = None) -> None:
    """Red lines on stderr that say what went wrong, and with which feature; of many the first ones."""
    _say("error", "red", texts, about)


def _say(kind: str, colour: str, texts: Sequence[str], about: str | None) -> None:
    more = [f"and {len(texts) - _MOST:,} more; --json has them all"] if len(texts) > _MOST else []
    for text in [*texts[:_MOST], *more]:
        marked = _MARKED.search(text)
        line = _about(text[: marked.start()] if marked else text, about)
        place = map(printable, marked.groups()) if marked else ()
        for shown in (*lines_for(sys.stderr, f"mlforge: {kind}: {line}"), *place):
            print(style(shown, colour, sys.stderr), file=sys.stderr)


def _about(text: str, owner: str | None) -> str:
    line = printable(" ".join(text.split()))
    return line if owner is None else with_owner(owner, line)


def confirmed(question: str) -> bool:
    """Whether a person at a terminal says yes; False where nobody can be asked."""
    return sys.stdin.isatty() and input(f"{printable(question)} [y/N] ").strip().lower() == "y"


@contextmanager
def stdout_is_ours() -> Iterator[None]:
    """Send what definitions and feature functions print to stderr: stdout holds results alone."""
    with redirect_stdout(sys.stderr):
        yield
