"""Names that definitions keep in a store which others use, too: noted, given up, and taken over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlforge.build.keeping import definition_hash
from mlforge.core.keeper import FEATURE, DefinedNames, kept_by_others
from mlforge.core.logs import get_logger
from mlforge.definitions.services import keep_services
from mlforge.errors import DefinitionError, MlforgeError, did_you_mean
from mlforge.services.keeping import keep, kept_versions
from mlforge.store.records import FeatureKeeper

if TYPE_CHECKING:
    from mlforge.definitions.registry import Definitions

log = get_logger("mlforge.definitions")


def keep_all(definitions: Definitions) -> None:
    """Keep a version of each service that has changed."""
    keep_services(definitions.services.values(), definitions.store, definitions.keeper)


def note_names(definitions: Definitions) -> bool:
    """Note what names these definitions have, so that others may keep those that they had before.

    Only definitions that share their store do. Returns False, and logs why, where the store could not be read or written.
    """
    if not definitions.partial:
        return True
    try:
        _note_names(definitions)
    except MlforgeError as error:
        log.warning("names of these definitions not noted", error=str(error))
        return False
    return True


def _note_names(definitions: Definitions) -> None:
    names = DefinedNames(frozenset(definitions.features), frozenset(definitions.services))
    if definitions.store.defined_names(definitions.name) != names:
        definitions.store.write_defined_names(definitions.name, names)


def keeper_elsewhere(definitions: Definitions, feature: str) -> str | None:
    """The name of other definitions that keep a feature and name it still; None where none do."""
    kept = definitions.store.books(feature).keeper
    if kept is None:
        return None
    is_others = kept_by_others(definitions.store, kept.name, definitions.keeper, FEATURE, feature)
    return kept.name if is_others else None


def take_over(definitions: Definitions, name: str) -> str | None:
    """Keep a feature or a service from now on; returns the name of the other definitions that did, None where none did.

    Those that did are refused from then on, if what they define is another. Raises DefinitionError for a name that is neither,
    StoreError and RetrievalError as `keep`.
    """
    known = sorted({*definitions.features, *definitions.services})
    if name not in known:
        raise DefinitionError(f"no feature or service {name!r}; {did_you_mean(name, known)}")
    of_feature = _feature_taken_over(definitions, name) if name in definitions.features else None
    of_service = _service_taken_over(definitions, name) if name in definitions.services else None
    return of_feature or of_service


def take_over_all(definitions: Definitions, keeper: str) -> list[str]:
    """Keep from now on all that other definitions keep and these name; returns the names, features first.

    A feature or service of which nothing is kept yet is left out.
    """
    store, own = definitions.store, definitions.keeper.name
    if keeper == own:
        raise DefinitionError(f"these definitions are {own!r}: what they keep is theirs already")
    features = [
        name
        for name in definitions.features
        if (kept := store.books(name).keeper) is not None and kept.name == keeper
    ]
    services = [
        name
        for name in definitions.services
        if (versions := kept_versions(store, name)) and versions[-1].keeper == keeper
    ]
    for name in features:
        _feature_taken_over(definitions, name)
    for name in services:
        _service_taken_over(definitions, name)
    return features + services


def _feature_taken_over(definitions: Definitions, name: str) -> str | None:
    store, own = definitions.store, definitions.keeper.name
    with store.lock(name):
        books = store.books(name)
        kept = books.keeper
        if kept is None or kept.name == own:
            return None
        _note_names(definitions)  # else they would seem to have let go of it
        feature = definitions.feature(name)
        with feature.code.looked_at():
            keeper = FeatureKeeper(own, definition_hash(feature))
        store.write_books(name, books.kept_by(keeper))
    return kept.name


def _service_taken_over(definitions: Definitions, name: str) -> str | None:
    store, keeper = definitions.store, definitions.keeper
    last = next(reversed(kept_versions(store, name)), None)
    if last is None or last.keeper in ("", keeper.name):
        return None
    _note_names(definitions)
    keep(definitions.services[name], store, keeper, adopts=True)
    return last.keeper
