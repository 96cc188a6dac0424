"""Long lists of a feature's manifests, in pieces that versions share.

A list is cut behind certain hashes of partials, not at counts, so a file that comes or goes changes
one piece and leaves the others as they are. A piece is stored once, under the hash of its text; and a
process that keeps its `Pieces` makes and understands each once.
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import polars as pl

from mlforge.core.list_diff import alike
from mlforge.core.manifest import Manifest, Partial, SourceRecord
from mlforge.core.schema import Schema
from mlforge.core.side_by_side import each_ahead
from mlforge.errors import IntegrityError
from mlforge.frames.shared_results import once
from mlforge.store.local import io, piece_columns
from mlforge.store.local.looked_up import LookedUp
from mlforge.store.local.paths import entries_of, no_link, well_formed
from mlforge.store.manifest_json import Lists, head
from mlforge.store.partial_json import (
    each_partial_from_json,
    each_source_from_json,
    events_of,
    partial_to_json,
    source_to_json,
)

LISTS = ("partials", "sources")
_HASH_OF, _PARTIAL_OF = attrgetter("hash"), attrgetter("partial")
_INLINE = 100
_PIECE = 64
_AT_ONCE = 256  # pieces that are understood together
_VERY_MANY = 2 * _AT_ONCE  # take longer than threads to wake
_LONG_BYTES = 1 << 20  # of texts take longer one by one than a plan of polars does
_HASH, _SUFFIX = re.compile(r"[0-9a-f]{64}"), ".json"

_Piece = tuple[Partial, ...] | tuple[SourceRecord, ...]
_Named = list[tuple[str, _Piece]]
_text = json.JSONEncoder(sort_keys=True).encode


@dataclass(frozen=True, slots=True)
class _Cut:
    """A list as it was last written or read: its entries, its pieces, and lines of entries in it by their identity."""

    entries: Sequence[Any] = ()
    pieces: _Named = field(default_factory=list)
    lines: Mapping[int, str] = field(default_factory=dict)


_Read = tuple[dict[str, bytes], pl.DataFrame | None]


@dataclass(frozen=True, slots=True)
class _Kind:
    """The entries of a list: as columns, of which items are made, or as JSON has them."""

    dtypes: piece_columns.Dtypes
    of_columns: Callable[[pl.DataFrame], Sequence[Any]]
    of_entries: Callable[[Sequence[Any]], Sequence[Any]]

    def pieces(self, read: _Read) -> dict[str, _Piece]:
        """The items of pieces, by their names."""
        texts, columns = read
        if columns is not None:
            items = iter(self.of_columns(columns))
            return {n: tuple(islice(items, piece_columns.length(t))) for n, t in texts.items()}
        entries = {
            name: [*io.parsed_json(text, f"{name}{_SUFFIX}")] for name, text in texts.items()
        }
        items = iter(self.of_entries([entry for piece in entries.values() for entry in piece]))
        return {name: tuple(islice(items, len(piece))) for name, piece in entries.items()}


_SOURCES = _Kind(piece_columns.SOURCES, piece_columns.sources_of, each_source_from_json)
_Cuts = dict[str, _Cut]
"""By the name of the list."""


@dataclass(frozen=True, slots=True)
class _NewPieces:
    """The stored pieces, and by name the texts of those to write."""

    stored: LookedUp
    texts: dict[str, str] = field(default_factory=dict)

    def add(self, lines: Iterable[str]) -> str:
        """The name of the piece of these lines."""
        text = "[\n" + ",\n".join(lines) + "\n]\n"
        name = hashlib.sha256(text.encode()).hexdigest()
        if name not in self.stored:
            self.texts[name] = text
        return name


@dataclass(frozen=True, slots=True)
class _Written:
    """A manifest's lists, as its document holds them."""

    partials: Sequence[Partial]
    sources: Sequence[SourceRecord]
    events: Schema
    lists: dict[str, Any]

    def is_of(self, manifest: Manifest) -> bool:
        """Whether they are these very lists."""
        is_same = self.partials is manifest.partials and self.sources is manifest.sources
        return is_same and self.events is manifest.events


class ManifestChunks:
    """The pieces of a feature's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._of_events: tuple[Schema, _Cuts] = ((), {})
        self._last: _Written | None = None

    @property
    def folder(self) -> Path:
        """The folder of a feature's pieces."""
        return no_link(self._folder)

    def written(self, manifest: Manifest) -> dict[str, Any]:
        """The manifest's document, with the names of written pieces in place of each long list.

        The caller syncs the folder.
        """
        last, self._last = self._last, None
        if last is None or not last.is_of(manifest):
            last = self._written(manifest)
        return head(manifest) | last.lists

    def write_lists(self, manifest: Manifest) -> None:
        """Write the pieces of a manifest's long lists; the next call of `written` takes them, if they are its lists."""
        self._last = self._written(manifest)

    def _written(self, manifest: Manifest) -> _Written:
        """The lists as the document holds them, with all pieces written."""
        cuts = self._cuts_of(manifest.events)

        def partial_json(partial: Partial) -> dict[str, Any]:
            return partial_to_json(partial, manifest.events)

        partials, sources = manifest.partials, manifest.sources
        if max(len(partials), len(sources)) <= _INLINE:
            lists: dict[str, Any] = once(
                "lists of a manifest",
                lambda: (tuple(partials), tuple(sources), manifest.events),
                lambda: {
                    "partials": io.JsonText.of([*map(partial_json, partials)]),
                    "sources": io.JsonText.of([*map(source_to_json, sources)]),
                },
            )
            return _Written(partials, sources, manifest.events, lists)
        pieces = _NewPieces(self._there())
        lists = {
            "partials": _listed(cuts, "partials", partials, _HASH_OF, partial_json, pieces),
            "sources": _listed(cuts, "sources", sources, _PARTIAL_OF, source_to_json, pieces),
        }
        self._write(pieces.texts)
        return _Written(partials, sources, manifest.events, lists)

    def lists(self, document: Mapping[str, Any]) -> Lists | None:
        """The lists that a document names by their pieces; None if it names none.

        Raises IntegrityError if a piece is missing or damaged.
        """
        if not named(document):
            return None
        events = events_of(document)
        cuts = self._cuts_of(events)

        partials = _Kind(
            piece_columns.PARTIALS,
            lambda columns: piece_columns.partials_of(columns, events),
            lambda entries: each_partial_from_json(entries, events),
        )
        return Lists(
            self._entries(cuts, "partials", document["partials"], partials),
            self._entries(cuts, "sources", document["sources"], _SOURCES),
        )

    def _entries(
        self,
        cuts: _Cuts,
        key: str,
        listed: Any,
        kind: _Kind,
    ) -> Sequence[Any]:
        """The entries of a list, or of the pieces that a document names in its place; those that are new are understood together."""
        if not isinstance(listed, dict):
            return kind.of_entries(listed)
        known = dict(_cut_before(cuts, key).pieces)
        names = listed["pieces"]
        new = [name for name in dict.fromkeys(names) if name not in known]
        # Threads read columns while items are made of those before.
        in_turn = each_ahead if len(new) >= _VERY_MANY else map
        for read in in_turn(partial(_with_columns, kind.dtypes), self._read(new)):
            with well_formed(self._folder):
                known |= kind.pieces(read)
        cut: _Named = [(name, known[name]) for name in names]
        entries = [item for _, piece in cut for item in piece]
        cuts[key] = _Cut(entries, cut)
        return entries

    def sweep(self, documents: Iterable[Mapping[str, Any]]) -> None:
        """Delete the pieces that no document names, and what a killed writer of an earlier release left half-written: call with the feature's lock held."""
        needed = {f"{piece}{_SUFFIX}" for document in documents for piece in named(document)}
        for entry in entries_of(self.folder):
            is_one = entry.name.startswith(".") or _HASH.fullmatch(entry.name.removesuffix(_SUFFIX))
            if is_one and entry.name not in needed:
                Path(entry.path).unlink(missing_ok=True)

    def _cuts_of(self, events: Schema) -> _Cuts:
        """The lists of manifests with these columns of events, which their entries leave out; a thread may write some while others are read."""
        of_events = self._of_events
        if of_events[0] != events:
            of_events = self._of_events = events, {}
        return of_events[1]

    def _there(self) -> LookedUp:
        return LookedUp(self.folder, _SUFFIX, _HASH, self._names)

    def _names(self) -> dict[str, bool]:
        entries = entries_of(self._folder)
        return {entry.name.removesuffix(_SUFFIX): entry.is_symlink() for entry in entries}

    def _write(self, texts: Mapping[str, str]) -> None:
        """Write pieces under their names, synced together; what is half-written lies in the feature's folder, which a recovery lists anyway."""
        if texts:
            folder = self.folder
            with io.storage_errors(folder):
                folder.mkdir(exist_ok=True)
            by_path = {folder / f"{name}{_SUFFIX}": text for name, text in texts.items()}
            io.write_texts(by_path, beside=folder.parent)

    def _read(self, names: Sequence[str]) -> Iterator[dict[str, bytes]]:
        """The texts of pieces by name, of some pieces at a time.

        Raises IntegrityError for one that is missing or damaged.
        """
        folder = self.folder if names else self._folder
        for start in range(0, len(names), _AT_ONCE):
            some = names[start : start + _AT_ONCE]
            yield {name: _text_of(folder, name) for name in some}


def _listed(
    cuts: _Cuts,
    key: str,
    entries: Sequence[Any],
    name_of: Callable[[Any], str],
    entry: Callable[[Any], dict[str, Any]],
    new: _NewPieces,
) -> list[Any] | dict[str, Any]:
    """A list as the document holds it: the entries, or the names of its pieces, of which `new` takes those to write."""
    if len(entries) <= _INLINE:
        cuts.pop(key, None)
        return [entry(item) for item in entries]
    before = _cut_before(cuts, key)
    kept, length = _begun(before.pieces, alike(before.entries, entries))
    known = {tuple(map(id, piece)): name for name, piece in before.pieces[len(kept) :]}
    new_pieces = _cut(entries[length:], name_of)
    cut = [*kept, *((known.get(tuple(map(id, piece)), ""), piece) for piece in new_pieces)]
    lost = {name for name, _ in cut if name not in new.stored}
    absent = [item for name, piece in cut if name in lost for item in piece]
    lines = {id(item): before.lines.get(id(item)) or _text(entry(item)) for item in absent}
    pieces = [
        (new.add(lines[id(item)] for item in piece) if name in lost else name, piece)
        for name, piece in cut
    ]
    cuts[key] = _Cut(entries, pieces, lines)
    return {"count": len(entries), "pieces": [name for name, _ in pieces]}


def _cut_before(cuts: _Cuts, key: str) -> _Cut:
    """The list as it was last written or read."""
    return cuts.get(key, _Cut())


def _with_columns(dtypes: piece_columns.Dtypes, texts: dict[str, bytes]) -> _Read:
    """Pieces, with the columns of their entries where it pays to have them and they can be had."""
    is_long = sum(map(len, texts.values())) >= _LONG_BYTES
    return texts, piece_columns.columns([*texts.values()], dtypes) if is_long else None


def _text_of(folder: Path, name: str) -> bytes:
    """The text of a piece."""
    if _HASH.fullmatch(str(name)) is None:
        raise IntegrityError(f"{folder}: {name!r} is not the name of a piece of a lineage")
    path = f"{folder}/{name}{_SUFFIX}"
    content = io.read_bytes(path)
    if content is None or hashlib.sha256(content).hexdigest() != name:
        raise IntegrityError(f"{path} is missing or damaged; restore it from a backup")
    return content


def named(document: Mapping[str, Any]) -> set[str]:
    """The pieces that a document consists of."""
    lists = (document.get(key) for key in LISTS)
    return {piece for entries in lists if isinstance(entries, dict) for piece in entries["pieces"]}


def _begun(cut: _Named, length: int) -> tuple[_Named, int]:
    """The finished pieces within the first `length` entries, and their total length; the last piece may still grow."""
    ends = list(accumulate(len(piece) for _, piece in cut))
    count = bisect_right(ends[:-1], length)
    return cut[:count], ends[count - 1] if count else 0


def _cut(entries: Sequence[Any], name_of: Callable[[Any], str]) -> list[_Piece]:
    last = {f"{number:02x}" for number in range(0, 256, _PIECE)}
    ends = [place for place, item in enumerate(entries, 1) if name_of(item)[-2:] in last]
    starts = [0, *ends]
    cut = (tuple(entries[a:b]) for a, b in zip(starts, [*ends, len(entries)], strict=True))
    return [piece for piece in cut if piece]
