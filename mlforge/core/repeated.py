"""Names that were said twice, of which a dictionary would take the last in silence."""

from __future__ import annotations

from collections.abc import Iterable


def first_repeated(names: Iterable[str]) -> str | None:
    """The first name that was said before; None where each is said once."""
    said: set[str] = set()
    for name in names:
        if name in said:
            return name
        said.add(name)
    return None
