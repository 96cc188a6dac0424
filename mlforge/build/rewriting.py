"""A version that follows from the served one alone, without a look at sources: other partials in place of some of its own."""

from __future__ import annotations

from dataclasses import replace

from mlforge.build.deciding import events_diff
from mlforge.build.policy import mode_of
from mlforge.build.result import Options
from mlforge.build.table import TableWriter
from mlforge.core import clock
from mlforge.core.manifest import ROLLED_BACK, ChangeSummary, Manifest
from mlforge.core.release import RELEASE
from mlforge.core.text import plural
from mlforge.engines import Engine
from mlforge.engines.evaluation import frontier
from mlforge.engines.events import cache_tiles, events_of
from mlforge.engines.versions_diff import VersionsDiff
from mlforge.store import Snapshot, Store


def publish_rewritten(
    store: Store,
    snapshot: Snapshot,
    rewritten: Manifest,
    reason: str,
    engine: Engine,
) -> VersionsDiff:
    """Publish a PATCH above the highest version; what holds the feature goes on to hold it.

    rewritten: the served version with other partials. Raises IntegrityError where stored events are damaged.
    """
    latest, options = snapshot.latest, Options()
    assert latest is not None
    candidate = replace(
        rewritten,
        engine=engine.name,
        parent=latest.version,
        mlforge_version=RELEASE,
    )
    diff = events_diff(store, latest, candidate, afresh=False)
    assert diff is not None
    mode, _ = mode_of(latest, candidate, diff, options)
    cache_tiles(store, candidate, None if mode == "full" else diff)
    with store.transaction(snapshot) as tx:
        events = events_of(store, candidate)
        table = TableWriter(engine, events, tx, options.layout).write(mode, latest.parts, diff)
        now = clock.now()
        candidate = replace(candidate, parts=table.parts, frontier=frontier(candidate, events, now))
        rows = plural(diff.rows, "row")
        highest = snapshot.highest
        assert highest is not None
        after = {} if latest.version == highest else {ROLLED_BACK: str(highest)}
        summary = ChangeSummary("patch", reason, (rows,), {"rows_changed": diff.rows, **after})
        manifest = candidate.published(highest.bumped("patch"), summary, now)
        tx.commit(manifest)
    return VersionsDiff(latest, manifest, diff)
