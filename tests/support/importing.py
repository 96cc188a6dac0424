"""Test modules, imported before they are collected."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest

from tests.support.paths import ROOT


def in_turn(modules: list[Path], process: int, processes: int) -> list[Path]:
    """The modules in another order for each process of a run: each begins with a part of its own."""
    begin = len(modules) * process // processes
    return modules[begin:] + modules[:begin]


def import_all(modules: Iterable[Path]) -> None:
    """Import test modules of this checkout by the names that pytest gives them, which then finds them imported.

    Those that cannot be imported, or that skip themselves, are left to pytest, which says so.
    """
    for path in modules:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        with suppress(Exception, pytest.skip.Exception):
            import_module(name)
