"""Now: the one clock that everything asks, so that tests and simulations can set it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from mlforge.values import to_us

_fixed: ContextVar[int | None] = ContextVar("mlforge_clock", default=None)


def now() -> int:
    """The present instant in UTC microseconds."""
    fixed = _fixed.get()
    return to_us(datetime.now(UTC)) if fixed is None else fixed


@contextmanager
def fixed(instant: datetime | int) -> Iterator[None]:
    """Hold the clock at an instant (a datetime, or UTC microseconds) within the block."""
    token = _fixed.set(instant if isinstance(instant, int) else to_us(instant))
    try:
        yield
    finally:
        _fixed.reset(token)
