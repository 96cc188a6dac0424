"""The end of what a project's event log in Redis says of forgotten entities."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from mlforge.core.forgotten import Entity
from mlforge.definitions.registry import Definitions
from worker.connection import connect
from worker.project import scope_of
from worker.state.event_log import EventLog


def forget_events(definitions: Definitions, url: str, entities: Sequence[Entity]) -> int:
    """Delete the entries whose details name an entity's value; returns how many. OnlineUnavailable where no server answers."""
    with closing(connect(url)) as redis:
        return EventLog(redis, scope_of(definitions)).delete_naming(entities)
