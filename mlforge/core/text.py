"""Text from outside, as it may be shown: file names, logs and rows may hold anything."""

from __future__ import annotations


def printable(value: object) -> str:
    """A line of text in which control characters are escaped; `-` for None."""
    text = "-" if value is None else str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
