"""Search: entries whose names, columns or words hold all words of a text, the likeliest first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mlforge.registry.entries import FeatureEntry, ServiceEntry

Entry = FeatureEntry | ServiceEntry


@dataclass(frozen=True, slots=True)
class Match:
    """A text of an entry that holds a word of the search: which field it is, and for a column's description whose."""

    field: str
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry and where it holds the words."""

    entry: Entry
    matches: tuple[Match, ...]


_RANKS = ("name", "column", "description", "tag", "owner", "key", "source")


def search(entries: Iterable[Entry], text: str) -> list[Hit]:
    """The entries that hold every word of a text somewhere, whatever its case; by rank of the field, then by name."""
    words = text.casefold().split()
    hits = [hit for entry in entries if (hit := _hit(entry, words)) is not None]
    return sorted(hits, key=lambda hit: (_rank(hit, words), hit.entry.kind, hit.entry.name))


def _hit(entry: Entry, words: list[str]) -> Hit | None:
    texts = list(_texts(entry))
    if not all(any(word in match.text.casefold() for match in texts) for word in words):
        return None
    holding = [match for match in texts if any(word in match.text.casefold() for word in words)]
    return Hit(entry, tuple(dict.fromkeys(holding)))


def _rank(hit: Hit, words: list[str]) -> tuple[bool, int]:
    exact = hit.entry.name.casefold() == " ".join(words)
    return not exact, min((_RANKS.index(match.field) for match in hit.matches), default=0)


def _texts(entry: Entry) -> Iterator[Match]:
    yield Match("name", entry.name)
    for column in entry.columns:
        words = f": {column.description}" if column.description else ""
        yield Match("column", f"{column.name}{words}")
    yield Match("description", entry.description)
    yield Match("owner", entry.owner)
    for key in entry.keys:
        yield Match("key", key)
    if isinstance(entry, FeatureEntry):
        yield from (Match("tag", tag) for tag in entry.tags)
        yield from (Match("source", source) for source in entry.sources)
    else:
        yield from (Match("column", f"{column.name} (request)") for column in entry.request)
