"""The entry of a service: what it takes, and the columns of its answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mlforge.core.schema import Column, Schema
from mlforge.definitions.registry import Definitions
from mlforge.errors import MlforgeError, RetrievalError, StoreError
from mlforge.registry.entries import ColumnEntry, ServiceEntry, UseEntry
from mlforge.registry.graph import SERVICE, Graph, Node
from mlforge.retrieval.reading import FeatureUse, reading_of
from mlforge.services.completion import completion
from mlforge.services.description import describe, described_default
from mlforge.services.service import Service


def service_entry(definitions: Definitions, graph: Graph, name: str) -> ServiceEntry:
    """The entry of a service of the definitions.

    graph: that of the project. Columns are those of the served versions; where a feature has none yet, as far as they
    follow from definitions.
    """
    service = definitions.services[name]
    document = describe(service)
    uses = _uses(definitions, service)
    kept = definitions.store.service_versions(name)
    versions = tuple(map(str, kept))
    features = _served(definitions, uses) if uses else _defined(definitions, document["features"])
    return ServiceEntry(
        name=name,
        owner=service.owner,
        description=service.description,
        features=service.feature_names,
        uses=tuple(_use(definitions, use) for use in document["features"]),
        keys=tuple(_keys(definitions, document["features"])),
        request=tuple(ColumnEntry(column.name, column.dtype) for column in service.request),
        columns=(*_with_defaults(definitions, service, features), *_derived(service, uses)),
        complete=bool(uses),
        defaults=document["defaults"],
        max_age=document["max_age"],
        upstream=tuple(map(str, graph.upstream(Node(SERVICE, name)))),
        version=versions[-1] if versions else None,
        versions=versions,
        keeper=str(kept[max(kept)].get("keeper", "")) if kept else "",
    )


def _use(definitions: Definitions, use: Mapping[str, Any]) -> UseEntry:
    feature, pointer = (
        definitions.feature(use["feature"]),
        definitions.store.pointer(use["feature"]),
    )
    return UseEntry(
        feature=feature.name,
        owner=feature.owner,
        version=use["version"] or (str(pointer.version) if pointer else None),
        fixed=use["version"] is not None,
        prefix=use["prefix"] or feature.name,
        keys={key: use["keys"].get(key, key) for key in feature.spec.keys},
    )


def service_keys(definitions: Definitions, name: str) -> Schema:
    """The keys of a service's entities with their dtypes; none where one of its features has no version yet."""
    return _key_schema(_uses(definitions, definitions.services[name]))


def _uses(definitions: Definitions, service: Service) -> tuple[FeatureUse, ...]:
    """The versions that the service reads now; none where one of its features has none, or not these columns."""
    try:
        uses = reading_of(service, definitions.store).uses
        for use in uses:
            use.reference.chosen([column.name for column in _values(use)])
    except (RetrievalError, StoreError):
        return ()
    return uses


def _values(use: FeatureUse) -> Schema:
    return use.manifest.spec.values(use.manifest.events)


def _served(definitions: Definitions, uses: Sequence[FeatureUse]) -> Iterator[ColumnEntry]:
    for use in uses:
        for column in use.chosen:
            yield _of_feature(
                definitions,
                use.manifest.name,
                use.answer_name(column.name),
                column.name,
                column.dtype,
            )


def _defined(definitions: Definitions, uses: Sequence[Mapping[str, Any]]) -> Iterator[ColumnEntry]:
    """The columns that the service names, that a feature's version has, or that follow from metrics."""
    for use in uses:
        feature, latest = (
            definitions.feature(use["feature"]),
            definitions.store.latest(use["feature"]),
        )
        served = latest.spec.values(latest.events) if latest else ()
        dtype_of = {column.name: column.dtype for column in served}
        for name in use["columns"] or tuple(dtype_of) or feature.spec.output_names:
            label = f"{use['prefix'] or feature.name}__{name}"
            yield _of_feature(definitions, feature.name, label, name, dtype_of.get(name))


def _of_feature(
    definitions: Definitions, feature: str, label: str, column: str, dtype: str | None
) -> ColumnEntry:
    described = definitions.feature(feature).column_descriptions.get(column, "")
    return ColumnEntry(label, dtype, of=column, description=described, feature=feature)


def _with_defaults(
    definitions: Definitions, service: Service, columns: Iterable[ColumnEntry]
) -> Iterator[ColumnEntry]:
    """The features' columns with the service's defaults, else the features' own."""
    for column in columns:
        own = definitions.feature(str(column.feature)).defaults
        default = {**own, **service.defaults}.get(str(column.of))
        default = service.defaults.get(column.name, default)
        yield replace(column, default=described_default(default))


def _derived(service: Service, uses: Sequence[FeatureUse]) -> Iterator[ColumnEntry]:
    """The service's own columns; their dtypes as far as those of what they read are known."""
    outputs = tuple(output for use in uses for output in use.outputs)
    dtype_of: dict[str, str] = {}
    if uses:
        try:
            complete = completion(service, outputs, _key_schema(uses))
        except MlforgeError:  # the served versions do not fit the service: a read says why
            pass
        else:
            dtype_of = {column.name: column.dtype for column in complete.derived}
    for column in service.derived:
        yield ColumnEntry(column.name, dtype_of.get(column.name), of=column.expression)


def _key_schema(uses: Sequence[FeatureUse]) -> Schema:
    """The keys by their names in entities, each with the dtype that the first feature has for it."""
    keys: dict[str, Column] = {}
    for use in uses:
        spec = use.manifest.spec
        names = use.reference.key_names(spec.keys)
        for column in use.manifest.events:
            if column.name in names:
                name = names[column.name]
                keys.setdefault(name, Column(name, column.dtype))
    return tuple(keys.values())


def _keys(definitions: Definitions, uses: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of keys in entities, each once."""
    return list(
        dict.fromkeys(
            use["keys"].get(key, key)
            for use in uses
            for key in definitions.feature(use["feature"]).spec.keys
        )
    )
