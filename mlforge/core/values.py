"""Small frozen values that every layer speaks in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, Self

from mlforge.core.arguments import shown
from mlforge.errors import DefinitionError, StoreError

Bump = Literal["major", "minor", "patch"]
BUMP_ORDER: tuple[Bump, ...] = ("patch", "minor", "major")
"""The kinds of bumps, the least first."""
BEGINNING, END = -(1 << 62), 1 << 62
"""Before and after all instants, with room to add durations."""
FIRST_INSTANT, LAST_INSTANT = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The first and the last microsecond of the years 1 to 9999, which calendars and `datetime` hold."""
LONGEST_US = 1 << 60
"""The longest duration, some 36,500 years: sums of a few and an instant stay within 64 bits."""
PRECISION = 1e-9
"""How near floats are the same, relative to the largest magnitude among what they were computed from."""

FEATURE = "feature:"
"""The beginning of a source's text that names a feature: `feature:user_spend`; in a manifest `feature:user_spend@1.0.3`."""

_VERSION = re.compile(r"(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})")
_DURATION = re.compile(r"([1-9]\d*)(w|d|h|m|s|ms|us)")
_CALENDAR = {"mo": 30, "q": 91, "y": 365}
_CALENDAR_DURATION = re.compile(rf"(\d+)({'|'.join(_CALENDAR)})")
DAY_US, HOUR_US, SECOND_US = 86_400_000_000, 3_600_000_000, 1_000_000
_UNITS = {
    "w": 7 * DAY_US,
    "d": DAY_US,
    "h": HOUR_US,
    "m": 60 * SECOND_US,
    "s": SECOND_US,
    "ms": 1_000,
    "us": 1,
}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, order=True, slots=True)
class Version:
    """A semantic version `X.Y.Z`, without pre-release or build parts (semver.org, 2.0.0)."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read `"1.2.3"`; anything else raises StoreError."""
        match = _VERSION.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise StoreError(f"{shown(text)} is not a version; write three numbers, as in '1.2.3'")
        return cls(*(int(part) for part in match.groups()))

    @classmethod
    def of(cls, version: Version | str) -> Version:
        """The version, or the one that a text names; raises as `parse`."""
        return version if isinstance(version, Version) else cls.parse(version)

    def bumped(self, bump: Bump) -> Version:
        """The next version of that kind."""
        if bump == "major":
            return Version(self.major + 1, 0, 0)
        if bump == "minor":
            return Version(self.major, self.minor + 1, 0)
        return Version(self.major, self.minor, self.patch + 1)

    def step_from(self, other: Version) -> Bump:
        """The first of the three numbers in which this version is another."""
        if self.major != other.major:
            return "major"
        return "minor" if self.minor != other.minor else "patch"

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


@dataclass(frozen=True, slots=True)
class Duration:
    """A fixed length of time: microseconds, and the text that names it in column names."""

    us: int
    text: str

    @classmethod
    def parse(cls, value: object, what: str = "duration") -> Duration:
        """Read `"7d"` (w d h m s ms) or a timedelta; calendar units, zero and over 36,500 years are refused."""
        if isinstance(value, Duration):
            return value
        if isinstance(value, timedelta):
            us = value // timedelta(microseconds=1)
            if us <= 0:
                raise DefinitionError(f"{what} {shown(value)} must be longer than zero")
            return _not_too_long(cls.of(us), what)
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if match is not None:
            digits = match[1] if len(match[1]) < 20 else "9" * 20
            return _not_too_long(cls(int(digits) * _UNITS[match[2]], match[0]), what)
        calendar = _CALENDAR_DURATION.fullmatch(value) if isinstance(value, str) else None
        if calendar is not None:
            days = int(calendar[1]) * _CALENDAR[calendar[2]]
            raise DefinitionError(
                f"{what} {shown(value)} is a calendar unit, whose length varies; the nearest fixed one is '{days}d'"
            )
        raise DefinitionError(
            f"{what} {shown(value)} is not a fixed duration; write a whole number above zero and one of "
            "w d h m s ms, as in '7d', or give a timedelta"
        )

    @classmethod
    def of(cls, us: int) -> Duration:
        """The duration of a number of microseconds, written in its largest exact unit."""
        unit = next(unit for unit, size in _UNITS.items() if us % size == 0)
        return cls(us, f"{us // _UNITS[unit]}{unit}")

    @property
    def name(self) -> str:
        """As columns name it."""
        return self.text

    @property
    def width(self) -> int | None:
        """The microseconds that a window so long goes back."""
        return self.us

    @property
    def longest(self) -> int:
        """The most microseconds that a window so long goes back."""
        return self.us

    def start(self, end: Any) -> Any:
        """The start of a window so long: an integer, or an expression over ends."""
        return end - self.us

    def last_end(self, start: Any) -> Any:
        """The last end of a window so long that starts no later than this: an integer, or an expression."""
        return start + self.us

    def __str__(self) -> str:
        return self.text


def _not_too_long(duration: Duration, what: str) -> Duration:
    if duration.us > LONGEST_US:
        raise DefinitionError(
            f"{what} {duration} is longer than all of time from the year 1 to 9999, which '3652059d' spans"
        )
    return duration


class TimeRange(NamedTuple):
    """Instants from `start` to `end` in UTC microseconds, both included."""

    start: int
    end: int

    def overlaps(self, other: TimeRange) -> bool:
        """Whether some instant lies in both ranges."""
        return self.start <= other.end and other.start <= self.end

    def union(self, other: TimeRange) -> TimeRange:
        """The least range that covers both."""
        return TimeRange(min(self.start, other.start), max(self.end, other.end))


def is_name(name: object) -> bool:
    """Whether the name is one that a feature may have."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def check_name(name: object, what: str = "feature") -> str:
    """Return the name if it is safe in paths, Redis keys, job ids and column prefixes."""
    if not isinstance(name, str) or not is_name(name):
        raise DefinitionError(
            f"{what} name {shown(name)} is not allowed; use letters, digits, '_' and '-', "
            "a letter first, at most 100 characters"
        )
    return name


def to_us(instant: datetime) -> int:
    """Microseconds since the epoch; a naive datetime is taken as UTC."""
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    since = instant - _EPOCH
    return since.days * DAY_US + since.seconds * SECOND_US + since.microseconds


def from_us(us: int) -> datetime:
    """The UTC datetime of a number of microseconds since the epoch."""
    return _EPOCH + timedelta(microseconds=us)


def to_iso(us: int | None) -> str | None:
    """ISO 8601 with microseconds and `Z`, or None."""
    return (
        None
        if us is None
        else from_us(us).isoformat(timespec="microseconds").replace("+00:00", "Z")
    )


def from_iso(text: str | None) -> int | None:
    """Microseconds since the epoch of an ISO 8601 instant, or None."""
    return None if text is None else to_us(datetime.fromisoformat(text))
