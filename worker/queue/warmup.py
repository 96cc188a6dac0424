"""Warm-up: the cost that the first job in a process pays and no later one, paid ahead without changing anything."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import structlog
from polars.exceptions import PanicException

from mlforge.core.manifest import Manifest
from mlforge.engines import POINT, engine_named, evaluation
from mlforge.engines.events import events_of
from mlforge.errors import MlforgeError
from mlforge.frames.digest import digest
from mlforge.frames.encoding import json_rows, key_hashes
from mlforge.ingest import unchanged
from mlforge.online.prefetch import VALUE_BYTES, read_ahead
from mlforge.sources import source
from mlforge.store import Pointer
from worker.project import Project

CALM_S = 0.2
"""How long to wait at first: other jobs of the same drop may still be at work."""
KEEP_UP_S = 0.5
"""How often to look whether there are newer versions."""
_REMEMBERED = 8  # manifests that a store keeps in mind
_EVENTS = 3
_SMALL_BYTES = 1_000_000

log = structlog.get_logger()


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
        known: dict[str, _Known] = {}
        tried = False
        for name in islice(at_work.definitions.features, _REMEMBERED):
            latest = _look(at_work, name, known)
            yield 0
            if latest is not None and not tried:
                _read(at_work, latest)
                yield 0
                _evaluate(at_work, latest)
                yield 0
                tried = True
        while True:
            yield KEEP_UP_S
            for name in known:
                _look(at_work, name, known)
                yield 0
    except (Exception, PanicException) as fault:  # noqa: BLE001 - the job will meet it again, and tell
        log.debug("not warmed up", error=str(fault))


@dataclass(frozen=True, slots=True)
class _Known:
    """The version that was served at the last look, and how many of its values are in memory."""

    served: Pointer | None
    values: int = 0


def _look(at_work: Project, name: str, known: dict[str, _Known]) -> Manifest | None:
    """Fill the store's caches for a feature, if its served version changed since the last look."""
    store = at_work.definitions.store
    now = _Known(store.pointer(name))
    before = known.get(name)
    if before is not None and before.served == now.served:
        return None
    known[name] = now
    store.partials(name)
    latest = store.latest(name)
    if latest is None:
        return None
    if latest.rowwise:
        unchanged.of_version(latest, store.file_states(name))
    room = at_work.definitions.settings.resident_memory // VALUE_BYTES
    room -= sum(each.values for each in known.values())
    known[name] = _Known(now.served, read_ahead(store, latest, room))
    return latest


def _read(at_work: Project, manifest: Manifest) -> None:
    """The last of the files, if it is small: as a job does, but for the feature's function."""
    if not manifest.sources or manifest.sources[-1].size > _SMALL_BYTES:
        return
    with suppress(MlforgeError, OSError):  # it may have gone
        file = at_work.definitions.source(manifest.name).file(manifest.sources[-1].path)
        digest(source.read(file).frame)


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
