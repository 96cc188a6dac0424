"""The presence of a watcher and the health of its parts: reported each second in one trip, read by `mlforge status`."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

from worker.supervision import LATE_S, Heartbeat, unfinished

_KEPT_S = 86_400

# ARGV: a report, which gets the server's time, and for how many seconds it is kept.
_REPORT = """
local t = redis.call('TIME')
local report = string.format('{"at": %d.%06d, ', t[1], t[2]) .. string.sub(ARGV[1], 2)
redis.call('SET', KEYS[1], report, 'EX', ARGV[2])
"""


@dataclass(frozen=True, slots=True)
class PartState:
    """A part of the watcher: how old its last good round was when the watcher last reported."""

    work: str
    age_s: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class WatcherState:
    """The last report of a watcher, `silent_s` ago by the server's clock."""

    host: str
    pid: int
    silent_s: float
    parts: tuple[PartState, ...]
    definitions: str = ""
    features: tuple[str, ...] = ()
    definitions_problem: str | None = None
    """The reason, in a sentence, for which an edit of the definitions is not in use; None where there is no such edit."""

    @property
    def is_at_work(self) -> bool:
        """Whether it has reported lately."""
        return self.silent_s <= LATE_S

    @property
    def where(self) -> str:
        """The process and its host."""
        return f"process {self.pid} on {self.host}"

    def problems(self) -> Iterator[str]:
        """Faults in words; none if all is well."""
        if not self.is_at_work:
            yield f"the watcher ({self.where}) has not reported for {self.silent_s:.0f} s: see its log, start it again"
            return
        if self.definitions_problem:
            yield self.definitions_problem
        for part in self.parts:
            wrong = unfinished(part.age_s + self.silent_s, part.error)
            if wrong:
                yield f"the watcher ({self.where}) does not {part.work}: {wrong}"


class Presence:
    """The report of a project's watcher; of several, that of the last one who reported.

    definitions: what people call them, with the file's name. features: theirs, sorted.
    """

    def __init__(
        self, redis: Redis, scope: str, definitions: str = "", features: Sequence[str] = ()
    ) -> None:
        self._redis, self._definitions, self._features = redis, definitions, list(features)
        self._key = f"mlforge-work:{scope}:watcher"
        self._report = redis.register_script(_REPORT)

    def report(
        self, heartbeats: Iterable[Heartbeat], definitions_problem: str | None = None
    ) -> None:
        """Report that this process watches, the health of its parts, and what keeps an edit of the definitions from being in use."""
        parts = [[each.work, round(each.age_s, 3), each.error] for each in heartbeats]
        report = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "parts": parts,
            "definitions": self._definitions,
            "features": self._features,
            "definitions_problem": definitions_problem,
        }
        self._report([self._key], [json.dumps(report), _KEPT_S])

    def read(self) -> WatcherState | None:
        """The last report; None if there is none, or if it is unreadable."""
        raw: Any = self._redis.get(self._key)
        if raw is None:
            return None
        try:
            report = json.loads(raw)
            parts = tuple(
                PartState(str(work), float(age_s), None if error is None else str(error))
                for work, age_s, error in report["parts"]
            )
            silent_s = max(0.0, self._now() - float(report["at"]))
            return WatcherState(
                str(report["host"]),
                int(report["pid"]),
                silent_s,
                parts,
                str(report.get("definitions", "")),
                tuple(map(str, report.get("features", ()))),
                None if (problem := report.get("definitions_problem")) is None else str(problem),
            )
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
            return None

    def other(self) -> WatcherState | None:
        """The report of a watcher of other definitions, with other features; None if there is none."""
        state = self.read()
        if state is None or not state.is_at_work or not state.definitions:
            return None
        is_own = (state.host, state.pid) == (socket.gethostname(), os.getpid())
        is_same = state.definitions == self._definitions or list(state.features) == self._features
        return None if is_own or is_same else state

    def leave(self) -> None:
        """Withdraw the report of this process."""
        self._redis.delete(self._key)

    def _now(self) -> float:
        seconds, micros = self._redis.time()
        return int(seconds) + int(micros) / 1e6
