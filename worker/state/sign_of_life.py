"""The sign of life of a host's workers, for probes: to ask for it needs no definitions, and little time."""

from __future__ import annotations

from typing import Any

from redis import Redis
from redis.client import Pipeline


def give_sign(commands: Redis | Pipeline, host: str, worker: str, life_s: int) -> None:
    """Say that a worker of this host is alive. life_s: the seconds in which it says so again, or is none any more."""
    commands.set(_key(host), worker, ex=life_s)


def read_sign(redis: Redis, host: str) -> str | None:
    """The worker of the host that was the last to say so in its time; None if none did."""
    worker: Any = redis.get(_key(host))
    return None if worker is None else worker.decode(errors="replace")


def _key(host: str) -> str:
    return f"mlforge-alive:{host}"
