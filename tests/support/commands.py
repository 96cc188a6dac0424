"""Runs of the command line within a test, and what they print."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlforge.cli import main


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """The output of a run of mlforge, at most 80 columns wide, and with nothing on stderr if it went well."""
    capsys.readouterr()
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert code or captured.err == "", captured.err
    if "--json" not in arguments:
        assert max(map(len, captured.out.splitlines()), default=0) <= 80
    return captured.out


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """The document that a run of mlforge prints with `--json`."""
    return json.loads(printed(capsys, *arguments, "--json", code=code))
