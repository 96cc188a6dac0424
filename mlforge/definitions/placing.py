"""Definitions with the places of a profile."""

from __future__ import annotations

from mlforge.definitions.profiles import OnlinePlace, Profile
from mlforge.definitions.registry import Definitions
from mlforge.errors import DefinitionError
from mlforge.online import OnlineStore, RedisStore
from mlforge.store.opening import store_at


def placed(definitions: Definitions, profile: Profile) -> Definitions:
    """The definitions over the profile's stores and root; what it does not give stays as it is.

    Raises DefinitionError for a value that names no store; an online store's URL is not in its message.
    """
    where = f"{profile.file}: profiles.{profile.name}: online_store"
    place = profile.online_store
    return definitions.placed(
        None if profile.store is None else store_at(profile.store, definitions.store),
        None if place is None else _online(definitions.online_store, place, where),
        profile.root,
    )


def _online(before: OnlineStore | None, place: OnlinePlace, where: str) -> RedisStore:
    """The Redis store at a place, with the TTL and prefix of the one before it where the place has none."""
    ttl, prefix = place.ttl, place.prefix
    if isinstance(before, RedisStore):
        ttl = before.ttl if ttl is None else ttl
        prefix = before.prefix if prefix is None else prefix
    named = {} if prefix is None else {"prefix": prefix}
    try:
        return RedisStore.from_url(place.url, ttl, **named)
    except DefinitionError as error:
        raise DefinitionError(f"{where}: {error}") from None
