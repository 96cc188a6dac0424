"""The page of a service: what it answers, which models rest on it, and what a change would reach."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from mlforge.core.expression.parser import parse
from mlforge.core.values import to_iso
from mlforge.registry.entries import ColumnEntry, ServiceEntry, SetEntry
from mlforge.registry.graph import FEATURE, KINDS, SERVICE, Graph, Node
from mlforge.registry.locks import lock_changes
from mlforge.serve.page.feature import served_versions
from mlforge.serve.page.home import Mark, service_mark
from mlforge.serve.page.lineage_picture import Picture, picture
from mlforge.serve.page.project import ProjectView
from mlforge.store import Store


@dataclass(frozen=True, slots=True)
class LockRow:
    """A model with the lock that it was made with. broken: columns that are not as they were, and why."""

    model: str
    created_at: str | None
    columns: int
    versions: tuple[str, ...]
    broken: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a fault of a source or a feature reaches: the service's columns that would stand still."""

    kind: str
    name: str
    columns: tuple[str, ...]
    of: int


@dataclass(frozen=True, slots=True)
class SetRow:
    """A training set that was made with features of the service, and the command that tells which rows would differ."""

    made: SetEntry
    command: str


@dataclass(frozen=True)
class ServicePage:
    """All that the page of a service shows."""

    entry: ServiceEntry
    mark: Mark | None
    state: Mapping[str, Any] | None
    locks: tuple[LockRow, ...]
    reach: tuple[Reach, ...]
    sets: tuple[SetRow, ...]
    lineage: Picture


def service_page(view: ProjectView, entry: ServiceEntry, graph: Graph) -> ServicePage:
    """The page of a service; graph: that of the project."""
    store, state = view.definitions.store, view.state().of_service(entry.name)
    node = Node(SERVICE, entry.name)
    around = graph.around(node)
    return ServicePage(
        entry,
        service_mark(state),
        state,
        tuple(_locks(store, entry.name)),
        tuple(_reach(graph, entry)),
        tuple(_sets(view, entry)),
        picture(around, node, served_versions(store, around)),
    )


def _locks(store: Store, service: str) -> Iterator[LockRow]:
    for model, lock in store.locks().items():
        if lock.service == service:
            yield LockRow(
                model,
                to_iso(lock.created_at),
                len(lock.columns),
                lock.versions,
                tuple(f"{change.column}: {change.why}" for change in lock_changes(store, lock)),
            )


def _reach(graph: Graph, entry: ServiceEntry) -> Iterator[Reach]:
    """The columns that rest on each source and feature above the service, the most first."""
    above = graph.upstream(Node(SERVICE, entry.name))
    rows = []
    for node in above:
        below = {node, *graph.downstream(node)}
        columns = tuple(_reached(entry.columns, below))
        rows.append(Reach(KINDS[node.kind], node.name, columns, len(entry.columns)))
    yield from sorted(rows, key=lambda reach: (-len(reach.columns), reach.kind, reach.name))


def _reached(columns: Sequence[ColumnEntry], below: Set[Node]) -> Iterator[str]:
    """The columns of features among the nodes, and those that are derived of reached ones, which stand behind them."""
    reached: set[str] = set()
    for column in columns:
        if column.feature is not None:
            is_reached = Node(FEATURE, column.feature) in below
        else:
            is_reached = not reached.isdisjoint(parse(column.of or "", column.name).names)
        if is_reached:
            reached.add(column.name)
            yield column.name


def _sets(view: ProjectView, entry: ServiceEntry) -> Iterator[SetRow]:
    entries = view.entries()
    seen: dict[str, SetEntry] = {}
    for feature in entry.features:
        used_by = getattr(entries.get(Node(FEATURE, feature)), "used_by", None)
        for training_set in used_by.training_sets if used_by else ():
            seen.setdefault(training_set.id, training_set)
    for training_set in seen.values():
        yield SetRow(training_set, f"mlforge blast {shlex.quote(training_set.folder)}")
