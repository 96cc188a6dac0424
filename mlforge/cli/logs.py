"""Logs of the library and of workers as a command shows them: warnings as sentences, errors as they are."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from mlforge.cli.output import warn
from mlforge.core.logs import PLAIN

_TOLD_BY_RESULTS = frozenset({"quarantined", "built by this process alone"})
"""Warnings that the results of a build have, too, in words of their own."""
_REASONS = ("why", "reason", "error")


def configure() -> None:
    """Log warnings and errors alone, on stderr: commands print all else themselves."""
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[_told, *PLAIN],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _told(_: object, method: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Print a warning as other warnings of commands are printed; errors are passed on."""
    if method != "warning":
        return record
    if record["event"] not in _TOLD_BY_RESULTS:
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")  # over a line about work that goes on
        warn(_sentence(record), about=record.get("feature"))
    raise structlog.DropEvent


def _sentence(record: MutableMapping[str, Any]) -> str:
    """The event, its reason, and in parentheses what else is known of it."""
    reasons = [str(record[name]) for name in _REASONS if record.get(name)]
    apart = {"event", "feature", "exc_info", *_REASONS}
    facts = [f"{name} {value}" for name, value in record.items() if name not in apart]
    told = ": ".join([str(record["event"]), *reasons])
    return f"{told} ({', '.join(facts)})" if facts else told
