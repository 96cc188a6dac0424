"""Features of a project by name, and the text that tells one set of definitions from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from types import ModuleType

from mlforge.core.arguments import listed, shown, texts
from mlforge.core.manifest import config_of
from mlforge.core.text import plural
from mlforge.definitions.namesakes import check_none_lost
from mlforge.definitions.settings import Settings
from mlforge.errors import DefinitionError, did_you_mean
from mlforge.features.feature import Feature
from mlforge.online import OnlineStore
from mlforge.services.description import describe, described_defaults
from mlforge.services.service import Service


def sizes(features: Collection[str], services: Collection[str]) -> str:
    """How many features and services there are, for people; services only where there are some."""
    told = [plural(len(features), "feature")]
    told += [plural(len(services), "service")] if services else []
    return ", ".join(told)


def features_by_name(entries: object) -> dict[str, Feature]:
    """The features of a list of features and modules, by name.

    Raises DefinitionError for any other item of the list, for two features of one name, case aside, and for a feature of a module
    that a later one of the same function name has replaced.
    """
    works = "write features=[user_spend], decorated with @feature(...), or a module that holds some"
    features: dict[str, Feature] = {}
    known = listed(entries, "Definitions: features", works)
    modules = [entry for entry in known if isinstance(entry, ModuleType)]
    for entry in known:
        for feature in _features_in(entry, works):
            if features.setdefault(feature.name, feature) is not feature:
                raise DefinitionError(
                    f"Definitions: two features are named {feature.name!r}; give one of them name="
                )
    for module in modules:
        check_none_lost(module, features.values())
    folded: dict[str, str] = {}
    for name in features:
        other = folded.setdefault(name.casefold(), name)
        if other != name:  # some disks take both for one folder
            raise DefinitionError(
                f"Definitions: the features {other!r} and {name!r} differ in case only; rename one of them"
            )
    _check_answer_names(features.values())
    return features


def feature_named(features: Mapping[str, Feature], name: str) -> Feature:
    """The feature with this name; DefinitionError, with near names, if there is none."""
    with suppress(KeyError, TypeError):  # a name of another kind may have no hash
        return features[name]
    raise DefinitionError(f"no feature {shown(name)}; {did_you_mean(name, sorted(features))}")


def selected(
    features: Mapping[str, Feature],
    names: Iterable[str] | str | None,
    tags: Iterable[str] | str | None,
) -> list[str]:
    """Names of the features that are meant by name and tag; all for None.

    Raises DefinitionError for a name or tag that no feature has.
    """
    works = 'write features=["user_spend"], or leave it out'
    chosen = features if names is None else texts(names, "features", works)
    known = [feature_named(features, name).name for name in chosen]
    if tags is None:
        return known
    chosen_tags = set(texts(tags, "tags", 'write tags=["payments"], or leave it out'))
    all_tags = {tag for feature in features.values() for tag in feature.tags}
    unknown = sorted(chosen_tags - all_tags)
    if unknown:
        advice = did_you_mean(unknown[0], sorted(all_tags))
        raise DefinitionError(f"no feature has the tag {', '.join(map(repr, unknown))}; {advice}")
    return [name for name in known if chosen_tags & set(features[name].tags)]


def _check_answer_names(features: Collection[Feature]) -> None:
    """Refuse features whose columns would have one name in an answer, or that of another's key or timestamp.

    Columns of features without metrics follow from data: a request refuses theirs.
    """
    identities = {column: f.name for f in features for column in f.spec.identity}
    columns: dict[str, tuple[str, str]] = {}
    for feature in features:
        for column in feature.spec.output_names:
            name = f"{feature.name}__{column}"
            other = columns.setdefault(name, (feature.name, column))
            if other != (feature.name, column):
                raise DefinitionError(
                    f"Definitions: the column {other[1]!r} of {other[0]} and the column {column!r} of "
                    f"{feature.name} would both be {name!r} in an answer; give one of the features another name="
                )
            if name in identities:
                raise DefinitionError(
                    f"Definitions: the column {column!r} of {feature.name} would be {name!r} in an answer, "
                    f"as is a key or the timestamp of {identities[name]}; give {feature.name} another name="
                )


def _features_in(entry: object, works: str) -> list[Feature]:
    if isinstance(entry, Feature):
        return [entry]
    if isinstance(entry, ModuleType):
        return [value for value in vars(entry).values() if isinstance(value, Feature)]
    raise DefinitionError(f"Definitions: {shown(entry)} is not a feature; {works}")


def hash_of(
    features: Iterable[Feature],
    services: Iterable[Service],
    settings: Settings,
    places: Sequence[str],
) -> str:
    """SHA-256 over definitions, in hex; places: where their stores are, described."""
    # As a text, since the order of columns is part of a service's answers.
    described = [json.dumps([describe(service), service.log]) for service in services]
    decisive = [
        {feature.name: describe_feature(feature) for feature in features},
        asdict(settings),
        places,
        *([described] if described else []),
    ]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def describe_feature(feature: Feature) -> Mapping[str, object]:
    """All settings of a feature that affect its refresh, as JSON types."""
    return {
        "config": config_of(feature.spec),
        "code": feature.code_hash,
        "sources": feature.sources,
        "tables": dict(feature.tables),
        "validators": [[column, *map(str, rules)] for column, rules in feature.validators.items()],
        "tags": feature.tags,
        "description": feature.description,
        "engine": feature.engine,
        "incremental": feature.incremental,
        **({"sealed_after": str(feature.sealed_after)} if feature.sealed_after else {}),
        **({"table_rules": _table_rules(feature)} if feature.table_rules else {}),
        **({"defaults": described_defaults(feature.defaults)} if feature.defaults else {}),
    }


def _table_rules(feature: Feature) -> list[list[str]]:
    return [[column, *map(str, rules)] for column, rules in feature.table_rules.items()]


def describe_store(store: object) -> str:
    """A store's own text; its class's name where the text would hold an address, another in each process."""
    if isinstance(store, OnlineStore):
        return store.described()
    kind = type(store)
    if kind.__repr__ is object.__repr__:
        return f"{kind.__module__}.{kind.__qualname__}"
    return repr(store)
