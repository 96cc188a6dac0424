"""The event log for people to follow: a short stream of entries in Redis, and freshness figures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.client import Pipeline

from mlforge.core.forgotten import Entity
from worker.state.figures import Addition, add_each

KEPT = 1_000
UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Entry:
    """A thing that happened: `kind` is refreshed, failed, held, definitions, ..."""

    id: str
    kind: str
    feature: str | None
    details: Mapping[str, Any]

    @property
    def at(self) -> int:
        """When it was written, UTC microseconds by the server's clock."""
        return int(self.id.partition("-")[0]) * 1000


@dataclass(frozen=True, slots=True)
class Distribution:
    """How long files took to become readable: milliseconds, over the last `count` drops."""

    count: int
    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, values: list[float]) -> Distribution | None:
        """The nearest-rank percentiles; None without values."""
        if not values:
            return None
        ranked = sorted(values)

        def at(share: float) -> float:
            return ranked[math.ceil(share * len(ranked)) - 1]

        return cls(len(ranked), at(0.50), at(0.95), at(0.99))


class EventLog:
    """The entries of one project, the last thousand of them."""

    def __init__(self, redis: Redis, scope: str) -> None:
        self._redis = redis
        self._stream = f"mlforge-work:{scope}:journal"
        self._freshness = f"mlforge-work:{scope}:freshness"

    def write(self, kind: str, feature: str | None = None, **details: Any) -> None:
        """Add an entry; the oldest goes."""
        add_each(self._redis, self.entry(kind, feature, **details))

    def entry(self, kind: str, feature: str | None = None, **details: Any) -> Addition:
        """An entry, to be added."""
        fields = {"kind": kind, "feature": feature or "", "details": json.dumps(details)}
        return Addition(
            self._stream,
            lambda pipeline: pipeline.xadd(self._stream, fields, maxlen=KEPT, approximate=True),  # type: ignore[arg-type]
        )

    def drop_time(self, feature: str, milliseconds: float) -> Addition:
        """The time from a file's close to its rows being readable, to be added."""
        key = f"{self._freshness}:{feature}"

        def put(pipeline: Pipeline) -> None:
            pipeline.lpush(key, f"{milliseconds:.3f}")
            pipeline.ltrim(key, 0, KEPT - 1)

        return Addition(key, put)

    def freshness(self, feature: str) -> Distribution | None:
        """The distribution of the last thousand drops of a feature."""
        values: Any = self._redis.lrange(f"{self._freshness}:{feature}", 0, -1)
        return Distribution.of([ms for ms in map(_number, values) if ms is not None])

    def last_id(self) -> str:
        """The id of the last entry: `read` after it returns only later entries."""
        last: Any = self._redis.xrevrange(self._stream, count=1)
        return _text(last[0][0]) if last else "0"

    def read(self, after: str, wait_ms: int | None = None) -> list[Entry]:
        """Entries after that id; waits for one for so long, None asks and does not wait."""
        reply: Any = self._redis.xread({self._stream: after}, block=wait_ms)
        return list(_entries(reply))

    def recent(self, count: int | None = None) -> list[Entry]:
        """The entries that are still held, the last first; the last `count` of them."""
        answer: Any = self._redis.xrevrange(self._stream, count=count)
        return list(_entries({"": answer}))

    def delete_naming(self, entities: Sequence[Entity]) -> int:
        """Delete the entries whose details name the value of an entity; returns how many those were.

        The stream is written anew with the ids of the others: an entry that a server deletes leaves its bytes in the stream.
        """

        def rewrite(pipeline: Any) -> int:
            answer: Any = pipeline.xrange(self._stream)
            entries = [(_text(id), raw) for id, raw in answer]
            named = {e.id for e in _entries({"": answer}) if _names(e.details, entities)}
            pipeline.multi()
            if named:
                pipeline.delete(self._stream)
                for id, raw in entries:
                    if id not in named:
                        pipeline.xadd(self._stream, raw, id=id)
            return len(named)

        deleted: Any = self._redis.transaction(rewrite, self._stream, value_from_callable=True)  # type: ignore[arg-type]
        return int(deleted)

    def forget(self, feature: str) -> None:
        """Remove the figures of a feature that is gone."""
        self._redis.delete(f"{self._freshness}:{feature}")


def _entries(answer: Any) -> Iterator[Entry]:
    streams = answer.items() if isinstance(answer, dict) else answer or []
    for _, entries in streams:
        for id, raw in entries[0] if entries and isinstance(entries[0], list) else entries:
            yield _entry(_text(id), {_text(key): _text(value) for key, value in raw.items()})


def _entry(id: str, fields: Mapping[str, str]) -> Entry:
    """The entry of these fields; an entry of the kind `unreadable` if no process of ours wrote them."""
    try:
        details = json.loads(fields["details"])
        if isinstance(details, dict):
            return Entry(id, fields["kind"], fields["feature"] or None, details)
    except (KeyError, ValueError, RecursionError):
        pass
    return Entry(id, UNREADABLE, None, {"fields": sorted(fields)[:10]})


def _names(details: Any, entities: Sequence[Entity]) -> bool:
    """Whether a text anywhere in JSON names an entity's value."""
    if isinstance(details, dict):
        return any(_names(value, entities) for value in details.values())
    if isinstance(details, list):
        return any(_names(value, entities) for value in details)
    text = details if isinstance(details, str) else ""
    return any(entity.redacted(text) != text for entity in entities)


def _number(value: bytes | str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
