"""`mlforge rename`: a feature gets another name, in the store with its history, and online."""

from __future__ import annotations

from dataclasses import dataclass

from mlforge.core.values import check_name
from mlforge.definitions.keeping import keeper_elsewhere
from mlforge.definitions.registry import Definitions
from mlforge.engines import engine_for
from mlforge.errors import StoreError
from mlforge.online.push import owner_of, push
from mlforge.registry.graph import FEATURE, SERVICE, Node
from mlforge.registry.project import graph_of


@dataclass(frozen=True, slots=True)
class Renamed:
    """A feature under its new name.

    versions: that it has. rows: those written online under the new name; None where no online store is named. services: of the
    definitions, that name the feature by either name.
    """

    before: str
    after: str
    versions: tuple[str, ...]
    rows: int | None
    services: tuple[str, ...]


def check_renameable(definitions: Definitions, before: str, after: str) -> None:
    """Refuse a rename that would lose something, or that nothing could come of.

    Raises DefinitionError for a text that is no name, FeatureNotFound for a feature without a version, StoreError for one that
    is held or that other definitions of the store keep, and for a name that is taken.
    """
    store = definitions.store
    check_name(after, "feature")
    if before == after:
        raise StoreError(f"{before} has that name already")
    if store.renames().now(before) == after:
        return  # it was renamed, perhaps by a process that ended midway
    store.resolve(before)
    if (kept_by := keeper_elsewhere(definitions, before)) is not None:
        raise StoreError(
            f"{before} is kept by the definitions {kept_by!r}, which share this store; rename it from there, or take it over "
            f"first: 'mlforge adopt {before}'"
        )
    if store.versions(after):
        raise StoreError(
            f"{after} is taken: a feature of that name has versions; 'mlforge retire {after}' deletes it once no definition "
            "names it"
        )
    if (sentence := store.renames().sentence(after)) and store.renames().now(after) != before:
        raise StoreError(
            f"{after} is taken: {sentence}, and what was made of it then may still say {after}"
        )
    if before in store.forgotten().unfinished:
        raise StoreError(
            f"{before}: a forgetting has not ended, so it keeps its name until then: run 'mlforge build', or the same "
            "'mlforge forget' again"
        )
    if (hold := store.books(before).hold) is not None:
        raise StoreError(f"{before} is held, so it keeps its name until that has ended: {hold}")


def rename(definitions: Definitions, before: str, after: str) -> Renamed:
    """Give a feature another name, then write its rows online under it; rows under the old name stay there as they are.

    It may be repeated, also after a kill in its midst. Raises as `check_renameable` and `Store.rename`; OwnedElsewhere where
    another store has rows of the new name.
    """
    store, online = definitions.store, definitions.online_store
    check_renameable(definitions, before, after)
    store.rename(before, after)
    rows = None
    if online is not None:
        owner = owner_of(store, definitions.name, str(definitions.root))
        engine = engine_for(definitions.settings.engine, definitions.settings.memory_limit)
        rows = push(after, store, online, engine, owner).written
    graph = graph_of(definitions)
    users = dict.fromkeys(u for n in (before, after) for u in graph.users(Node(FEATURE, n)))
    services = tuple(user.name for user in users if user.kind == SERVICE)
    return Renamed(before, after, tuple(map(str, store.versions(after))), rows, services)
