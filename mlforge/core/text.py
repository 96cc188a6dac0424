"""Text for people: counts with their nouns, durations, sizes, and text from outside, which may hold anything, as it may be shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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


def some_of(names: Sequence[str], most: int = 3) -> str:
    """`a, b, c and 11 more`."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def by_reason(reasons: Iterable[tuple[str, str]]) -> list[str]:
    """`a.parquet, b.parquet: is empty`, of pairs of a path and the reason why something is the matter with it: a line for each reason."""
    paths: dict[str, list[str]] = {}
    for path, reason in reasons:
        paths.setdefault(reason, []).append(path)
    return [f"{some_of(several)}: {reason}" for reason, several in paths.items()]


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
