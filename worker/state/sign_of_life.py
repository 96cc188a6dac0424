"""The sign of life of a host's workers, for probes: to ask for it needs no definitions, and little time."""

from __future__ import annotations

from typing import Any

from redis import Redis
from redis.client import Pipeline

KEPT_S = 60
"""How long a sign lasts; a worker gives one every few seconds, also while a job is at work."""


def give_sign(commands: Redis | Pipeline, host: str, worker: str) -> None:
    """Say that a worker of this host is alive."""
    commands.set(_key(host), worker, ex=KEPT_S)


def read_sign(redis: Redis, host: str) -> str | None:
    """The worker of the host that was the last to say so within `KEPT_S` seconds; None if none did."""
    worker: Any = redis.get(_key(host))
    return None if worker is None else worker.decode(errors="replace")


def _key(host: str) -> str:
    return f"mlforge-alive:{host}"
