"""Loggers of the library: as the program has configured structlog, else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import structlog

PLAIN: tuple[Any, ...] = (
    *structlog.get_config()["processors"][:-1],
    structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    ),
)
"""The processors of structlog's own, with tracebacks as Python prints them: others show the values of local variables, such as rows and keys."""


class _Output:
    """The logger that structlog's configuration makes; where a program has configured nothing, stderr.

    structlog itself would print to stdout, among what a script prints as its result.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, method: str) -> Any:
        if structlog.is_configured():
            return getattr(structlog.get_config()["logger_factory"](self._name), method)
        return getattr(structlog.PrintLogger(sys.stderr), method)


class _Processors:
    """The processors that a program has configured, else those of a plain console."""

    def __iter__(self) -> Iterator[Any]:
        return iter(structlog.get_config()["processors"] if structlog.is_configured() else PLAIN)


def get_logger(name: str) -> Any:
    """A structlog logger of that name; it writes to stdout only if the program configures it to."""
    return structlog.wrap_logger(_Output(name), processors=_Processors())
