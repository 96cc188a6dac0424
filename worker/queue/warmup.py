"""Warm-up: the cost that the first job in a process pays and no later one, paid ahead without changing anything."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from polars.exceptions import PanicException

from mlforge.core.logs import get_logger
from mlforge.core.manifest import Manifest
from mlforge.engines import POINT, engine_named, evaluation
from mlforge.engines.events import events_of
from mlforge.errors import MlforgeError
from mlforge.frames.digest import digest
from mlforge.frames.encoding import json_rows, key_hashes
from mlforge.ingest import unchanged
from mlforge.online.prefetch import VALUE_BYTES, read_ahead
from mlforge.sources import parquet_reader
from mlforge.store import Pointer
from worker.project import Project

CALM_S = 0.2
"""How long to wait at first: other jobs of the same drop may still be at work."""
KEEP_UP_S = 0.5
"""How often to look whether there are newer versions, at the most; less often while there are none."""
LOOKING_SHARE = 0.002
"""The share of a processor that looking may take while there are none: each worker at rest takes as much."""
CALM_TIMES = 4
"""How many times longer the pauses between looks get, at the most, while they find nothing new."""
FILE_BYTES = 2_000
"""Bytes that a source file takes in a manifest and among the states of files, in memory."""
_MANIFESTS_SHARE = 2
"""Manifests take at most one in so many bytes of the memory for what is resident; events take what is left."""
_EVENTS = 3
_SMALL_BYTES = 1_000_000

log = get_logger(__name__)


def warm_up(opened: Callable[[], Project], greet: Callable[[], object]) -> Iterator[float]:
    """Connect, read a job's first inputs, evaluate a few values; then keep up with new versions.

    A generator of endless steps; it yields the seconds that its next step can wait. `greet` is
    called first. A fault ends the warm-up, quietly.
    """
    try:
        yield CALM_S
        greet()
        at_work = opened()
        yield 0
        at_work.work_queue.read(list(at_work.definitions.features)[:1])
        yield 0
        at_work.online.ping()
        yield 0
        followed = Followed(at_work)
        tried = False
        for name in at_work.definitions.features:
            if not followed.has_room:
                break
            followed.follow(name)
            yield 0
        for name in followed.names:
            latest = followed.look(name)
            yield 0
            if latest is not None and not tried:
                _read(at_work, latest)
                yield 0
                _evaluate(at_work, latest)
                yield 0
                tried = True
        times = 1
        while True:
            yield times * max(KEEP_UP_S, followed.looked_s / LOOKING_SHARE)
            followed.looked_s, is_calm = 0.0, True
            for name in followed.names:
                is_calm = followed.look(name) is None and is_calm
                yield 0
            times = min(2 * times, CALM_TIMES) if is_calm else 1
    except (Exception, PanicException) as fault:  # noqa: BLE001 - the job will meet it again, and tell
        log.debug("not warmed up", error=str(fault))


@dataclass(frozen=True, slots=True)
class _Known:
    """The version that was served at the last look, and the bytes that its manifest and its events take in memory.

    event_bytes: None where they were not looked at yet.
    """

    served: Pointer | None
    manifest_bytes: int = 0
    event_bytes: int | None = None


class Followed:
    """Features whose served versions are kept up with, as far as `resident_memory` reaches.

    looked_s: how long looks have taken that found nothing new, since it was last set.
    """

    def __init__(self, at_work: Project) -> None:
        self._store = at_work.definitions.store
        self._memory = at_work.definitions.settings.resident_memory
        self._known: dict[str, _Known] = {}
        self.looked_s = 0.0

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [*self._known]

    @property
    def has_room(self) -> bool:
        """Whether another feature can be followed: the first always is."""
        return not self._known or self._manifest_bytes < self._memory // _MANIFESTS_SHARE

    def follow(self, name: str) -> None:
        """Follow another feature: read its manifest now, and its events at the first look, once it is known what all manifests take."""
        with self._alone(name):
            self._manifest(name, self._store.pointer(name))

    def look(self, name: str) -> Manifest | None:
        """Fill the store's caches for a feature, if its served version changed since the last look; that version."""
        began, before, latest = time.perf_counter(), self._known[name], None
        with self._alone(name):
            served = self._store.pointer(name)
            if before.event_bytes is None or before.served != served:
                latest = self._take(name, served)
            else:
                self.looked_s += time.perf_counter() - began
        return latest

    def _take(self, name: str, served: Pointer | None) -> Manifest | None:
        latest = self._manifest(name, served)
        known = self._known[name]
        room = self._memory - self._manifest_bytes - self._event_bytes
        values = read_ahead(self._store, latest, max(0, room) // VALUE_BYTES) if latest else 0
        self._known[name] = replace(known, event_bytes=values * VALUE_BYTES)
        return latest

    def _manifest(self, name: str, served: Pointer | None) -> Manifest | None:
        """Have the store read the manifest of a feature's served version and what lies beside it."""
        self._known[name] = _Known(served)
        stored = self._store.partials(name)
        latest = self._store.latest(name)
        if latest is None:
            return None
        self._store.missing_partials(name, latest.partials, stored)
        if latest.rowwise:
            unchanged.of_version(latest, self._store.file_states(name))
        self._known[name] = _Known(served, len(latest.sources) * FILE_BYTES)
        return latest

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """A feature that cannot be read is left until its version changes; others are followed."""
        try:
            yield
        except (Exception, PanicException) as fault:  # noqa: BLE001 - its job will meet it, and tell
            log.debug("not followed", feature=name, error=str(fault))
            self._known[name] = replace(self._known.get(name, _Known(None)), event_bytes=0)

    @property
    def _manifest_bytes(self) -> int:
        return sum(known.manifest_bytes for known in self._known.values())

    @property
    def _event_bytes(self) -> int:
        return sum(known.event_bytes or 0 for known in self._known.values())


def _read(at_work: Project, manifest: Manifest) -> None:
    """The last of the files, if it is small: as a job does, but for the feature's function."""
    if not manifest.sources or manifest.sources[-1].size > _SMALL_BYTES:
        return
    with suppress(MlforgeError, OSError):  # it may have gone
        file = at_work.definitions.source(manifest.name).file(manifest.sources[-1].path)
        digest(parquet_reader.read(file).frame)


def _evaluate(at_work: Project, manifest: Manifest) -> None:
    """Evaluate a few rows of the newest partial on a job's code path."""
    spec = manifest.spec
    newest = max(manifest.partials, key=lambda p: p.times.end if p.times else 0, default=None)
    if newest is None:
        return
    events = events_of(at_work.definitions.store, manifest, [newest])
    some: Any = events.scan(spec.identity).head(_EVENTS).collect()
    points = some.select(spec.entity)
    if spec.timestamp is not None:
        points = points.with_columns(some[spec.timestamp].alias(POINT))
    values = evaluation.values_at(engine_named(manifest.engine), events, points)
    key_hashes(points, spec.keys)
    json_rows(values, values.columns)
    values.write_parquet(io.BytesIO())
