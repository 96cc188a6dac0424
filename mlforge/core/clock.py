"""The clock that everything reads, so that tests and simulations can set it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from mlforge.core.values import to_us

_fixed: ContextVar[int | None] = ContextVar("mlforge_clock", default=None)
_shift: ContextVar[int] = ContextVar("mlforge_clock_shift", default=0)


def now() -> int:
    """The present instant in UTC microseconds."""
    fixed = _fixed.get()
    return to_us(datetime.now(UTC)) + _shift.get() if fixed is None else fixed


@contextmanager
def fixed(instant: datetime | int) -> Iterator[None]:
    """Hold the clock at an instant (a datetime, or UTC microseconds) within the block."""
    token = _fixed.set(instant if isinstance(instant, int) else to_us(instant))
    try:
        yield
    finally:
        _fixed.reset(token)


@contextmanager
def shifted(us: int) -> Iterator[None]:
    """Shift the clock within the block: it is this many microseconds ahead of the host's, unless it is fixed."""
    token = _shift.set(_shift.get() + us)
    try:
        yield
    finally:
        _shift.reset(token)
