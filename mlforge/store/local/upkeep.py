"""The upkeep of a feature's partials: small ones are packed together, unwanted ones deleted. Call what deletes with the lock held."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import polars as pl

from mlforge.core.failpoints import reach
from mlforge.core.manifest import Partial
from mlforge.core.schema import Schema
from mlforge.errors import IntegrityError
from mlforge.store.file_tasks import PartialWrite
from mlforge.store.local import io, packs
from mlforge.store.local.feature_folder import FeatureFolder
from mlforge.store.local.inventory import Inventory
from mlforge.store.local.live_packs import Packed
from mlforge.store.local.packs import Pack, Run
from mlforge.store.local.partials import PartialStore
from mlforge.store.local.sealed_file import is_sealed


def tidy(
    feature: FeatureFolder,
    partials: Sequence[Partial],
    sorted_by: str | None,
    lock: Callable[[], AbstractContextManager[None]],
) -> None:
    """Sweep and compact, with the tiles of files that go, under a lock that is taken only where something is to be done."""
    store = feature.partial_store
    if not is_in_order(store, partials):
        with lock():
            sweep(store)
            compact(store, partials, sorted_by)
            feature.tiles.sweep()


def is_in_order(store: PartialStore, partials: Sequence[Partial]) -> bool:
    """Whether there is nothing to compact and nothing to sweep now."""
    inventory = store.look()
    return not (
        _doubled(store, inventory)
        or _small_groups(store, inventory, partials)
        or store.live.expired(store.packing.grace_s)
    )


def sweep(store: PartialStore) -> None:
    """Delete files that packs replaced longer ago than the grace period."""
    for path in _doubled(store, store.look()):
        with io.storage_errors(path):
            path.unlink(missing_ok=True)
        reach("pack.swept")
    store.live.sweep(store.packing.grace_s)


def compact(store: PartialStore, partials: Sequence[Partial], sorted_by: str | None) -> None:
    """Merge the loose ones of these partials into packs, together with small packs."""
    inventory, most = store.look(), store.packing.pack_rows
    for schema, loose in _small_groups(store, inventory, partials).items():
        gathered = packs.runs(loose, most)
        merged = [*_loaded(store, gathered[-1])]
        for pack in _to_merge(schema, gathered[-1], inventory.packed, most):
            merged += _owned(pack, inventory.packed)
        whole = (Run([*_loaded(store, run)], sorted_by) for run in gathered[:-1])
        store.live.write(run for run in (*whole, Run(merged, sorted_by)) if run.writes)


def remove(
    store: PartialStore, hashes: Iterable[str], sorted_by: str | None, above: float
) -> list[str]:
    """Delete partials; returns the hashes of the deleted ones.

    above: a pack is rewritten without them if more than this share (0 to 1) of its partials is unwanted.
    """
    inventory, unwanted = store.look(), {hash_: store.alone(hash_) for hash_ in hashes}
    gone = {hash_ for hash_ in unwanted if hash_ in inventory.loose}
    for hash_ in gone:
        path = unwanted[hash_]
        with io.storage_errors(path):
            path.unlink(missing_ok=True)
    anew, dropped = [], []
    for pack in inventory.packed.packs:
        live_hashes = inventory.packed.live_hashes(pack)
        dead = unwanted.keys() & live_hashes
        if dead and len(dead) < len(live_hashes):
            if len(dead) <= above * len(live_hashes) or not is_sealed(pack.path):
                gone -= dead
                continue
            survivors = [w for w in _owned(pack, inventory.packed) if w.partial.hash not in dead]
            anew.append(Run(survivors, sorted_by))
        if dead:
            dropped.append(pack.path.name)
            gone |= dead
    store.live.write(anew, dropped)
    return sorted(gone)


def scrub(store: PartialStore, hashes: Collection[str], sorted_by: str | None) -> None:
    """Delete partials from every file, whether it is read or was left to readers, and from memory."""
    unwanted, inventory = set(hashes), store.look()
    paths = [*map(store.alone, unwanted)]
    store.let_go(paths)
    for path in paths:
        with io.storage_errors(path):
            path.unlink(missing_ok=True)
    anew, dropped = [], []
    for pack in inventory.packed.packs:
        if unwanted.isdisjoint(pack.hashes):
            continue
        if not is_sealed(pack.path):
            raise IntegrityError(
                f"{pack.path} is damaged, and what is left of it cannot be kept; 'mlforge build --full' mends it"
            )
        owned = _owned(pack, inventory.packed)
        if survivors := [write for write in owned if write.partial.hash not in unwanted]:
            anew.append(Run(survivors, sorted_by))
        dropped.append(pack.path.name)
    store.live.write(anew, dropped)
    store.live.sweep(grace_s=0)
    reach("partials.scrubbed")


def _doubled(store: PartialStore, inventory: Inventory) -> list[Path]:
    """Loose files of partials that have been in a live pack for long enough."""
    settled = time.time() - store.packing.grace_s
    old = [pack for pack in inventory.packed.packs if pack.written_at <= settled]
    loose = inventory.loose.all if old else {}
    if inventory.packed.places.keys().isdisjoint(loose):
        return []
    held = {hash_ for pack in old for hash_ in pack.hashes}
    return [store.alone(hash_) for hash_ in loose if hash_ in held]


def _small_groups(
    store: PartialStore, inventory: Inventory, partials: Sequence[Partial]
) -> dict[Schema, list[Partial]]:
    """Small partials outside packs, by schema, where they are enough for a pack."""
    others = store.plans.of(partials, inventory.packed).others
    groups: dict[Schema, dict[str, Partial]] = defaultdict(dict)
    for partial in others if len(others) >= store.packing.at_least else ():
        if partial.rows <= store.packing.small_rows and inventory.lone(partial):
            groups[partial.schema][partial.hash] = partial
    return {
        schema: list(group.values())
        for schema, group in groups.items()
        if len(group) >= store.packing.at_least
    }


def _to_merge(
    schema: Schema, loose: Sequence[Partial], packed: Packed, most_rows: int
) -> list[Pack]:
    """Packs to rewrite together with loose partials; damaged packs are left out, for checks to report."""
    small = {pack.path.name: pack for pack in packed.packs if pack.schema == schema}
    sizes = [(pack.rows, name) for name, pack in small.items()]
    rows = sum(partial.rows for partial in loose)
    names = packs.choose_for_merge(rows, sizes, most_rows)
    return [small[name] for name in names if is_sealed(small[name].path)]


def _loaded(store: PartialStore, partials: Iterable[Partial]) -> Iterator[PartialWrite]:
    """Loose partials with their events; a damaged one is left where it is, for `faults` to find."""
    for partial in partials:
        path = store.alone(partial.hash)
        if is_sealed(path):
            yield PartialWrite(partial, pl.read_parquet(path, glob=False))


def _owned(pack: Pack, packed: Packed) -> list[PartialWrite]:
    """The partials that are read from a pack, with their events."""
    frames = pack.frames()
    return [PartialWrite(pack.partials[hash_], frames[hash_]) for hash_ in packed.live_hashes(pack)]
