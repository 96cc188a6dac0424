"""Text for people: counts with their nouns, durations, sizes, and text from outside, which may hold anything, as it may be shown."""

from __future__ import annotations

FIRST_BUILD = "first_build"
"""The reason of a feature's first version."""
_SIZES = ("B", "KB", "MB", "GB", "TB")


def printable(value: object) -> str:
    """A line of text in which control characters are escaped; `-` for None."""
    text = "-" if value is None else str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plural(count: int, noun: str, many: str | None = None) -> str:
    """`1 file`, `2,000 files`; many: the plural where it is not the noun with an s."""
    return f"{count:,} {noun if count == 1 else many or f'{noun}s'}"


def bump_word(bump: str | None, reason: str | None) -> str | None:
    """The bump of a version as people read it: `new` for a feature's first one, which is a major by rule and breaks nobody."""
    return "new" if reason == FIRST_BUILD else bump


def duration(seconds: float) -> str:
    """`12 ms`, `3.4 s`, `2 min 5 s`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, remainder = divmod(round(seconds), 60)
    return f"{minutes:,} min {remainder} s"


def size(count: int) -> str:
    """`512 B`, `12.3 MB`."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_SIZES) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{value:.1f} {_SIZES[unit]}"
