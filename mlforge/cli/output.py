"""What the commands print: tables, JSON, colours."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mlforge.core.text import printable

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
_NARROWEST = 6
_MOST = 10
_GAP = "  "


@dataclass(frozen=True, slots=True)
class Styled:
    """A cell in a colour: bold, dim, red, green or yellow."""

    value: object
    style: str


def coloured(stream: IO[str]) -> bool:
    """Whether colours are welcome: in a terminal, unless NO_COLOR is set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def style(text: str, name: str, stream: IO[str] | None = None) -> str:
    """The text in a colour, where colours are welcome."""
    if not coloured(stream or sys.stdout):
        return text
    return f"\x1b[{_STYLES[name]}m{text}\x1b[0m"


def number(value: int | None) -> str | None:
    """`1,234,567`."""
    return None if value is None else f"{value:,}"


def plural(count: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def seconds(value: float) -> str:
    """`12 ms`, `3.4 s`, `2 min 5 s`."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s"


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


def nearby(path: Path) -> str:
    """The path from here, if it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def shorten(text: str, width: int) -> str:
    """At most so many columns of a terminal wide; what goes is the middle."""
    if _wide(text) <= width:
        return text
    head, tail = text, ""
    keep = max(width - 1, 0)
    head = _cut(text, keep - keep // 2)
    tail = _cut(text[::-1], keep // 2)[::-1]
    return f"{head}…{tail}"[: max(width, 0)]


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    right: Sequence[str] = (),
    width: int | None = None,
) -> str:
    """Rows under headers, as wide as the terminal at most (80 columns where there is none).

    The widest columns are shortened, the first one last: it holds names. Cells may be `Styled`;
    the columns named in `right` are set flush right.
    """
    width = width or shutil.get_terminal_size().columns
    styles = [[cell.style if isinstance(cell, Styled) else None for cell in row] for row in rows]
    texts = [
        [printable(cell.value if isinstance(cell, Styled) else cell) for cell in row]
        for row in rows
    ]
    columns = list(zip(headers, *texts, strict=True))
    widths = _fit(
        [max(map(_wide, column)) for column in columns], [_wide(text) for text in headers], width
    )

    def line(cells: Sequence[str], looks: Sequence[str | None]) -> str:
        parts = []
        for header, cell, look, space in zip(headers, cells, looks, widths, strict=True):
            text = shorten(cell, space)
            blank = " " * (space - _wide(text))
            shown = style(text, look) if look else text
            parts.append(blank + shown if header in right else shown + blank)
        return _GAP.join(parts).rstrip()

    head = line(headers, ["bold"] * len(headers))
    return "\n".join(
        [head, *(line(cells, looks) for cells, looks in zip(texts, styles, strict=True))]
    )


def pairs(rows: Sequence[tuple[str, object]], indent: int = 0) -> str:
    """Names and values in two columns; long values go on below, words whole."""
    space = indent + max((len(name) for name, _ in rows), default=0) + len(_GAP)
    width = shutil.get_terminal_size().columns
    return "\n".join(
        textwrap.fill(
            printable(value),
            max(width, space + _NARROWEST),
            initial_indent=f"{'':{indent}}{name}".ljust(space),
            subsequent_indent=" " * space,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, value in rows
    )


def note(text: str, look: str | None = None) -> None:
    """Print a sentence on stdout, as wide as the terminal at most; what goes on below is set in."""
    width = max(shutil.get_terminal_size().columns, _NARROWEST)
    lines = textwrap.wrap(
        printable(text),
        width,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines:
        print(style(line, look) if look else line)


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
    lines = [_about(text, about) for text in texts[:_MOST]]
    if len(texts) > _MOST:
        lines.append(_about(f"and {len(texts) - _MOST:,} more; --json has them all", about))
    for line in lines:
        print(style(f"mlforge: {kind}: {line}", colour, sys.stderr), file=sys.stderr)


def _about(text: str, about: str | None) -> str:
    line = printable(" ".join(text.split()))
    return line if about is None or line.startswith(f"{about}: ") else f"{about}: {line}"


@contextmanager
def stdout_is_ours() -> Iterator[None]:
    """Send what definitions and feature functions print to stderr: stdout holds results alone."""
    with redirect_stdout(sys.stderr):
        yield


def _fit(widths: list[int], headers: list[int], width: int) -> list[int]:
    """Narrow columns until they fit: the widest first, names (the first column) and headers last."""
    spare = width - len(_GAP) * (len(widths) - 1)
    least = [max(header, _NARROWEST) for header in headers]
    for floors in ([widths[0], *least[1:]], least, [_NARROWEST] * len(widths)):
        while sum(widths) > spare:
            widest = max(range(len(widths)), key=lambda at: (widths[at] - floors[at], widths[at]))
            if widths[widest] <= floors[widest]:
                break
            widths[widest] -= 1
    return widths


def _wide(text: str) -> int:
    """Columns that the text takes in a terminal."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _cut(text: str, width: int) -> str:
    """The longest head of the text that is so many columns wide."""
    taken = 0
    for index, character in enumerate(text):
        taken += _columns(character)
        if taken > width:
            return text[:index]
    return text
