"""Long lists of a feature's manifests, in pieces that versions share.

A list is cut behind certain hashes of partials, not at counts, so a file that comes or goes changes
one piece and leaves the others as they are. A piece is stored once, under the hash of its text; and a
process that keeps its `Pieces` makes and understands each once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlforge.errors import IntegrityError
from mlforge.manifest import (
    Lists,
    Manifest,
    Partial,
    SourceRecord,
    events_of,
    partial_entry,
    partial_from_json,
    source_entry,
    source_from_json,
)
from mlforge.schema import Schema
from mlforge.store import files
from mlforge.store.folders import no_link, well_formed

LISTS = ("partials", "sources")
_INLINE = 100
_PIECE = 64
_HASH = re.compile(r"[0-9a-f]{64}")

_Used = tuple[Partial, int]
_Piece = tuple[_Used, ...] | tuple[SourceRecord, ...]


class Pieces:
    """The pieces of a feature's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._events: Schema = ()
        self._known: dict[str, _Piece] = {}
        self._names: dict[tuple[int, ...], str] = {}

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return no_link(self._folder)

    def written(self, manifest: Manifest) -> dict[str, Any]:
        """The manifest's document; each long list is written in pieces, and their names stand for it."""
        self._understand(manifest.events)
        document, names = manifest.head(), dict[tuple[int, ...], str]()
        used: dict[str, _Piece] = {}
        partials, sources = manifest.counted(), manifest.sources
        there = self._there() if max(len(partials), len(sources)) > _INLINE else set()

        def pieces(cut: Iterable[_Piece], entry: Callable[[Any], Any]) -> list[str]:
            written = []
            for piece in cut:
                identity = _identity(piece)
                name = self._names.get(identity)
                if name is None or name not in there:
                    name = self._write(piece, entry)
                used[name], names[identity] = piece, name
                written.append(name)
            return written

        def partial_json(one: _Used) -> dict[str, Any]:
            return partial_entry(*one, manifest.events)

        if len(partials) <= _INLINE:
            document["partials"] = [partial_json(one) for one in partials]
        else:
            cut = pieces(_cut(partials, [one.hash for one, _ in partials]), partial_json)
            document["partials"] = {"count": len(partials), "pieces": cut}
        if len(sources) <= _INLINE:
            document["sources"] = [source_entry(record) for record in sources]
        else:
            cut = pieces(_cut(sources, [record.partial for record in sources]), source_entry)
            document["sources"] = {"count": len(sources), "pieces": cut}
        if used:
            files.sync(self.folder)
            self._known, self._names = used, names
        return document

    def lists(self, document: Mapping[str, Any]) -> Lists | None:
        """The lists that pieces stand for in a document; None if none do.

        Raises IntegrityError if one is missing or damaged.
        """
        if not named(document):
            return None
        events = events_of(document)
        self._understand(events)
        used: dict[str, _Piece] = {}

        def used_partial(entry: Mapping[str, Any]) -> _Used:
            return partial_from_json(entry, events), entry["uses"]

        def entries(key: str, understood: Callable[[Mapping[str, Any]], Any]) -> list[Any]:
            if not isinstance(document[key], dict):
                return [understood(entry) for entry in document[key]]
            found: list[Any] = []
            for name in document[key]["pieces"]:
                piece = self._known.get(name)
                used[name] = piece = self._read(name, understood) if piece is None else piece
                found += piece
            return found

        read = Lists(entries("partials", used_partial), entries("sources", source_from_json))
        self._known = used
        self._names = {_identity(piece): name for name, piece in used.items()}
        return read

    def sweep(self, documents: Iterable[Mapping[str, Any]]) -> None:
        """Delete the pieces that no document names."""
        needed = {piece for document in documents for piece in named(document)}
        for name in self._there() - needed:
            (self.folder / f"{name}.json").unlink()

    def _understand(self, events: Schema) -> None:
        """What an entry leaves out is in the manifest: its events' columns."""
        if events != self._events:
            self._events, self._known, self._names = events, {}, {}

    def _there(self) -> set[str]:
        with suppress(FileNotFoundError):
            return {name.removesuffix(".json") for name in os.listdir(self.folder)}  # noqa: PTH208 - a tenth of the time
        return set()

    def _write(self, piece: _Piece, entry: Callable[[Any], Any]) -> str:
        lines = (json.dumps(entry(one), sort_keys=True) for one in piece)
        text = "[\n" + ",\n".join(lines) + "\n]\n"
        name = hashlib.sha256(text.encode()).hexdigest()
        self.folder.mkdir(exist_ok=True)
        if not (self.folder / f"{name}.json").exists():
            with files.replacing(self.folder / f"{name}.json", folder=False) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return name

    def _read(self, name: str, understood: Callable[[Mapping[str, Any]], Any]) -> _Piece:
        if _HASH.fullmatch(str(name)) is None:
            raise IntegrityError(
                f"{self._folder}: {name!r} is not the name of a piece of a lineage"
            )
        path = self.folder / f"{name}.json"
        entries = files.read_json(path)
        if entries is None or files.hash_file(path) != name:
            raise IntegrityError(f"{path} is missing or damaged; restore it from a backup")
        with well_formed(path):
            return tuple(understood(entry) for entry in entries)


def named(document: Mapping[str, Any]) -> set[str]:
    """The pieces that a document consists of."""
    lists = (document.get(key) for key in LISTS)
    return {piece for entries in lists if isinstance(entries, dict) for piece in entries["pieces"]}


def _cut(entries: Sequence[Any], names: Sequence[str]) -> list[_Piece]:
    last = {f"{number:02x}" for number in range(0, 256, _PIECE)}
    ends = [place for place, name in enumerate(names, 1) if name[-2:] in last]
    starts = [0, *ends]
    cut = (tuple(entries[a:b]) for a, b in zip(starts, [*ends, len(entries)], strict=True))
    return [piece for piece in cut if piece]


def _identity(piece: _Piece) -> tuple[int, ...]:
    """What tells that a piece is one that is known: the same things, which it keeps alive."""
    if isinstance(piece[0], tuple):
        things, uses = zip(*piece, strict=True)
        return (*map(id, things), *uses)
    return tuple(map(id, piece))
