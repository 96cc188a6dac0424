"""Definitions with the places of a profile."""

from __future__ import annotations

from mlforge.definitions.profiles import OnlinePlace, Profile
from mlforge.definitions.registry import Definitions
from mlforge.errors import DefinitionError
from mlforge.online import OnlineStore
from mlforge.online.opening import online_store_at
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


def _online(before: OnlineStore | None, place: OnlinePlace, where: str) -> OnlineStore:
    """The online store at a place, with the settings of one of its kind before it where the place has none."""
    settings = {"ttl": place.ttl, "prefix": place.prefix, "layout": place.layout}
    try:
        return online_store_at(place.url, before, settings)
    except DefinitionError as error:
        raise DefinitionError(f"{where}: {error}") from None
