"""A full build that workers share: its tasks, who is at work on which, and how they ended, kept in Redis.

A task waits, is claimed, or has ended. A claim that is no longer renewed expires, and the task waits again. So does a task that
failed by no fault of its own, as on a full disk, for another worker: the one that failed takes no part any more. After some such
failures it waits for the process that builds alone. Results lie in the store; here is only that a task ended. All is gone by
itself a day after the last change.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from redis import Redis

from mlforge.core.logs import get_logger
from worker.supervision import survived

CLAIM_MS, RENEW_S = 10_000, 3.0
FAILURES = 3
"""After so many failures on workers a task is left to the process that builds."""
_KEPT_S = 86_400

log = get_logger(__name__)


class Claimed(NamedTuple):
    """A task that this process is to run: its id and its JSON."""

    id: str
    task: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How a task ended: where, and with which error, by its class's name and its text; None where it went well.

    text: of one that went well, its result as JSON.
    """

    worker: str
    error: str | None = None
    text: str = ""


class SharedBuild:
    """The state of one build of a project."""

    def __init__(self, redis: Redis, scope: str, id: str) -> None:
        self._redis, self.id = redis, id
        base = f"mlforge-work:{scope}:build:{id}"
        self._tasks, self._waiting, self._ended = (
            f"{base}:tasks",
            f"{base}:waiting",
            f"{base}:ended",
        )
        self._news, self._losses, self._refusals = (
            f"{base}:news",
            f"{base}:losses",
            f"{base}:refusals",
        )
        self._failures, self._left = f"{base}:failures", f"{base}:left"
        self._declined = f"{base}:declined"
        self._claim = f"{base}:claim:"
        self._take, self._lose = redis.register_script(_TAKE), redis.register_script(_LOSE)
        self._renew, self._return = redis.register_script(_RENEW), redis.register_script(_RETURN)

    @classmethod
    def of(cls, redis: Redis, scope: str, ids: Sequence[str]) -> SharedBuild:
        """The build of these tasks, the same however often it is begun."""
        return cls(redis, scope, hashlib.sha256("".join(ids).encode()).hexdigest()[:32])

    def offer(self, tasks: Mapping[str, str]) -> None:
        """Let tasks wait, by id, those that somebody is at work on apart; what an earlier offer noted is forgotten."""
        pipeline = self._redis.pipeline()
        pipeline.delete(*self._all)
        if tasks:
            documents: dict[Any, Any] = {**tasks}
            pipeline.hset(self._tasks, mapping=documents)
            pipeline.rpush(self._waiting, *tasks)
        self._expire(pipeline)
        pipeline.execute()

    def take(self, worker: str) -> Claimed | None:
        """Claim the first task that waits; None where none does."""
        return self._taken(self._waiting, worker)

    def take_left(self, builder: str) -> Claimed | None:
        """Claim a task that is left to the process that builds; None where there is none."""
        return self._taken(self._left, builder)

    def _taken(self, among: str, worker: str) -> Claimed | None:
        answer: Any = self._take([among, self._tasks], [self._claim, worker, CLAIM_MS])
        return None if answer is None else Claimed(answer[0].decode(), answer[1].decode())

    @contextmanager
    def renewed(
        self, task: str, worker: str, then: Callable[[], object] = lambda: None
    ) -> Iterator[None]:
        """Renew a claim in a thread for as long as the block runs, and call `then` each time."""
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(RENEW_S):
                with survived("renew the claim of a task", task=task):
                    self._renew([self._claim + task], [worker, CLAIM_MS])
                    then()

        thread = threading.Thread(target=renew, name="claim", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def end(self, task: str, ended: Ended) -> None:
        """Note how a task ended, and tell the process that waits for it."""
        pipeline = self._redis.pipeline()
        text = json.dumps([ended.worker, ended.error, ended.text])
        pipeline.hset(self._ended, task, text)
        pipeline.delete(self._claim + task)
        pipeline.rpush(self._news, task)
        self._expire(pipeline)
        pipeline.execute()

    def give_back(self, task: str, job: str, worker: str, why: str) -> bool:
        """Let a task wait again that the job has claimed and its worker must not run; as `refuse`.

        A claim that has expired meanwhile is left to whoever has the task now.
        """
        self._let_wait(task, job, "")
        return self.refuse(worker, why)

    def fail(self, task: str, job: str, worker: str, why: str) -> bool:
        """Let a task wait again that the job has claimed and failed at, whose worker takes no part any more; as `give_back`."""
        self._let_wait(task, job, str(FAILURES))
        return self.refuse(worker, why)

    def _let_wait(self, task: str, job: str, failures: str) -> None:
        keys = [self._claim + task, self._waiting, self._left, self._failures, self._news]
        self._return(keys, [job, task, failures])

    def has_refused(self, worker: str) -> bool:
        """Whether a worker takes no part."""
        return bool(self._redis.hexists(self._refusals, worker))

    def refuse(self, worker: str, why: str) -> bool:
        """Note that a worker takes no part, and why; returns whether that was not known."""
        pipeline = self._redis.pipeline()
        pipeline.hset(self._refusals, worker, why)
        self._expire(pipeline)
        is_new, *_ = pipeline.execute()
        return bool(is_new)

    def decline(self) -> None:
        """Note that a worker was asked which takes no part: the process that builds is to ask another in its place."""
        pipeline = self._redis.pipeline()
        pipeline.incr(self._declined)
        self._expire(pipeline)
        pipeline.execute()

    def take_declined(self) -> int:
        """How many that were asked have declined since the last call."""
        pipeline = self._redis.pipeline()
        pipeline.get(self._declined)
        pipeline.delete(self._declined)
        declined, _ = pipeline.execute()
        return int(declined or 0)

    def refusals(self) -> dict[str, str]:
        """Why workers take no part, by their names."""
        noted: Any = self._redis.hgetall(self._refusals)
        return {worker.decode(): why.decode() for worker, why in noted.items()}

    def lost(self) -> dict[str, int]:
        """Let tasks wait again whose claims have expired; how often each has been lost so far."""
        keys = [self._tasks, self._ended, self._waiting, self._losses, self._left]
        answer: Any = self._lose(keys, [self._claim])
        return {answer[n].decode(): answer[n + 1] for n in range(0, len(answer), 2)}

    def has_waiting(self) -> bool:
        """Whether some task waits."""
        length: Any = self._redis.llen(self._waiting)
        return bool(length)

    def ended(self) -> dict[str, Ended]:
        """The tasks that have ended."""
        noted: Any = self._redis.hgetall(self._ended)
        return {task.decode(): Ended(*json.loads(text)) for task, text in noted.items()}

    def is_known(self) -> bool:
        """Whether the server has the tasks: it may have come back without them, or somebody has closed the build."""
        return bool(self._redis.exists(self._tasks))

    def wait(self, seconds: float) -> None:
        """Wait until another task has ended, but no longer than so many seconds."""
        self._redis.blpop([self._news], seconds)

    def close(self) -> None:
        """Forget the build."""
        self._redis.delete(*self._all)

    @property
    def _all(self) -> tuple[str, ...]:
        state = self._tasks, self._waiting, self._ended, self._news, self._losses
        return *state, self._refusals, self._failures, self._left, self._declined

    def _expire(self, pipeline: Any) -> None:
        for key in self._all:
            pipeline.expire(key, _KEPT_S)


# KEYS: 1 what waits, 2 the tasks. A task that somebody is at work on, for a build that was lost and begun again, is passed over:
# it ends, or is lost and waits again.
_TAKE = """
while true do
  local task = redis.call('LPOP', KEYS[1])
  if not task then return false end
  local text = redis.call('HGET', KEYS[2], task)
  if text and redis.call('SET', ARGV[1] .. task, ARGV[2], 'PX', ARGV[3], 'NX') then
    return {task, text}
  end
end
"""
_RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
"""
# KEYS: 1 the claim, 2 what waits, 3 what waits for the process that builds, 4 how often each task failed, 5 the news. ARGV: 1 who
# claimed it, 2 the task, 3 after how many failures it is left to the process that builds; empty where it did not fail.
_RETURN = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return end
redis.call('DEL', KEYS[1])
local list = KEYS[2]
if ARGV[3] ~= '' then
  if redis.call('HINCRBY', KEYS[4], ARGV[2], 1) >= tonumber(ARGV[3]) then list = KEYS[3] end
  redis.call('RPUSH', KEYS[5], ARGV[2])
end
redis.call('LPUSH', list, ARGV[2])
"""
# KEYS: 1 the tasks, 2 those that ended, 3 what waits, 4 how often each was lost, 5 what waits for the process that builds.
_LOSE = """
local waits, lost = {}, {}
for _, list in ipairs({KEYS[3], KEYS[5]}) do
  for _, task in ipairs(redis.call('LRANGE', list, 0, -1)) do waits[task] = true end
end
for _, task in ipairs(redis.call('HKEYS', KEYS[1])) do
  if not waits[task] and redis.call('HEXISTS', KEYS[2], task) == 0
     and redis.call('EXISTS', ARGV[1] .. task) == 0 then
    redis.call('RPUSH', KEYS[3], task)
    lost[#lost + 1] = task
    lost[#lost + 1] = redis.call('HINCRBY', KEYS[4], task, 1)
  end
end
return lost
"""
