"""Figures and entries that only tell: work goes on whatever lies at their keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from redis import Redis, ResponseError
from redis.client import Pipeline

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


@dataclass(frozen=True, slots=True)
class Addition:
    """An addition to a key. put: puts its commands into a pipeline."""

    key: str
    put: Callable[[Pipeline], object]


def add_each(redis: Redis, *additions: Addition) -> None:
    """Add to keys, in one trip; what lies at one and cannot be added to is removed, and that key begun anew.

    Raises RedisError for all else, such as a server that refuses writes.
    """
    for failed, error in _failed(redis, additions):
        log.error(
            "figures could not be added to: they are begun anew", key=failed.key, error=str(error)
        )
        redis.delete(failed.key)
        for _, again in _failed(redis, [failed]):
            raise again


def _failed(redis: Redis, additions: Sequence[Addition]) -> list[tuple[Addition, Exception]]:
    """The additions to what lies there and cannot be added to, once all others are done; raises any other error."""
    pipeline, ends = redis.pipeline(transaction=False), []
    for addition in additions:
        addition.put(pipeline)
        ends.append(len(pipeline))
    answers: Any = pipeline.execute(raise_on_error=False)
    failed = []
    for addition, (start, end) in zip(additions, pairwise([0, *ends]), strict=True):
        errors = [answer for answer in answers[start:end] if isinstance(answer, Exception)]
        for error in errors:
            if not (isinstance(error, ResponseError) and _is_foreign(error)):
                raise error
        if errors:
            failed.append((addition, errors[0]))
    return failed


def _is_foreign(error: ResponseError) -> bool:
    return any(words in str(error) for words in _FOREIGN)
