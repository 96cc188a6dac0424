"""`mlforge retire`: the end of a feature that the definitions no longer name, online and in the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from mlforge.core.text import plural
from mlforge.definitions.keeping import keeper_elsewhere
from mlforge.definitions.registry import Definitions
from mlforge.errors import MlforgeError, OwnedElsewhere, did_you_mean
from mlforge.registry.users import check_unused
from mlforge.store import Store
from worker.project import Project
from worker.reconcile.reconciler import retire as end_online

Ask = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Holdings:
    """All that may hold something of a feature: the definitions' stores, and the project of workers, None where there never were any."""

    definitions: Definitions
    profile: str | None
    project: Project | None = None

    @classmethod
    def of(cls, project: Project) -> Self:
        """The holdings of a project on a server."""
        return cls(project.definitions, project.settings.profile, project)

    def gone(self) -> list[str]:
        """Features that workers have pushed and the definitions no longer name, and former names of features that have rows online."""
        pushed = [] if self.project is None else [gone.feature for gone in self.project.gone()]
        return [*pushed, *self._former_names()]

    def _former_names(self) -> list[str]:
        online, former = self.definitions.online_store, self.definitions.store.renames().names
        if online is None or not former:
            return []
        return [name for name in online.features() if name in former]

    def end_online(self, name: str) -> int:
        """Delete a feature's rows online and what workers note of it; returns the number of rows."""
        return self.drop(name) if self.project is None else end_online(self.project, name)

    def drop(self, name: str) -> int:
        """Delete a feature's rows online that are of this store; returns their number."""
        online, identity = self.definitions.online_store, self.definitions.store.identity()
        if online is None or identity is None:
            return 0
        try:
            return online.drop(name, owner=identity.id)
        except OwnedElsewhere:
            return 0

    def __str__(self) -> str:
        online = self.definitions.online_store
        parts = [
            f"profile {self.profile}" if self.profile else "",
            "" if online is None else str(online),
            str(self.definitions.store),
        ]
        return ", ".join(filter(None, parts))


@dataclass(frozen=True, slots=True)
class Retired:
    """The numbers of rows online and of versions in the store that went."""

    rows: int
    versions: int


def retire(holdings: Holdings, name: str, ask: Ask, *, keep_versions: bool, force: bool) -> Retired:
    """End a feature: its rows online, what is kept about it there, and its versions, unless they are to stay.

    ask: whether a person says yes to a question. force: also where features or training sets were made from it. Raises
    MlforgeError for a feature that is defined, not there, or used, where nobody says yes, and where there is nothing to delete.
    """
    definitions, store = holdings.definitions, holdings.definitions.store
    _check_gone(holdings, name)
    if keep_versions and definitions.online_store is None:
        raise MlforgeError(
            f"{name}: there is no online store to delete rows from; set REDIS_URL to the server that has them"
        )
    if not keep_versions and not force:
        check_unused(definitions, name)
    count = 0 if keep_versions else len(store.versions(name))
    if not ask(f"delete {_named(holdings, name, count)}, for good? ({holdings})"):
        raise MlforgeError("nothing was deleted; --yes deletes without asking")
    if keep_versions or store.renames().sentence(name):  # its versions have another name by now
        return Retired(holdings.end_online(name), 0)
    with store.lock(name):
        # A model may have been locked, or a training set made, while the person thought.
        if not force:
            check_unused(definitions, name)
        count = len(store.versions(name))
        rows = holdings.end_online(name)  # first: rows online are of versions that are there
        store.erase(name)
        rows += holdings.drop(name)  # what a worker of the definitions before has pushed since
    return Retired(rows, count)


def _named(holdings: Holdings, name: str, versions: int) -> str:
    """The things to be deleted of a feature, in words."""
    is_online = holdings.definitions.online_store is not None
    rows = [f"the online rows of {name}"] if is_online else []
    stored = [f"{plural(versions, 'version')} of {'it' if rows else name} in the store"]
    return " and ".join(rows + stored if versions else rows) or f"what is left of {name}"


def _check_gone(holdings: Holdings, name: str) -> None:
    """Refuse a feature that is defined, and a name that nothing is kept of.

    Of a store that other definitions use, too, only features that this project has served are its own.
    """
    definitions = holdings.definitions
    if name in definitions.features:
        raise MlforgeError(f"{name} is in the definitions; take it out there, then retire it")
    kept_by = keeper_elsewhere(definitions, name)
    if kept_by is not None:
        raise MlforgeError(
            f"{name} is kept by the definitions {kept_by!r}, which share this store; retire it from there"
        )
    gone = holdings.gone()
    if not definitions.partial:
        gone += [n for n in definitions.store.features() if n not in definitions.features]
    if name not in gone and (definitions.partial or not _is_left_over(definitions.store, name)):
        known = sorted(set(gone))
        raise MlforgeError(
            f"no feature {name!r} is gone from this project; {did_you_mean(name, known)}"
        )


def _is_left_over(store: Store, name: str) -> bool:
    """Whether something is kept of a feature that an earlier `retire` has begun to delete."""
    return bool(store.kept_partials(name) or store.renames().formerly(name))
