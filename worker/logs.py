"""Logging: JSON lines in production, readable in a terminal; rq's own records go the same way."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from mlforge.core.text import printable

_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure(process: str, level: str = "INFO") -> None:
    """Send all logs of this process to stderr; `process` (watcher, worker, up) is in each line."""
    readable = sys.stderr.isatty()
    renderer: Any = (
        structlog.dev.ConsoleRenderer() if readable else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                *([escaped] if readable else []),
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("rq.worker", "rq.job", "rq.queue", "watchfiles.main"):
        quiet = logging.getLogger(name)
        quiet.handlers.clear()
        quiet.propagate = True
        quiet.setLevel(logging.WARNING)
    structlog.contextvars.bind_contextvars(process=process)


def escaped(_: object, __: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The record with control characters escaped: a file's name must not forge a line of the log.

    A traceback keeps its line breaks. JSON output needs no escaping, as its encoder escapes.
    """
    for name, value in record.items():
        if isinstance(value, str):
            lines = value.splitlines() if name in ("exception", "stack") else [value]
            record[name] = "\n".join(map(printable, lines))
    return record
