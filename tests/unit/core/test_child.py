"""Processes that mlforge starts for itself."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from mlforge.core import child


def test_ctrl_c_ends_a_process_of_ours_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: str) -> int:
        raise KeyboardInterrupt

    module = ModuleType("interrupted")
    monkeypatch.setattr(module, "main", interrupted, raising=False)
    monkeypatch.setitem(sys.modules, "interrupted", module)
    assert child.main("interrupted", "argument") == 130
    assert capsys.readouterr() == ("", "")
