"""A version's events in a store, and how those of two versions differ."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from mlforge import partials, timemodel
from mlforge.engines import Events, at_rest
from mlforge.manifest import Manifest, Partial
from mlforge.partials import Changes
from mlforge.store import Store


def events_of(store: Store, manifest: Manifest, of: Sequence[Partial] | None = None) -> Events:
    """A manifest's events, or some of its partials."""
    chosen = manifest.partials if of is None else of
    name = manifest.name
    return Events(
        manifest.spec,
        manifest.events,
        tuple(chosen),
        partial(store.lots, name),
        partial(store.tiles, name),
    )


def lay_tiles(store: Store, manifest: Manifest, changes: Changes | None) -> None:
    """See that tiles are at rest of what the rows that these changes touch depend on; of all where it is None.

    Call with the lock held. Raises StoreError where they cannot be written.
    """
    spec, times = manifest.spec, None
    if spec.interval is None or (changes is not None and changes.times is None):
        return
    if changes is not None and changes.times is not None:
        touched = timemodel.rows_touched(changes.times, spec.windows, spec.interval)
        times = timemodel.events_seen(touched, spec.windows)
    at_rest.lay(store, spec, manifest.events, events_of(store, manifest).lots_within(times))


def changes_between(store: Store, before: Manifest, after: Manifest) -> Changes:
    """The events that differ between two versions of one schema and keys.

    A refresh asks and the push behind it asks again: the last answer is kept.
    Raises IntegrityError where stored events are missing or damaged.
    """
    went, came = partials.replaced(before.partials, after.partials)
    hashes = tuple(tuple(sorted((p.hash, p.digest) for p in some)) for some in (went, came))
    question = (hashes, after.spec.identity, tuple((c.name, c.dtype) for c in after.events))
    found = _answered.get(question)
    if found is None:
        with partials.intact(after.name):
            found = partials.compare(
                events_of(store, after, went).scan() if went else None,
                events_of(store, after, came).scan(),
                after.spec,
            )
        _answered.clear()
        _answered[question] = found
    return found


# Events are named by hashes of all that they follow from, so an answer is right for ever and in any store.
_answered: dict[object, Changes] = {}
