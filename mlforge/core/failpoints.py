"""Named places where a test may stop the process: nothing happens at them unless it is armed."""

from __future__ import annotations

from collections.abc import Callable

_armed: dict[str, Callable[[], None]] = {}


def reach(name: str) -> None:
    """Run the action that a test armed under this name; nothing in production."""
    if _armed and (action := _armed.get(name)) is not None:
        action()


def arm(name: str, action: Callable[[], None]) -> None:
    """Run `action` whenever the named place is reached."""
    _armed[name] = action


def disarm() -> None:
    """Forget all that is armed."""
    _armed.clear()
