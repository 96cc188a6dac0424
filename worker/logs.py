"""Logging: JSON lines in production, readable in a terminal; rq's own records go the same way."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from mlforge.core.text import printable

_FIRST = ("timestamp", "level", "process", "event", "feature")
"""The fields that a line begins with: it is read from its left end."""
_SUMMED_UP = ("mlforge.build", "mlforge.push")
"""Loggers whose news of a version and of a push the worker has in a line of its own; their warnings are told."""


def configure(process: str, level: str = "INFO") -> None:
    """Send all logs of this process to stderr; `process` (watcher, worker, audit) is in each line, also of its threads."""
    readable = sys.stderr.isatty()
    renderer: Any = (
        structlog.dev.ConsoleRenderer() if readable else structlog.processors.JSONRenderer()
    )
    # Not a context variable: other threads than the first have a context of their own.
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        lambda _, __, record: {**record, "process": process},
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                escaped if readable else _in_order,
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
    logging.getLogger("rq.worker").addFilter(_is_news)
    for name in _SUMMED_UP:
        logging.getLogger(name).setLevel(logging.WARNING)


def _is_news(record: logging.LogRecord) -> bool:
    """False for rq's line about each attempt to reach a server that is away: the outage is told by us, once a minute."""
    return "could not connect to Redis" not in str(record.msg)


def _in_order(_: object, __: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The record with what tells its lines apart in front."""
    return {**{name: record[name] for name in _FIRST if name in record}, **record}


def escaped(_: object, __: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The record with control characters escaped: a file's name must not forge a line of the log.

    A traceback keeps its line breaks. JSON output needs no escaping, as its encoder escapes.
    """
    for name, value in record.items():
        if isinstance(value, str):
            lines = value.splitlines() if name in ("exception", "stack") else [value]
            record[name] = "\n".join(map(printable, lines))
    return record
