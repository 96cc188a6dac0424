"""Forces the engines onto their slower ways, which small data would never take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mlforge.engines import Engine, duckdb_engine, fixed


@contextmanager
def forced(*, general: bool = False, gathered: int | None = None) -> Iterator[None]:
    """`general`: no fixed point, no lists, as with data too wide for them; `gathered`: events at a time."""
    with pytest.MonkeyPatch.context() as patch:
        if general:
            patch.setattr(fixed, "_ROOM", 0)
            patch.setattr(duckdb_engine, "_LISTED", -1)
        if gathered is not None:
            patch.setattr(Engine, "gathered", gathered)
        yield
