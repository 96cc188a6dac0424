"""A server's append-only file and snapshot, which hold what was deleted until the server writes them anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from mlforge.core.text import plural
from mlforge.errors import OnlineError, OnlineUnavailable

if TYPE_CHECKING:
    import redis

_WAIT_S = 600.0
"""How long a server is given to write a file anew."""
_PAUSES_S = (0.02, 0.1, 0.5)

Facts = Mapping[str, Any]


def rewrite_own_files(
    server: str, asking: Callable[[], AbstractContextManager[redis.Redis]]
) -> list[str]:
    """Have a server write anew those of its files that it keeps, and wait for it.

    server: its name in sentences. asking: opens a client of it, whose errors are of our own kinds.

    Returns sentences where that is not seen through, as where the user may not ask for it, or where replicas keep files, too. Raises
    OnlineUnavailable where the server does not answer.
    """
    left: list[str] = []
    try:
        with asking() as client:
            left.extend(_left(client, server))
    except OnlineUnavailable:
        raise
    except OnlineError as error:
        left.append(
            f"{server} may hold deleted rows in files of its own, and does not let us rewrite them ({error}): {_WORKS}"
        )
    return left


_WORKS = "have whoever runs it do BGREWRITEAOF and BGSAVE"


def _left(client: redis.Redis, name: str) -> Iterator[str]:
    """Sentences for the files that may hold deleted rows still, once the server has been asked to write its own anew."""
    replicas = client.info("replication").get("connected_slaves", 0)
    if replicas:
        yield (
            f"{name} has {plural(replicas, 'replica')}, which may hold deleted rows in files of their own: {_WORKS} on each"
        )
    facts: Facts = client.info("persistence")
    if facts.get("aof_enabled") and not _done(client, "BGREWRITEAOF", "aof_last_bgrewrite_status"):
        yield f"{name} did not write its append-only file anew, which holds deleted rows: {_WORKS}"
        return  # it has taken as long as may be
    if _has_snapshot(client, facts) and not _done(client, "BGSAVE", "rdb_last_bgsave_status"):
        yield f"{name} did not write its snapshot anew, which holds deleted rows: {_WORKS}"


def _has_snapshot(client: redis.Redis, facts: Facts) -> bool:
    """Whether the server saves by itself, has saved since it runs, or began with what a snapshot held."""
    settings: Facts = client.config_get("save")  # type: ignore[assignment]
    counts = ("rdb_saves", "rdb_last_load_keys_loaded")
    return bool(settings.get("save")) or any(int(facts.get(count, 0)) > 0 for count in counts)


def _done(client: redis.Redis, command: str, status: str) -> bool:
    """Have the server do a command in its background, from now on, and wait; whether it has done it well."""
    until = time.monotonic() + _WAIT_S
    if not _is_idle_by(client, until):
        return False
    client.execute_command(command)  # type: ignore[no-untyped-call]
    return _is_idle_by(client, until) and client.info("persistence").get(status) == "ok"


def _is_idle_by(client: redis.Redis, until: float) -> bool:
    """Wait for the end of all that the server writes in its background; False where it goes on."""
    turn = 0
    while _is_writing(client.info("persistence")):
        if time.monotonic() > until:
            return False
        time.sleep(_PAUSES_S[min(turn, len(_PAUSES_S) - 1)])
        turn += 1
    return True


def _is_writing(facts: Facts) -> bool:
    states = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")
    return any(facts.get(state) for state in states)
