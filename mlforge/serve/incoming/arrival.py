"""How far a drop has come: on the disk, in a version of each feature that reads it, readable online."""

from __future__ import annotations

from typing import Any

from mlforge.core import time_model
from mlforge.core.manifest import Manifest
from mlforge.core.values import Version, to_iso
from mlforge.definitions.registry import Definitions
from mlforge.errors import FeatureNotFound, VersionNotFound, without_owners
from mlforge.online import OnlineStore
from mlforge.serve.incoming.places import Folder

WAITING, BUILT, READABLE = "waiting", "built", "readable"
QUARANTINED, HELD = "quarantined", "held"
_SETTLED = (READABLE, QUARANTINED, HELD)


def arrival(
    definitions: Definitions, online: OnlineStore, folder: Folder, drop: str
) -> dict[str, Any]:
    """The state of a drop in each feature that reads its folder; `done` once a person or nobody has to do with it.

    A feature's state is waiting, built (a version has the rows, and is not served yet), readable, quarantined or held. Readable rows that
    no window counts yet, as those of an interval that is not over, have the instant from which they all count.
    """
    features = {name: _state(definitions, online, folder, drop, name) for name in folder.readers}
    done = all(state["state"] in _SETTLED for state in features.values())
    return {"drop": drop, "source": folder.name, "done": done, "features": features}


def _state(
    definitions: Definitions, online: OnlineStore, folder: Folder, drop: str, name: str
) -> dict[str, Any]:
    store = definitions.store
    path = definitions.source(name).path_of(folder.file(drop)) or ""
    served, as_of = _served(definitions, online, name)
    if served is not None and _has(served, path, folder.file(drop).as_posix()):
        return {"state": READABLE, "version": str(served.version), **_later(served, path, as_of)}
    books = store.books(name)
    if path in books.quarantine:
        reason = without_owners(books.quarantine[path].reason, name, path)
        return {"state": QUARANTINED, "reason": reason}
    if books.hold:
        return {"state": HELD, "reason": str(books.hold)}
    latest = store.latest(name)
    if latest is not None and _has(latest, path, folder.file(drop).as_posix()):
        return {"state": BUILT, "version": str(latest.version)}
    return {"state": WAITING}


def _served(
    definitions: Definitions, online: OnlineStore, name: str
) -> tuple[Manifest | None, int | None]:
    """The version whose rows are online and their `as_of`; None where there is none, or the store has it no longer."""
    books = online.books(name)
    if books is None or books.target is None:
        return None, None
    try:
        version = Version.parse(books.target.version)
        return definitions.store.manifest(name, version), books.target.as_of
    except (FeatureNotFound, VersionNotFound):
        return None, None


def _later(manifest: Manifest, path: str, as_of: int | None) -> dict[str, Any]:
    """The instant from which all events of a file count, where that is after `as_of`."""
    interval = manifest.spec.interval
    ends = [
        time_model.row_point(record.times.end, interval)
        for record in manifest.sources
        if record.path == path and record.times
    ]
    later = [end for end in ends if as_of is not None and end > as_of]
    return {"counts_from": to_iso(max(later))} if later else {}


def _has(manifest: Manifest, path: str, absolute: str) -> bool:
    """Whether a version was made with a file, of the source's or of a table's."""
    if any(record.path == path for record in manifest.sources):
        return True
    tables = manifest.tables.values()
    return any(absolute.endswith(f"/{record.path}") for files in tables for record in files)
