"""`mlforge retire`: the end of a feature that the definitions no longer name, online and in the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlforge.core.text import plural
from mlforge.definitions.keeping import keeper_elsewhere
from mlforge.errors import MlforgeError, OwnedElsewhere, did_you_mean
from mlforge.registry.users import check_unused
from mlforge.store import Store
from worker.project import Project
from worker.reconcile.reconciler import retire as end_online

Ask = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Retired:
    """The numbers of rows online and of versions in the store that went."""

    rows: int
    versions: int


def retire(project: Project, name: str, ask: Ask, *, keep_versions: bool, force: bool) -> Retired:
    """End a feature: its rows online, what is kept about it there, and its versions, unless they are to stay.

    ask: whether a person says yes to a question. force: also where features or training sets were made from it. Raises
    MlforgeError for a feature that is defined, not there, or used, and where nobody says yes.
    """
    store = project.definitions.store
    _check_gone(project, name)
    if not keep_versions and not force:
        check_unused(project.definitions, name)
    count = 0 if keep_versions else len(store.versions(name))
    what = f" and {plural(count, 'version')} of it in the store" if count else ""
    if not ask(f"delete the online rows of {name}{what}, for good? {_places(project)}"):
        raise MlforgeError("nothing was deleted; --yes deletes without asking")
    if keep_versions or store.renames().sentence(name):  # its versions have another name by now
        return Retired(end_online(project, name), 0)
    with store.lock(name):
        if (
            not force
        ):  # a model may have been locked, or a training set made, while the person thought
            check_unused(project.definitions, name)
        count = len(store.versions(name))
        rows = end_online(project, name)  # first: rows online are of versions that are there
        store.erase(name)
        rows += _pushed_meanwhile(project, name)
    return Retired(rows, count)


def _places(project: Project) -> str:
    """Where rows and versions lie, as the end of a question."""
    profile = f"profile {project.settings.profile}, " if project.settings.profile else ""
    return f"({profile}{project.online}, {project.definitions.store})"


def _pushed_meanwhile(project: Project, name: str) -> int:
    """Delete what a worker of the definitions before has pushed since; returns the number of rows."""
    identity = project.definitions.store.identity()
    if identity is None:
        return 0
    try:
        return project.online.drop(name, owner=identity.id)
    except OwnedElsewhere:
        return 0


def _check_gone(project: Project, name: str) -> None:
    """Refuse a feature that is defined, and a name that nothing is kept of.

    Of a store that other definitions use, too, only features that this project has served are its own.
    """
    definitions = project.definitions
    if name in definitions.features:
        raise MlforgeError(f"{name} is in the definitions; take it out there, then retire it")
    kept_by = keeper_elsewhere(definitions, name)
    if kept_by is not None:
        raise MlforgeError(
            f"{name} is kept by the definitions {kept_by!r}, which share this store; retire it from there"
        )
    gone = [feature.feature for feature in project.gone()]
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
