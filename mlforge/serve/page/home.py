"""The first page: what needs a person, what happens, and all that there is."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlforge.core.text import plural
from mlforge.errors import StoreError
from mlforge.registry.entries import FeatureEntry, ServiceEntry
from mlforge.registry.search import Match, search
from mlforge.serve.page.happenings import Line, lines
from mlforge.serve.page.needs import CALM, Need, needs_of
from mlforge.serve.page.project import ProjectView, State

WORDS = {
    "ready": "up to date",
    "waiting": "waits for its first file",
    "queued": "queued",
    "working": "being computed",
    "pushing": "being pushed",
    "held": "held",
    "parked": "failed",
    "failing": "fails",
    "quarantined": "a file left out",
    "incomplete": "incomplete online",
    "unreadable": "unreadable",
    "wrong": "wrong values",
    "stale": "stale",
}
"""The state of a feature or a service in words."""
_TOLD = 3
"""How many texts are told of a field in which a search found its words."""
_BAD = ("parked", "wrong", "unreadable", "failing")


@dataclass(frozen=True, slots=True)
class Mark:
    """A state in words, and the tone in which it is shown."""

    word: str
    tone: str


@dataclass(frozen=True, slots=True)
class Row:
    """A feature or a service of the catalogue; figures are None where they are not known.

    version: a feature's served one. size: a feature's rows, or a service's columns. features: how many a service takes.
    where: the texts in which a search found its words.
    """

    name: str
    description: str
    mark: Mark | None
    version: str | None = None
    size: int | None = None
    features: int = 0
    where: tuple[str, ...] = ()


@dataclass(frozen=True)
class Catalogue:
    """Features and services, all or those that a search found.

    awaited: where the first files are dropped that all of them wait for. problem: why the store cannot be read, where it cannot:
    then the definitions tell what there is, and the online store what is served.
    """

    text: str
    features: tuple[Row, ...]
    services: tuple[Row, ...]
    awaited: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Now:
    """The moving part of the first page. token: changes as soon as any of it does, and holds the last entry's id."""

    token: str
    needs: tuple[Need, ...]
    lines: tuple[Line, ...]
    summary: str
    is_well: bool
    has_workers: bool
    problem: str | None

    @property
    def last(self) -> str:
        """The id of the last entry of the event log that is shown."""
        return self.token.partition(".")[0]


def service_mark(state: Mapping[str, Any] | None) -> Mark | None:
    """The state of a service as it is shown; None where it is not known."""
    known = mark(state)
    return Mark("answers", known.tone) if known is not None and known.tone == "good" else known


def mark(state: Mapping[str, Any] | None) -> Mark | None:
    """The state of a feature as it is shown; None where it is not known."""
    if state is None:
        return None
    name = str(state["state"])
    tone = (
        "bad"
        if name in _BAD
        else "good"
        if name == "ready"
        else "quiet"
        if name in CALM
        else "warning"
    )
    is_of_files = name == "quarantined" and len(state.get("quarantine", ())) > 1
    return Mark("files left out" if is_of_files else WORDS.get(name, name), tone)


def catalogue(view: ProjectView, text: str) -> Catalogue:
    """The features and services that hold the words of a text; all for an empty one."""
    state = view.state()
    try:
        entries = view.entries()
    except StoreError as error:
        return _unread(view, state, text, str(error))
    features, services = list[Row](), list[Row]()
    for hit in search(entries.values(), text):
        where = tuple(_where(hit.matches)) if text.strip() else ()
        if isinstance(hit.entry, FeatureEntry):
            features.append(_of_feature(hit.entry, state, where))
        else:
            services.append(_of_service(hit.entry, state, where))
    awaited = () if text.strip() else _awaited(view, features)
    return Catalogue(text, tuple(features), tuple(services), awaited)


def _of_feature(entry: FeatureEntry, state: State, where: tuple[str, ...]) -> Row:
    rows = entry.cost.table_rows if entry.cost else None
    shown = mark(state.of(entry.name))
    return Row(entry.name, entry.description, shown, entry.version, rows, where=where)


def _of_service(entry: ServiceEntry, state: State, where: tuple[str, ...]) -> Row:
    shown, takes = service_mark(state.of_service(entry.name)), len(entry.features)
    return Row(
        entry.name, entry.description, shown, size=len(entry.columns), features=takes, where=where
    )


def _unread(view: ProjectView, state: State, text: str, problem: str) -> Catalogue:
    """The catalogue without the store: names and descriptions of the definitions, versions and rows that are online."""
    words = text.casefold().split()

    def is_hit(name: str, description: str) -> bool:
        return all(word in f"{name} {description}".casefold() for word in words)

    features, services = list[Row](), list[Row]()
    for name, feature in view.definitions.features.items():
        if is_hit(name, feature.description):
            known = state.of(name) or {}
            online = known.get("online_version"), known.get("online_rows")
            features.append(Row(name, feature.description, mark(state.of(name)), *online))
    for name, service in view.definitions.services.items():
        if is_hit(name, service.description):
            shown, takes = service_mark(state.of_service(name)), len(service.feature_names)
            services.append(Row(name, service.description, shown, features=takes))
    return Catalogue(text, tuple(features), tuple(services), problem=problem)


def _awaited(view: ProjectView, features: Iterable[Row]) -> tuple[str, ...]:
    """Where the features' files are dropped; none once a feature has a version."""
    if any(row.version for row in features):
        return ()
    return tuple(dict.fromkeys(place for row in features for place in view.places(row.name)))


def _where(matches: Iterable[Match]) -> Iterator[str]:
    """The places where a search found its words, by field: `columns a, b and 4 more`."""
    by_field: dict[str, list[str]] = {}
    for match in matches:
        if match.field != "name":  # which the eye finds
            by_field.setdefault(match.field, []).append(match.text)
    for field, texts in by_field.items():
        more = f" and {len(texts) - _TOLD:,} more" if len(texts) > _TOLD else ""
        yield f"{field}{'s' * (len(texts) > 1)} {', '.join(texts[:_TOLD])}{more}"


def now(view: ProjectView, seen: str | None) -> Now:
    """The moving part, as it is now; seen: the token that the reader has."""
    state = view.state()
    needs = needs_of(state.document) if state.document else []
    entries = view.recent() if state.document else []
    last = entries[0].id if entries else "0"
    features = state.document["features"] if state.document else ()
    states = [(each["feature"], each["state"], each["version"]) for each in features]
    shown = f"{needs}{states}{state.problem}{_summary(view, state, needs)}".encode()
    return Now(
        f"{last}.{zlib.crc32(shown):08x}",
        tuple(needs),
        tuple(lines(entries, seen.partition(".")[0] if seen else None)),
        _summary(view, state, needs),
        state.document is not None and not needs,
        view.live is not None,
        state.problem,
    )


def _summary(view: ProjectView, state: State, needs: list[Need]) -> str:
    """The project in a sentence or two."""
    definitions = view.definitions
    there = plural(len(definitions.features), "feature")
    if definitions.services:
        there += f" and {plural(len(definitions.services), 'service')}"
    if state.document is None:
        return f"{there}."
    workers = len(state.document["workers"])
    queued = state.document["queued"]
    at_work = [f"{plural(workers, 'worker')} {'listens' if workers == 1 else 'listen'}"]
    at_work.append(f"{queued:,} queued" if queued else "nothing is queued")
    count = len(needs)
    needed = (
        "Nothing needs you"
        if not count
        else f"{plural(count, 'thing')} {'needs' if count == 1 else 'need'} you"
    )
    return f"{needed}. {there}; {', '.join(at_work)}."
