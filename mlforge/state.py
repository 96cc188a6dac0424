"""A version's events in a store, and how those of two versions differ."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from mlforge import partials
from mlforge.engines import Events
from mlforge.manifest import Manifest, Partial
from mlforge.partials import Changes
from mlforge.store import Store


def events_of(store: Store, manifest: Manifest, of: Sequence[Partial] | None = None) -> Events:
    """A manifest's events, or some of its partials."""
    chosen = manifest.partials if of is None else of
    return Events(manifest.spec, manifest.events, tuple(chosen), partial(store.lots, manifest.name))


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
