"""A full push: every row of a version, by this process alone or by tasks of several, all behind one fence.

The process that pushes begins, and it alone finishes: until then the books name the push as pending. A task writes the rows of a share
of the entities, each behind the fence of its push, so that one that is late writes nothing once a newer push has begun. The
same task may run twice: it writes the same rows. Shares follow from the version and the instant alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from mlforge.core.failpoints import reach
from mlforge.core.logs import get_logger
from mlforge.core.manifest import Manifest
from mlforge.core.values import Version
from mlforge.engines import Engine, evaluation
from mlforge.engines.events import events_of
from mlforge.engines.tasks import Sharing, Task, releases
from mlforge.engines.views import AsOfView
from mlforge.errors import StalePush, StoreError, TaskRefused
from mlforge.frames.encoding import key_hashes
from mlforge.online.base import OnlineStore
from mlforge.online.batches import EntitySubset, Share, cut, hash_sample
from mlforge.online.books import Target
from mlforge.online.chunks import digests_of
from mlforge.store import Store

PARTS = 8
"""How many of the parts into which entities are cut a task writes: about two million events."""

log = get_logger("mlforge.push")


@dataclass(frozen=True)
class PushTask(Task):
    """A share of the rows of a full push.

    version, generation, as_of, content, owner: the push's target.
    first, end: the parts of the entities, from `first` until before `end`, of so many `parts`. hashes: the `hash_sample` by which
    entities are in them.
    """

    kind = "push"

    version: str
    generation: int
    as_of: int | None
    content: str
    owner: str
    first: int
    end: int
    parts: int
    hashes: str

    @property
    def target(self) -> Target:
        """The target of the push, which is its fence."""
        return Target(self.version, self.generation, self.as_of, self.content, self.owner)

    def result(self, document: Mapping[str, Any]) -> PushedShare:
        """The number of rows."""
        return PushedShare.from_json(document)


@dataclass(frozen=True)
class PushedShare:
    """The result of a task: how many rows it wrote."""

    rows: int

    def to_json(self) -> dict[str, Any]:
        """The result as a document."""
        return {"rows": self.rows}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; raises KeyError or TypeError for anything else."""
        return cls(document["rows"])


@dataclass(frozen=True)
class FullPush:
    """All rows of a version as of an instant, on their way to an online store.

    sharing: who else may write some; None for nobody.
    """

    online: OnlineStore
    store: Store
    engine: Engine
    manifest: Manifest
    target: Target
    now: AsOfView
    sharing: Sharing | None = None

    def put(self, unwritten: set[bytes]) -> int:
        """Write every row, and return how many there are; digests of rows that were written leave `unwritten`."""
        parts = EntitySubset().parts(self.now)
        if self.sharing is None or not self._is_large(self.sharing):
            return self._put(None, unwritten)
        tasks = [*self._tasks(self.sharing, parts)]
        log.info("push shared", feature=self.manifest.name, tasks=len(tasks))
        results = self.sharing.results(tasks, self.run, _unheard)
        written: int = sum([result.rows for result in results])
        if unwritten:
            keys = self.manifest.spec.keys
            alive = evaluation.active_entities(self.now.events, self.now.as_of)
            hashes = key_hashes(alive, keys)
            unwritten.difference_update(digests_of(hashes, self.online.digest_bytes))
        return written

    def run(self, task: PushTask) -> PushedShare:
        """Write the rows of a task's share."""
        rows = self._put(Share(task.first, task.end, task.parts))
        reach("task.put")
        return PushedShare(rows)

    def _put(self, share: Share | None, unwritten: set[bytes] | None = None) -> int:
        name, keys = self.manifest.name, self.manifest.spec.keys
        return sum(
            self.online.put(name, self.target, batch.rows, keys, unwritten)
            for batch in cut(self.engine, self.now, share=share)
        )

    def _is_large(self, sharing: Sharing) -> bool:
        events = self.now.events.within(self.now.seen).partials
        return sum([partial.rows for partial in events]) > sharing.above

    def _tasks(self, sharing: Sharing, parts: int) -> Iterator[PushTask]:
        target = self.target
        for first in range(0, parts, PARTS):
            yield PushTask(
                feature=self.manifest.name,
                definitions=sharing.definitions,
                engine=self.engine.name,
                releases=releases(self.engine),
                version=target.version,
                generation=target.generation,
                as_of=target.as_of,
                content=target.content,
                owner=target.store,
                first=first,
                end=min(first + PARTS, parts),
                parts=parts,
                hashes=hash_sample(),
            )


def run_push_task(
    task: PushTask, store: Store, online: OnlineStore | None, engine: Engine
) -> PushedShare:
    """Write the rows of a task's share.

    Raises TaskRefused where this process has no online store, or deals entities otherwise, StalePush where a newer push has begun or the version is not
    that of the task any more, and else as a push does.
    """
    if online is None:
        raise TaskRefused(
            f"{task.feature}: the task is of a push, and this process has no online store; give all machines the same"
        )
    if task.hashes != hash_sample():
        raise TaskRefused(
            f"{task.feature}: this machine's processor deals entities into other parts than that of the process which pushes, so that some would "
            "be nobody's; have machines of one kind share a push"
        )
    try:
        manifest = store.manifest(task.feature, Version.parse(task.version))
    except StoreError as error:
        raise StalePush(
            f"{task.feature}: the version of a push by tasks is gone ({error})"
        ) from error
    if manifest.rows_hash != task.content:
        raise StalePush(f"{task.feature}: {task.version} was made anew since the push began")
    now = AsOfView(events_of(store, manifest), task.as_of)
    return FullPush(online, store, engine, manifest, task.target, now).run(task)


def _unheard(why: str) -> None:
    """Nobody waits for warnings of a push; the log has them."""
