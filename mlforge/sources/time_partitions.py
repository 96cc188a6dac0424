"""The time that folders' names tell: `date=2026-11-01/`, `2026/11/01/`, `year=2026/month=11/`, with hours, too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

Unit = Literal["year", "month", "day", "hour"]
_WHOLE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T-](\d\d))?)?)?|(\d{4})(\d\d)(\d\d)(\d\d)?")
_NEXT = re.compile(r"\d\d?")
_WORDS = re.compile(r"[A-Z]*[a-z]+|[A-Z]+")
_OF_DATES = {
    "date",
    "datetime",
    "time",
    "timestamp",
    "day",
    "d",
    "ds",
    "dt",
    "hour",
    "hr",
    "h",
    "ts",
}
"""Words of columns that hold dates, alone or behind the word for what happened then."""
_HAPPENED = (
    "event", "trade", "order", "load", "ingest", "partition", "snapshot", "run", "file", "report", "business", "log",
    "start", "end", "create", "created", "update", "updated", "process", "processing", "arrival", "transaction", "utc", "local",
)  # fmt: skip
_COMPOUNDS = {
    first + last for first in _HAPPENED for last in ("date", "datetime", "time", "day", "ts", "dt")
}
_UNITS: tuple[Unit, ...] = ("year", "month", "day", "hour")
_NAMES: tuple[set[str], ...] = (
    {"year", "yyyy", "y"},
    {"month", "mm", "m"},
    {"day", "dd", "d"},
    {"hour", "hh", "h"},
)


class Period(NamedTuple):
    """The time of a partition: when it is over, in UTC microseconds, and how fine it is."""

    end: int
    unit: Unit


def period_of(folders: Sequence[str]) -> Period | None:
    """The finest period that the names of folders tell, from the outermost on; None where they tell of none.

    A name is a value, or `column=value`. Names tell UTC. A bare number counts as a month, day or hour only below a bare year,
    and eight digits or more of a column as a date only where its name says so.
    """
    numbers: list[int] = []
    is_bare = False
    for folder in folders:
        column, equals, value = folder.partition("=")
        name, text = (column, value) if equals else ("", folder)
        if not numbers:
            numbers = _begun(name, text)
            is_bare = not name and len(numbers) == 1
        elif _goes_on(name, text, numbers, is_bare=is_bare):
            numbers = [*numbers, int(text)]
    return _period(numbers)


def _goes_on(name: str, text: str, numbers: Sequence[int], *, is_bare: bool) -> bool:
    if len(numbers) == len(_UNITS) or not _NEXT.fullmatch(text):
        return False
    return (is_bare and not name) or name.lower() in _NAMES[len(numbers)]


def _begun(name: str, text: str) -> list[int]:
    match = _WHOLE.fullmatch(text)
    numbers = [int(part) for part in match.groups() if part is not None] if match else []
    if not numbers or not 1970 <= numbers[0] < 2200:
        return []
    if name and text.isdigit() and not _tells_time(name, numbers):
        return []  # more likely an id
    return numbers if _period(numbers) else []


def _tells_time(column: str, numbers: Sequence[int]) -> bool:
    """Whether bare digits of a column are a year, or a date, as its name says."""
    if len(numbers) == 1:
        return column.lower() in _NAMES[0]
    words = {word.lower() for word in _WORDS.findall(column)}
    return not words.isdisjoint(_OF_DATES | _COMPOUNDS)


def _period(numbers: Sequence[int]) -> Period | None:
    try:
        return Period(_end(numbers), _UNITS[len(numbers) - 1]) if numbers else None
    except (ValueError, OverflowError):
        return None


def _end(numbers: Sequence[int]) -> int:
    year, month, day, hour = (*numbers, *(1, 1, 1, 0)[len(numbers) :])
    start = datetime(year, month, day, hour, tzinfo=UTC)
    match len(numbers):
        case 1:
            end = start.replace(year=year + 1)
        case 2:
            end = (start + timedelta(days=31)).replace(day=1)
        case 3:
            end = start + timedelta(days=1)
        case _:
            end = start + timedelta(hours=1)
    return (end - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
