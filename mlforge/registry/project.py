"""The graph of a project: from its definitions, its store's versions, registered locks of models, training sets that keep versions, and exports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlforge.core.values import FEATURE as FEATURE_PREFIX
from mlforge.definitions.registry import Definitions
from mlforge.registry.graph import FEATURE, MODEL, SERVICE, SET, SOURCE, TABLE, Graph, Node
from mlforge.store.addresses import scheme_of


def graph_of(definitions: Definitions) -> Graph:
    """All that the definitions name and the store holds; raises StoreError where the store cannot be read."""
    nodes = [Node(FEATURE, name) for name in known_features(definitions)]
    nodes += [Node(SERVICE, name) for name in definitions.services]
    return Graph.of(nodes, _edges(definitions))


def known_features(definitions: Definitions) -> list[str]:
    """The names of the features that are defined, then of those that are only stored."""
    return list(dict.fromkeys([*definitions.features, *definitions.store.features()]))


def _edges(definitions: Definitions) -> Iterator[tuple[Node, Node]]:
    for name in known_features(definitions):
        for origin in _origins(definitions, name):
            yield origin, Node(FEATURE, name)
    for service in definitions.services.values():
        for name in service.feature_names:
            yield Node(FEATURE, name), Node(SERVICE, service.name)
    for model, lock in definitions.store.locks().items():
        for name in lock.features:
            yield Node(FEATURE, name), Node(MODEL, model)
    for name in known_features(definitions):
        books = definitions.store.books(name)
        for held in books.sets.values():
            if held.until is None:
                yield Node(FEATURE, name), Node(SET, held.out)
        for table in filter(may_be_there, books.exports):
            yield Node(FEATURE, name), Node(TABLE, table)


def may_be_there(table: str) -> bool:
    """Whether an exported table is not known to be gone: of one in a bucket nobody asks."""
    place = table.partition(":")[2]
    return scheme_of(place) is not None or Path(place).exists()


def _origins(definitions: Definitions, name: str) -> Iterator[Node]:
    """The sources or the feature that a feature is made from, then the sources of its tables."""
    for text in _texts(definitions, name):
        is_feature = text.startswith(FEATURE_PREFIX)
        yield Node(FEATURE if is_feature else SOURCE, text.removeprefix(FEATURE_PREFIX))


def _texts(definitions: Definitions, name: str) -> Iterator[str]:
    feature, latest = definitions.features.get(name), definitions.store.latest(name)
    if feature is not None:
        yield from feature.sources
        for table in feature.tables.values():
            yield from table
    elif latest is not None:  # as its last version was made from
        yield latest.source.partition("@")[0] if latest.upstream else latest.source
