"""Long lists of a manifest in pieces that versions share.

A list is cut where the names in it say so, not at counts, so a file that comes or goes changes one
piece and leaves the others as they are. A piece is stored once, under the hash of its text.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# The lists that grow with the number of files, and what names an entry.
LISTS = {"sources": "path", "partials": "hash"}
_INLINE = 500
_PIECE = 128


def packed(document: Mapping[str, Any], write: Callable[[str, str], None]) -> dict[str, Any]:
    """The document with each long list replaced by the names of its pieces.

    write: called with a piece's name and text; the same name always has the same text.
    """
    short = dict(document)
    for key, name in LISTS.items():
        entries = sorted(document[key], key=lambda entry: str(entry[name]))
        if len(entries) <= _INLINE:
            continue
        pieces = []
        for piece in _cut(entries, name):
            text = (
                "[\n" + ",\n".join(json.dumps(entry, sort_keys=True) for entry in piece) + "\n]\n"
            )
            pieces.append(hashlib.sha256(text.encode()).hexdigest())
            write(pieces[-1], text)
        short[key] = {"count": len(entries), "pieces": pieces}
    return short


def unpacked(document: Mapping[str, Any], read: Callable[[str], Any]) -> dict[str, Any]:
    """The document with its lists whole again; `read` gives a piece's entries."""
    whole = dict(document)
    for key in LISTS:
        if isinstance(document.get(key), dict):
            whole[key] = [entry for piece in document[key]["pieces"] for entry in read(piece)]
    return whole


def named(document: Mapping[str, Any]) -> set[str]:
    """The pieces that a document consists of."""
    lists = (document.get(key) for key in LISTS)
    return {piece for entries in lists if isinstance(entries, dict) for piece in entries["pieces"]}


def _cut(entries: Sequence[Mapping[str, Any]], name: str) -> list[list[Mapping[str, Any]]]:
    pieces: list[list[Mapping[str, Any]]] = [[]]
    for entry in entries:
        pieces[-1].append(entry)
        if zlib.crc32(str(entry[name]).encode()) % _PIECE == 0:
            pieces.append([])
    return [piece for piece in pieces if piece]
