"""Figures and entries that only tell: work goes on whatever lies at their keys."""

from __future__ import annotations

from collections.abc import Callable

from redis import Redis, ResponseError

from mlforge.core.logs import get_logger

_FOREIGN = (
    "WRONGTYPE",
    "not an integer",
    "not a float",
    "not a valid float",
    "overflow",
    "NaN or Infinity",
    "the last possible ID",
)
"""Words of the server about a key that holds something which cannot be added to."""

log = get_logger(__name__)


def add_or_begin_anew(redis: Redis, key: str, add: Callable[[], object]) -> None:
    """Add to a key; what lies there and cannot be added to is removed, and the key begun anew.

    Raises RedisError as `add` does for all else, such as a server that refuses writes.
    """
    try:
        add()
    except ResponseError as error:
        if not any(words in str(error) for words in _FOREIGN):
            raise
        log.error("figures could not be added to: they are begun anew", key=key, error=str(error))
        redis.delete(key)
        add()
