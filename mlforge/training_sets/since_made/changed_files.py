"""The files by which two versions of a feature differ, named as people name them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from mlforge.core.manifest import Manifest
from mlforge.errors import MlforgeError, VersionNotFound
from mlforge.sources.place import Place
from mlforge.store import Store


class _Record(Protocol):
    """A file as a version saw it."""

    @property
    def path(self) -> str: ...
    @property
    def hash(self) -> str: ...


def changed_paths(before: Manifest, after: Manifest) -> dict[str, str]:
    """The names of the source files that only one of two versions has, or that have other bytes, by their paths there.

    Empty for a feature whose events are not those of single files: one that is made from another feature, or that sees
    its whole source at once.
    """
    if not (before.rowwise and after.rowwise) or before.upstream or after.upstream:
        return {}
    prefix = _folder(after.source)
    return {path: prefix + path for path in _differing(before.sources, after.sources)}


def changed_files(store: Store, before: Manifest, after: Manifest) -> tuple[str, ...]:
    """The files to name where a changed event's own file is not known, or is what it was.

    Those of tables (`<table>: <path>`) and, for a feature that sees its whole source, of the source; of one that is made
    from another feature, all files by which the other's versions differ. Where nothing else is known, the other
    feature and its version. Each once, in order.
    """
    return tuple(dict.fromkeys(_changed(store, before, after)))


def _changed(store: Store, before: Manifest, after: Manifest) -> Iterator[str]:
    for table in sorted({*before.tables, *after.tables}):
        records = before.tables.get(table, ()), after.tables.get(table, ())
        yield from (f"{table}: {path}" for path in _differing(*records))
    if before.upstream or after.upstream:
        yield from _changed_upstream(store, before, after)
    elif not (before.rowwise and after.rowwise):
        prefix = _folder(after.source)
        yield from (prefix + path for path in _differing(before.sources, after.sources))


def _changed_upstream(store: Store, before: Manifest, after: Manifest) -> Iterator[str]:
    if before.upstream == after.upstream:
        return
    if before.upstream is None or after.upstream is None or before.upstream[0] != after.upstream[0]:
        yield after.source
        return
    name = after.upstream[0]
    try:
        then, now = (store.manifest(name, m.upstream[1]) for m in (before, after) if m.upstream)
    except VersionNotFound:
        yield after.source
        return
    prefix = _folder(now.source)
    if not (then.upstream or now.upstream):
        yield from (prefix + path for path in _differing(then.sources, now.sources))
    yield from _changed(store, then, now)


def _differing(before: Iterable[_Record], after: Iterable[_Record]) -> list[str]:
    """The paths that only one side has, or that have other bytes."""
    sides = [{(record.path, record.hash) for record in records} for records in (before, after)]
    return sorted({path for path, _ in sides[0] ^ sides[1]})


def _folder(source: str) -> str:
    """The folder of a source's paths, as the source was written, with a slash; empty where paths are whole already."""
    if ", " in source:
        return ""
    try:
        return Place.of(source, Path(), alone=False).prefix
    except MlforgeError:
        return ""
