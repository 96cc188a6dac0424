"""Text broken into lines of a terminal, between words."""

from __future__ import annotations

import re
import unicodedata

_BETWEEN_WORDS = r"(?<=\s)(?=\S)"
_WORDS = re.compile(_BETWEEN_WORDS)
_PARTS = re.compile(rf"{_BETWEEN_WORDS}|(?<=/)(?![/\s])|(?<=[,;:=])(?![\d\s/])")


def columns_of(text: str) -> int:
    """How many columns of a terminal the text takes: two for wide letters, none for combining ones."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def segments(text: str, within_words: bool = False) -> list[str]:
    """Parts of a text between which a line may end: words, or also folders of a path and items of a list.

    A number stays whole: `1,234`, `10:00`.
    """
    return (_PARTS if within_words else _WORDS).split(text) if text else []


def wrap(text: str, width: int, within_words: bool = False) -> list[str]:
    """Lines of at most so many columns, but for a piece that is longer by itself."""
    lines, line = [], ""
    for piece in segments(text, within_words):
        if line and columns_of(line + piece.rstrip()) > width:
            lines.append(line.rstrip())
            line = piece.lstrip()
        else:
            line += piece
    return [*lines, line.rstrip()] if line.strip() else lines


def hard_wrap(text: str, width: int) -> list[str]:
    """Lines of at most so many columns; a longer word is broken where a path may be, else anywhere."""
    lines, line = [], ""
    for piece in segments(text):
        if line and columns_of(line + piece.rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        *full, line = _broken(line + piece, width)
        lines += full
    return [*lines, line.rstrip()] if line.strip() else lines


def _broken(text: str, width: int) -> list[str]:
    """A text as lines of at most so many columns, broken where a path may be, else anywhere; white space is kept."""
    if columns_of(text.rstrip()) <= width:
        return [text]
    lines = []
    for part in wrap(text, width, within_words=True):
        remaining = part
        while columns_of(remaining) > width:
            head = _head(remaining, width)
            lines.append(head)
            remaining = remaining[len(head) :]
        lines.append(remaining)
    lines[-1] += text[len(text.rstrip()) :]
    return lines


def shorten(text: str, width: int) -> str:
    """At most so many columns of a text; the middle is what goes, `…` in its place."""
    if columns_of(text) <= width:
        return text
    keep = max(width - 1, 0)
    head = _head(text, keep - keep // 2) if keep else ""
    tail = _head(text[::-1], keep // 2)[::-1] if keep > 1 else ""
    return f"{head}…{tail}"[: max(width, 0)]


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _head(text: str, width: int) -> str:
    """The longest beginning of the text that is so many columns wide, one letter at least."""
    width_used = 0
    for index, character in enumerate(text):
        width_used += _columns(character)
        if width_used > width:
            return text[: max(index, 1)]
    return text
