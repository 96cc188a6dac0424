"""Kinds of files in `_tiles` that a version's definition may need: all others are of definitions from before."""

from __future__ import annotations

from mlforge.core.manifest import Manifest
from mlforge.engines.tiles import build, totals
from mlforge.engines.tiles.cache import kind_of
from mlforge.engines.tiles.sets import SetCache
from mlforge.store import Store
from mlforge.store.entity_index import LEVELS, EntityIndexes, may_have
from mlforge.store.scan import event_scan


def kinds_of(store: Store, manifest: Manifest) -> frozenset[str]:
    """The kinds of tiles, sets, totals and indexes of entities that a version may have."""
    spec, schema = manifest.spec, manifest.events
    kinds = [
        kind_of(spec, schema),
        SetCache(None, spec, schema).kind,
        totals.kind_of(event_scan(store, manifest, ())),
    ]
    by_entity = (m for m in spec.columns if m.window.is_endless)
    if may_have(spec) and any(m.aggregation not in build.PARTS_OF for m in by_entity):
        kinds += map(EntityIndexes(store, spec, schema).kind, range(LEVELS))
    return frozenset(filter(None, kinds))
