"""Freshness figures of a feature, for commands that open no project."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from mlforge.cli.options import definitions_target, profile_name
from mlforge.definitions.environment import redis_url
from mlforge.errors import OnlineError

if TYPE_CHECKING:
    from mlforge.definitions.registry import Definitions


def freshness(
    args: argparse.Namespace, definitions: Definitions, feature: str
) -> dict[str, float] | None:
    """How long the last drops of a feature took to be readable: `{"count", "p50", "p95", "p99"}`, in milliseconds.

    None without drops, and where no server answers or no worker ever was. Nothing is written, to the store neither.
    """
    from mlforge.definitions.running import running_url

    url = redis_url() or running_url(definitions_target(args), Path.cwd(), profile_name(args))
    if url is None or definitions.store.identity() is None:
        return None
    try:
        from redis.exceptions import RedisError

        from worker.connection import connect
        from worker.project import scope_of
        from worker.state.event_log import EventLog
    except ModuleNotFoundError:  # without the extra there was no worker
        return None
    try:
        with closing(connect(url)) as redis:
            figures = EventLog(redis, scope_of(definitions)).freshness(feature)
    except (OnlineError, RedisError):
        return None
    if figures is None:
        return None
    return {"count": figures.count, "p50": figures.p50, "p95": figures.p95, "p99": figures.p99}
