"""What the first job in a process pays and no later one: paid ahead of it, without changing anything."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import structlog
from polars.exceptions import PanicException

from mlforge import evaluation
from mlforge.encoding import json_rows, key_hashes
from mlforge.engines import POINT, engine_named
from mlforge.manifest import Manifest
from mlforge.state import events_of
from worker.project import Project

_REMEMBERED = 8  # manifests that a store keeps in mind
_EVENTS = 3

log = structlog.get_logger()


def rehearse(opened: Callable[[], Project]) -> Iterator[None]:
    """Connect, read the manifests, evaluate a few values; a step after the other. A fault ends it, quietly."""
    try:
        at_work = opened()
        yield
        at_work.tickets.read(list(at_work.definitions.features)[:1])
        yield
        at_work.online.ping()
        yield
        store = at_work.definitions.store
        manifests = []
        for name in list(at_work.definitions.features)[:_REMEMBERED]:
            manifests += [manifest] if (manifest := store.latest(name)) else []
            yield
        if manifests:
            _evaluate(at_work, manifests[0])
    except (Exception, PanicException) as fault:  # noqa: BLE001 - the job will meet it again, and tell
        log.debug("not rehearsed", error=str(fault))


def _evaluate(at_work: Project, manifest: Manifest) -> None:
    """A few rows of the newest partial on the way that those of a job go."""
    spec = manifest.spec
    newest = max(manifest.partials, key=lambda p: p.times.end if p.times else 0, default=None)
    if newest is None:
        return
    events = events_of(at_work.definitions.store, manifest, [newest])
    some: Any = events.scan(spec.identity).head(_EVENTS).collect()
    points = some.select(spec.keys)
    if spec.timestamp is not None:
        points = points.with_columns(some[spec.timestamp].alias(POINT))
    values = evaluation.values_at(engine_named(manifest.engine), events, points)
    key_hashes(points, spec.keys)
    json_rows(values, values.columns)
    values.write_parquet(io.BytesIO())
