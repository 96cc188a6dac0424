"""Who keeps a feature of a store in which several definitions have features."""

from __future__ import annotations

import hashlib
import json

from mlforge.build.defaults import noted_defaults
from mlforge.core.keeper import FEATURE, Keeper, kept_by_others, next_keeper, refusal
from mlforge.core.manifest import config_of
from mlforge.errors import DefinitionError
from mlforge.features.feature import Feature
from mlforge.store import Books, Store
from mlforge.store.records import FeatureKeeper


def keeper_of(feature: Feature, store: Store, books: Books, keeper: Keeper) -> FeatureKeeper | None:
    """The definitions that keep a feature from its next refresh on; None where nobody shares the store.

    Several may define one feature alike, as one has it whose services read another's features. Raises DefinitionError where others
    keep it, and their definition of it is another: each refresh would undo the other's.
    """
    kept = books.keeper
    if kept is not None and kept_by_others(store, kept.name, keeper, FEATURE, feature.name):
        if kept.definition != definition_hash(feature):
            raise DefinitionError(refusal(FEATURE, feature.name, kept.name, keeper))
        return kept
    name = next_keeper(kept.name if kept else "", keeper)
    return FeatureKeeper(name, definition_hash(feature)) if name else None


def definition_hash(feature: Feature) -> str:
    """SHA-256, in hex, over all of a definition that its values follow from: an engine or a description changes none."""
    decisive = [
        config_of(feature.spec),
        feature.code_hash,
        feature.sources,
        dict(feature.tables),
        [[column, *map(str, rules)] for column, rules in feature.validators.items()],
        noted_defaults(feature),
        *([] if feature.incremental is None else [feature.incremental]),
    ]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
