"""Units of the calendar, in UTC: day, ISO week, month and year, by integer arithmetic alone.

Instants are UTC microseconds. As nothing but `+ - * //` is done to them, expressions of an engine do as well
as integers. Years before 1 and after 9999 are those of the same calendar, so nothing overflows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlforge.core.values import DAY_US

# Days from 0000-03-01, with which leap days end years of the calendar below, to 1970-01-01.
_MARCH = 719_468
_ERA, _CENTURY, _FOUR_YEARS, _YEAR = 146_097, 36_524, 1_460, 365


@dataclass(frozen=True, slots=True)
class Period:
    """A unit of the calendar: its length as users write it, its name in columns, the most days that it has."""

    text: str
    name: str
    most_days: int

    def start(self, instant: Any) -> Any:
        """The first instant of the unit that holds an instant."""
        return _FIRST_DAY[self.text](instant // DAY_US) * DAY_US

    def last_end(self, instant: Any) -> Any:
        """The last instant of the unit that holds an instant: the last whose unit starts no later than it."""
        return self.start(self.start(instant) + self.most_days * DAY_US) - 1

    @property
    def width(self) -> int | None:
        """None: how far back it goes depends on the instant."""
        return None

    @property
    def longest(self) -> int:
        """The most microseconds that it goes back."""
        return self.most_days * DAY_US

    def __str__(self) -> str:
        return self.text


def _monday(day: Any) -> Any:
    return (day + 3) // 7 * 7 - 3  # day 0, 1970-01-01, was a Thursday


def _first_of_month(day: Any) -> Any:
    _, day_of_year = _march_year(day)
    month = (5 * day_of_year + 2) // 153
    return day - day_of_year + (153 * month + 2) // 5


def _first_of_year(day: Any) -> Any:
    year, day_of_year = _march_year(day)
    # 1 for January and February, which belong to the year that began with the March before.
    is_early = (5 * day_of_year + 2) // 153 // 10
    until_march = 59 + _leap_days(year) - _leap_days(year - 1)
    return day - day_of_year + 306 * is_early - until_march * (1 - is_early)


def _march_year(day: Any) -> tuple[Any, Any]:
    """A year that begins with the first of March, and the day within it, from 0 (Hinnant, `civil_from_days`)."""
    era = (day + _MARCH) // _ERA
    of_era = day + _MARCH - era * _ERA
    year = (of_era - of_era // _FOUR_YEARS + of_era // _CENTURY - of_era // (_ERA - 1)) // _YEAR
    return year + era * 400, of_era - (_YEAR * year + year // 4 - year // 100)


def _leap_days(year: Any) -> Any:
    return year // 4 - year // 100 + year // 400


_FIRST_DAY: dict[str, Callable[[Any], Any]] = {
    "1d": lambda day: day,
    "1w": _monday,
    "1mo": _first_of_month,
    "1y": _first_of_year,
}
PERIODS = {
    text: Period(text, name, most)
    for text, name, most in (
        ("1d", "dtd", 1),
        ("1w", "wtd", 7),
        ("1mo", "mtd", 31),
        ("1y", "ytd", 366),
    )
}
"""By length as users write it."""
