"""A feature's versions as the snapshots of a Delta or Iceberg table, for readers that know no store.

A table has a file for each part, so that an export which is run again writes new parts only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq

from mlforge.core import clock
from mlforge.core.failpoints import reach
from mlforge.core.logs import get_logger
from mlforge.core.manifest import Manifest, Part
from mlforge.core.values import Version
from mlforge.errors import StoreError, UnsupportedStore
from mlforge.store import ExportNote, Store
from mlforge.store.apart import check_beside, check_in_no_store
from mlforge.store.integrity import intact
from mlforge.store.lakehouse.target import Target, Written
from mlforge.store.lakehouse.types import in_a_table

log = get_logger(__name__)
_STORE, _FEATURE = "mlforge.store", "mlforge.feature"
_VERSION, _NEWEST = "mlforge.version", "mlforge.newest"


@dataclass(frozen=True, slots=True)
class Exported:
    """The versions that became snapshots, in their order, and how many files were written for them."""

    versions: tuple[Version, ...]
    files: int


def export(
    store: Store,
    name: str,
    target: Target,
    told: Callable[[Version], None] = lambda version: None,
) -> Exported:
    """Write each version that the table does not have yet as a snapshot; the last snapshot is the served version.

    told: called after each snapshot. The store notes which tables there are, for lineage. Raises FeatureNotFound, UnsupportedStore for a table
    that is no export of this feature, or a place within a store or around this one,
    DataError for a column that such tables do not have, VersionConflict where somebody else writes to it.
    """
    store.list_versions(name)
    check_in_no_store(target.address)
    if store.address is not None:
        check_beside(target.address, store.address)
    identity = store.identity()
    assert identity is not None
    written = target.written()
    _check(store, name, written)
    versions: list[Version] = []
    files = 0
    for version in _due(store, name, written):
        newest = max(version, _noted(written) or version)
        notes = {_STORE: identity.id, _FEATURE: name, _VERSION: str(version), _NEWEST: str(newest)}
        with store.lease(name, version):
            manifest = store.manifest(name, version)
            added = _snapshot(store, manifest, target, written, notes)
        if added is None:
            continue
        reach("export.written")
        told(version)
        versions.append(version)
        files += added
        written = target.written()
    _note(store, name, str(target), written)
    return Exported(tuple(versions), files)


def _note(store: Store, name: str, table: str, written: Written | None) -> None:
    """Note in the store which version a table is by now; a store that takes no notes fails no export."""
    note = ExportNote(written.notes[_VERSION] if written else "", clock.now())
    try:
        known = store.books(name).exports.get(table)
        if known is not None and known.version == note.version:
            return
        with store.lock(name):
            books = store.books(name)
            store.write_books(name, replace(books, exports={**books.exports, table: note}))
    except StoreError as error:
        log.warning("export not noted for lineage", feature=name, table=table, error=str(error))


def _due(store: Store, name: str, written: Written | None) -> list[Version]:
    """Versions above all that were exported, then the served one: files tell whether that is there already."""
    newest, served = _noted(written), store.pointer(name)
    due = [v for v in store.versions(name) if newest is None or v > newest]
    if served is not None and (not due or due[-1] != served.version):
        due.append(served.version)
    return due


def _snapshot(
    store: Store,
    manifest: Manifest,
    target: Target,
    written: Written | None,
    notes: Mapping[str, str],
) -> int | None:
    """Add a version as a snapshot; returns how many files came, None where the table is that version already."""
    assert manifest.version is not None
    paths = store.files(manifest.name, manifest.version, manifest.parts)
    before = written.files if written else frozenset()
    with intact(manifest.name):
        schema = in_a_table(pq.read_schema(paths[0]), manifest.name)
        names = _names(target, manifest.parts, schema)
        if written and before == {*names} and written.notes.get(_VERSION) == notes[_VERSION]:
            return None
        came = [
            target.put(file, _rows(path, schema))
            for file, path in zip(names, paths, strict=True)
            if file not in before
        ]
    reach("export.files_written")
    target.commit(schema, came, before - {*names}, notes)
    return len(came)


def _names(target: Target, parts: Sequence[Part], schema: pa.Schema) -> list[str]:
    """A file's name for each part, numbered where several are alike."""
    seen: Counter[str] = Counter()
    names = []
    for part in parts:
        number = seen[part.hash]
        seen[part.hash] += 1
        names.append(target.name_of(f"{part.hash}-{number}" if number else part.hash, schema))
    return names


def _rows(path: str, schema: pa.Schema) -> pa.Table:
    return pq.read_table(path, partitioning=None).cast(schema)


def _check(store: Store, name: str, written: Written | None) -> None:
    """Refuse a table of somebody else's."""
    if written is None:
        return
    notes, identity = written.notes, store.identity()
    if not notes:
        raise UnsupportedStore(
            f"{name}: the table there was not made by an export, and its rows would go; name a place where there is none"
        )
    former = store.renames().now(notes.get(_FEATURE, ""))
    if former != name or identity is None or notes.get(_STORE) != identity.id:
        raise UnsupportedStore(
            f"{name}: the table there is an export of {notes.get(_FEATURE)} from the store {notes.get(_STORE)}; name another place"
        )


def _noted(written: Written | None) -> Version | None:
    """The highest version that was exported."""
    text = written.notes.get(_NEWEST) if written else None
    return Version.parse(text) if text else None
