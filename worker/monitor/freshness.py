"""Freshness figures for those who have no project open."""

from __future__ import annotations

from dataclasses import asdict

from redis.exceptions import RedisError

from mlforge.definitions.registry import Definitions
from mlforge.errors import OnlineError
from worker.project import connect, scope_of
from worker.state.event_log import EventLog


def freshness_at(url: str, definitions: Definitions, feature: str) -> dict[str, float] | None:
    """How long the last drops of a feature took to be readable: `{"count", "p50", "p95", "p99"}`, in milliseconds.

    None without drops, and where the server does not answer. Nothing is written, to the store neither.
    """
    if definitions.store.identity() is None:
        return None
    try:
        figures = EventLog(connect(url), scope_of(definitions)).freshness(feature)
    except (OnlineError, RedisError):
        return None
    return None if figures is None else asdict(figures)
