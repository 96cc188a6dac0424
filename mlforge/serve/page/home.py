"""The first page: what needs a person, what happens, and all that there is."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlforge.core.text import plural
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
    """A feature or a service of the catalogue. where: the texts in which a search found its words."""

    entry: FeatureEntry | ServiceEntry
    mark: Mark | None
    where: tuple[str, ...] = ()


@dataclass(frozen=True)
class Catalogue:
    """Features and services, all or those that a search found. awaited: where the first files are dropped that all of them wait for."""

    text: str
    features: tuple[Row, ...]
    services: tuple[Row, ...]
    awaited: tuple[str, ...] = ()


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
    hits = search(view.entries().values(), text)
    rows = [
        Row(
            hit.entry,
            _mark(state, hit.entry),
            tuple(_where(hit.matches)) if text.strip() else (),
        )
        for hit in hits
    ]
    return Catalogue(
        text,
        tuple(row for row in rows if isinstance(row.entry, FeatureEntry)),
        tuple(row for row in rows if isinstance(row.entry, ServiceEntry)),
        () if text.strip() else _awaited(view, rows),
    )


def _awaited(view: ProjectView, rows: Iterable[Row]) -> tuple[str, ...]:
    """Where the features' files are dropped; none once a feature has a version."""
    entries = [row.entry for row in rows if isinstance(row.entry, FeatureEntry)]
    if any(entry.version for entry in entries):
        return ()
    return tuple(dict.fromkeys(place for entry in entries for place in view.places(entry.name)))


def _where(matches: Iterable[Match]) -> Iterator[str]:
    """The places where a search found its words, by field: `columns a, b and 4 more`."""
    by_field: dict[str, list[str]] = {}
    for match in matches:
        if match.field != "name":  # which the eye finds
            by_field.setdefault(match.field, []).append(match.text)
    for field, texts in by_field.items():
        more = f" and {len(texts) - _TOLD:,} more" if len(texts) > _TOLD else ""
        yield f"{field}{'s' * (len(texts) > 1)} {', '.join(texts[:_TOLD])}{more}"


def _mark(state: State, entry: FeatureEntry | ServiceEntry) -> Mark | None:
    if isinstance(entry, FeatureEntry):
        return mark(state.of(entry.name))
    return service_mark(state.of_service(entry.name))


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
