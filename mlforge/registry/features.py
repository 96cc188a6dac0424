"""The entry of a feature: what its definition says, what its served version is, who uses it, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.manifest import Manifest
from mlforge.core.metrics import MetricColumn
from mlforge.core.schema import Schema
from mlforge.core.values import to_iso
from mlforge.definitions.registry import Definitions
from mlforge.features.feature import Feature
from mlforge.registry.entries import ColumnEntry, Cost, FeatureEntry, SetEntry, Users
from mlforge.registry.graph import FEATURE, MODEL, SERVICE, SOURCE, Graph, Node
from mlforge.services.description import described_defaults
from mlforge.store import Books, Store


def feature_entry(definitions: Definitions, graph: Graph, name: str) -> FeatureEntry:
    """The entry of a feature that is defined or stored.

    graph: that of the project. Raises StoreError where the store cannot be read.
    """
    feature, store = definitions.features.get(name), definitions.store
    latest, books, node = store.latest(name), store.books(name), Node(FEATURE, name)
    spec = feature.spec if feature else latest.spec if latest else FeatureSpec(name, ())
    described = dict(feature.column_descriptions) if feature else {}
    columns = _columns(
        latest.spec if latest else spec, latest.columns if latest else None, described
    )
    defaults = described_defaults(feature.defaults) if feature else books.defaults
    return FeatureEntry(
        name=name,
        defined=feature is not None,
        owner=feature.owner if feature else "",
        description=feature.description if feature else books.description,
        tags=feature.tags if feature else books.tags,
        keys=spec.keys,
        timestamp=spec.timestamp,
        interval=None if spec.interval is None else str(spec.interval),
        engine=_engine(definitions, feature, latest),
        sources=feature.sources if feature else tuple(map(_told, graph.made_from(node))),
        tables=dict(feature.tables) if feature else {},
        columns=tuple(replace(c, default=defaults.get(c.name)) for c in columns),
        undescribed=tuple(c for c in described if c not in {column.name for column in columns}),
        version=str(latest.version) if latest else None,
        updated_at=to_iso(latest.created_at) if latest else None,
        reason=latest.change.reason if latest and latest.change else None,
        versions=tuple(map(str, store.versions(name))),
        upstream=tuple(map(str, graph.upstream(node))),
        downstream=tuple(map(str, graph.downstream(node))),
        used_by=_users(graph, node, books),
        cost=_cost(store, latest) if latest else None,
        formerly=store.renames().formerly(name),
        keeper=books.keeper.name if books.keeper else "",
    )


def _told(origin: Node) -> str:
    """A source as `@feature(source=)` has it."""
    return origin.name if origin.kind == SOURCE else str(origin)


def _engine(
    definitions: Definitions, feature: Feature | None, latest: Manifest | None
) -> str | None:
    if feature is None:
        return latest.engine if latest else None
    return feature.engine or definitions.settings.engine


def _columns(
    spec: FeatureSpec, stored: Schema | None, described: dict[str, str]
) -> tuple[ColumnEntry, ...]:
    """The columns of a version, else those that follow from the definition."""
    metrics = {column.name: column for column in spec.columns}
    expressions = {column.name: column.expression for column in spec.derived}
    names = list(dict.fromkeys((*spec.identity, *spec.output_names)))
    dtype_of: dict[str, str | None] = dict.fromkeys(names)
    if stored is not None:
        dtype_of = {column.name: column.dtype for column in stored}
    return tuple(
        _column(name, dtype, metrics.get(name), expressions.get(name), described.get(name, ""))
        for name, dtype in dtype_of.items()
    )


def _column(
    name: str,
    dtype: str | None,
    metric: MetricColumn | None,
    expression: str | None,
    description: str,
) -> ColumnEntry:
    if metric is None:
        return ColumnEntry(name, dtype, of=expression, description=description)
    return ColumnEntry(
        name,
        dtype,
        metric.aggregation,
        metric.window.name,
        str(metric.window.offset) if metric.window.offset else None,
        metric.where,
        metric.column,
        description,
    )


def _users(graph: Graph, node: Node, books: Books) -> Users:
    users = graph.users(node)
    return Users(
        tuple(user.name for user in users if user.kind == FEATURE),
        tuple(user.name for user in users if user.kind == SERVICE),
        tuple(user.name for user in users if user.kind == MODEL),
        tuple(
            SetEntry(set_id, held.out, held.versions, to_iso(held.at))
            for set_id, held in books.sets.items()
            if held.until is None
        ),
    )


def _cost(store: Store, latest: Manifest) -> Cost:
    assert latest.version is not None
    table = store.files(latest.name, latest.version, latest.parts)
    located = store.locate(latest.name, dict.fromkeys(p.hash for p in latest.partials))
    return Cost(
        latest.row_count,
        _bytes(table),
        sum(partial.rows for partial in latest.partials),
        _bytes({place.file for place in located}),
    )


def _bytes(files: Iterable[str]) -> int | None:
    """The size of files together; None where one is not a local file, or has gone meanwhile."""
    with suppress(OSError):
        return sum(Path(file).stat().st_size for file in files)
    return None
