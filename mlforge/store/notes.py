"""A feature's mutable notes: what is served, its books, and what its source files were seen to be."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlforge.errors import IntegrityError
from mlforge.store import files
from mlforge.store.base import Pointer
from mlforge.store.books import Audit, Books, Seen, seen_from_json, seen_to_json
from mlforge.store.folders import check_format, well_formed
from mlforge.values import Version

LATEST, BOOKS, SOURCES, AUDIT = "_latest.json", "_books.json", "_sources.json", "_audit.json"
_FORMAT = 1


def served(folder: Path) -> tuple[Pointer, Version] | None:
    """What is served, and the highest version when that was decided."""
    path = folder / LATEST
    with well_formed(path):
        document = files.read_json(path)
        if document is None:
            return None
        check_format(document, path, _FORMAT)
        version = Version.parse(document["version"])
        pointer = Pointer(version, int(document["generation"]))
        return pointer, Version.parse(document.get("highest", document["version"]))


def point(folder: Path, version: Version) -> Pointer:
    """Serve a version from now on, and raise the generation."""
    known = served(folder)
    generation = known[0].generation + 1 if known else 1
    highest = max(version, known[1]) if known else version
    content = {"version": str(version), "generation": generation, "highest": str(highest)}
    _write(folder / LATEST, content)
    return Pointer(version, generation)


def books(folder: Path) -> Books:
    """The books, empty ones where there are none."""
    path = folder / BOOKS
    with well_formed(path):
        document = files.read_json(path)
        check_format(document or {}, path, _FORMAT)
        return Books.from_json(document)


def write_books(folder: Path, kept: Books) -> None:
    """Replace the books."""
    _write(folder / BOOKS, kept.to_json())


def seen(folder: Path) -> dict[str, Seen]:
    """What was seen; it only saves work, so a damaged note is as good as none."""
    path = folder / SOURCES
    with suppress(IntegrityError), well_formed(path):
        return seen_from_json(files.read_json(path))
    return {}


def write_seen(folder: Path, now: Mapping[str, Seen]) -> None:
    """Replace what was seen."""
    files.write_json(folder / SOURCES, seen_to_json(now), durable=False)


def audit(folder: Path) -> Audit | None:
    """What the last audit found; a damaged note is as good as none: the next one makes it anew."""
    path = folder / AUDIT
    with suppress(IntegrityError), well_formed(path):
        document = files.read_json(path)
        check_format(document or {}, path, _FORMAT)
        return None if document is None else Audit.from_json(document)
    return None


def write_audit(folder: Path, found: Audit) -> None:
    """Replace what the last audit found."""
    _write(folder / AUDIT, found.to_json())


def _write(path: Path, content: Mapping[str, Any]) -> None:
    files.write_json(path, {"format": _FORMAT, **content})
