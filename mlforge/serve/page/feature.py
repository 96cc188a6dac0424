"""The page of a feature: versions and why they were made, its columns, and the files behind a value."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlforge.core import clock
from mlforge.core.dropped import nulls_in_words, rows_in_words
from mlforge.core.manifest import VersionSummary
from mlforge.core.text import bump_word
from mlforge.core.values import to_iso
from mlforge.errors import MlforgeError, without_owners
from mlforge.profiles.column_profile import ColumnProfile
from mlforge.profiles.table import profile_version
from mlforge.registry.entries import ColumnEntry, FeatureEntry
from mlforge.registry.graph import FEATURE, Graph, Node
from mlforge.retrieval.explain import explain
from mlforge.serve.page.distribution import Distribution, distribution
from mlforge.serve.page.home import Mark, mark
from mlforge.serve.page.lineage_picture import Picture, picture
from mlforge.serve.page.needs import Deed, Need, needs_of_feature, roll_back
from mlforge.serve.page.project import ProjectView
from mlforge.serve.page.words import number
from mlforge.store import Store
from mlforge.training_sets.drift import drift

EVENTS = 50
"""Events that are listed behind a value; files are counted over all of them."""
_FIRST = 6
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version, why it was made, and the deed that goes back to it."""

    version: str
    created_at: str | None
    bump: str
    reason: str
    details: str
    evidence: tuple[str, ...]
    rows: int
    is_served: bool
    is_kept: bool
    deed: Deed | None


@dataclass(frozen=True, slots=True)
class SetAside:
    """A file in quarantine."""

    path: str
    reason: str
    since: str | None


@dataclass(frozen=True)
class FeaturePage:
    """All that the page of a feature shows but the figures of its columns.

    rows_left_out, taken_as_null: of the served version, in words; empty where there are none.
    """

    entry: FeatureEntry
    mark: Mark | None
    state: Document | None
    needs: tuple[Need, ...]
    versions: tuple[VersionRow, ...]
    quarantine: tuple[SetAside, ...]
    places: tuple[str, ...]
    code: str | None
    lineage: Picture
    rows_left_out: str
    taken_as_null: str


@dataclass(frozen=True, slots=True)
class ColumnRow:
    """A column with its profile. drift: the verdict against the other version, and its sentence."""

    entry: ColumnEntry
    profile: ColumnProfile | None
    distribution: Distribution | None
    verdict: str | None = None
    moved: str = ""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a version beside those of another; others: the versions that there are to choose from."""

    feature: str
    version: str | None
    against: str | None
    others: tuple[str, ...]
    rows: tuple[ColumnRow, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Behind:
    """The events behind a chosen value: their files with counts, and the latest of the events."""

    column: str
    count: int
    files: tuple[tuple[str, int], ...]
    names: tuple[str, ...]
    events: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Explained:
    """Why an entity's values are what they are. problem: why there is no explanation."""

    feature: str
    query: Mapping[str, str]
    document: Document | None = None
    behind: Behind | None = None
    problem: str = ""


def feature_page(view: ProjectView, entry: FeatureEntry, whole: Graph) -> FeaturePage:
    """The page of a feature; whole: the project's graph."""
    store, state = view.definitions.store, view.state().of(entry.name)
    node, books = Node(FEATURE, entry.name), store.books(entry.name)
    graph = whole.around(node)
    served = store.latest(entry.name) if entry.version else None
    dropped = served.dropped if served else {}
    return FeaturePage(
        entry,
        mark(state),
        state,
        tuple(needs_of_feature(state)) if state else (),
        tuple(_versions(store, entry)),
        tuple(
            SetAside(path, without_owners(kept.reason, entry.name, path), to_iso(kept.since))
            for path, kept in books.quarantine.items()
        ),
        view.places(entry.name),
        _code(view, entry.name),
        picture(graph, node, served_versions(store, graph)),
        rows_in_words(dropped),
        nulls_in_words(dropped),
    )


def served_versions(store: Store, graph: Graph) -> dict[str, str | None]:
    """The served version of each feature of a graph, None where there is none."""
    pointers = {node.name: store.pointer(node.name) for node in graph.nodes if node.kind == FEATURE}
    return {name: str(pointer.version) if pointer else None for name, pointer in pointers.items()}


def _code(view: ProjectView, name: str) -> str | None:
    """The function's text; None where it has none, as it was typed at a prompt, or the feature is only stored."""
    feature = view.definitions.features.get(name)
    try:
        return inspect.cleandoc(f"\n{inspect.getsource(feature.function)}") if feature else None
    except (OSError, TypeError, IndentationError):
        return None


def _versions(store: Store, entry: FeatureEntry) -> Iterator[VersionRow]:
    kept = store.books(entry.name).kept_at(clock.now())
    for summary in reversed(store.summaries(entry.name) if entry.versions else ()):
        version, change = str(summary.version), summary.change
        is_served = version == entry.version
        yield VersionRow(
            version,
            to_iso(summary.created_at),
            bump_word(change.bump_type, change.reason) or "" if change else "",
            change.reason.replace("_", " ") if change else "",
            _details(summary),
            tuple(_evidence(change.evidence)) if change else (),
            summary.row_count,
            is_served,
            version in kept,
            None if is_served or not entry.defined else roll_back(entry.name, version),
        )


def _details(summary: VersionSummary) -> str:
    details = list(summary.change.details) if summary.change else []
    more = f" and {len(details) - _FIRST:,} more" if len(details) > _FIRST else ""
    return ", ".join(details[:_FIRST]) + more


def _evidence(evidence: Mapping[str, Any]) -> Iterator[str]:
    """Each piece of evidence in a few words: `files added: 60, such as a.parquet, b.parquet`."""
    for name, value in evidence.items():
        words = name.replace("_", " ")
        if isinstance(value, dict) and "count" in value:
            first = [str(each) for each in value.get("first", ())][:3]
            such = (
                f", {'such as ' if value['count'] > len(first) else ''}{', '.join(first)}"
                if first
                else ""
            )
            yield f"{words}: {number(value['count'])}{such}"
        elif isinstance(value, dict):
            yield f"{words}: {', '.join(f'{key} {number(each)}' for key, each in value.items())}"
        elif isinstance(value, list | tuple):
            yield f"{words}: {', '.join(map(str, value[:_FIRST]))}"
        else:
            yield f"{words}: {number(value)}"


def columns(view: ProjectView, entry: FeatureEntry, against: str | None) -> Columns:
    """The columns of the served version with their profiles, beside those of another version if one is named."""
    others = tuple(version for version in reversed(entry.versions) if version != entry.version)
    if entry.version is None:
        plain = tuple(ColumnRow(column, None, None) for column in entry.columns)
        return Columns(entry.name, None, None, others, plain)
    store = view.definitions.store
    try:
        profiles = profile_version(store, store.resolve(entry.name, entry.version))
        other = profile_version(store, store.resolve(entry.name, against)) if against else {}
        moved = _drift(store, entry, against)
    except MlforgeError as error:
        plain = tuple(ColumnRow(column, None, None) for column in entry.columns)
        return Columns(entry.name, entry.version, None, others, plain, str(error))
    rows = []
    for column in entry.columns:
        profile = profiles.get(column.name)
        drawn = distribution(profile, other.get(column.name)) if profile else None
        verdict, words = moved.get(column.name, (None, ""))
        rows.append(ColumnRow(column, profile, drawn, verdict, words))
    return Columns(entry.name, entry.version, against, others, tuple(rows))


def _drift(store: Store, entry: FeatureEntry, against: str | None) -> dict[str, tuple[str, str]]:
    """The verdict on each column, and the figures that it rests on."""
    if not against:
        return {}
    moved: dict[str, tuple[str, str]] = {}
    for column in drift(store, entry.name, against, entry.version).columns:
        figures = [
            f"{name} {value:.3f}"
            for name, value in (
                ("psi", column.psi),
                ("nulls psi", column.null_psi),
                ("ks", column.ks),
            )
            if value is not None
        ]
        moved[column.column] = (column.verdict(), column.reason or ", ".join(figures))
    return moved


def explained(view: ProjectView, entry: FeatureEntry, query: Mapping[str, str]) -> Explained:
    """Why values are what they are. query: the entity's keys as `key.NAME`, `at`, and `column`, whose events are shown."""
    keys = {key: query[f"key.{key}"] for key in entry.keys if f"key.{key}" in query}
    if len(keys) < len(entry.keys):
        return Explained(entry.name, query)
    at = query.get("at", "").strip() or None
    try:
        explanation = explain(
            entry.name, keys, view.definitions.store, at, None, view.online
        ).to_json()
    except MlforgeError as error:
        return Explained(entry.name, query, problem=str(error))
    names = [value["column"] for value in explanation["values"]]
    chosen = query.get("column")
    column = chosen if chosen in names else names[0] if names else None
    return Explained(
        entry.name, query, explanation, _behind(explanation, column) if column else None
    )


def _behind(explanation: Document, column: str) -> Behind:
    """The events in the window of a column; all of them for a column that has none."""
    value = next(each for each in explanation["values"] if each["column"] == column)
    window = value["window"]
    rows = [row for row in explanation["rows"] if window is None or window in row["windows"]]
    files = Counter(row["file"] or "the whole source, read at once" for row in rows)
    names = tuple(rows[0]["values"]) if rows else ()
    events = tuple(
        (row["file"] or "", tuple(number(row["values"][name]) for name in names))
        for row in reversed(rows[-EVENTS:])
    )
    return Behind(column, len(rows), tuple(files.most_common()), names, events)
