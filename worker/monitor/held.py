"""The present state of a held feature's source: the reason in the books is of the moment when the hold began."""

from __future__ import annotations

from mlforge.build.broken_locks import FOR_A_LOCK
from mlforge.build.drifting import FOR_DRIFT
from mlforge.core.manifest import Manifest
from mlforge.errors import MlforgeError
from mlforge.store import Books
from worker.project import Project
from worker.supervision import FAULTS


def held_now(project: Project, name: str, manifest: Manifest | None, books: Books) -> str | None:
    """The present state of a held feature's source: the reason in the books is of the moment when the hold began.

    None where it is not held, or is by a person, for a lock or drift, with which lost files have nothing to do. Never raises for a
    fault of the source, which is its state.
    """
    hold = books.hold
    if hold is None or books.by_person or hold.startswith((FOR_A_LOCK, FOR_DRIFT)):
        return None
    if manifest is None or not manifest.sources:
        return None
    try:
        source = project.definitions.source(name)
        listing = source.scan()
    except MlforgeError as error:
        return str(error)
    except FAULTS as error:
        return f"its source cannot be listed: {type(error).__name__}: {error}"
    if not listing.exists:
        return source.absence(listing)
    there = listing.stats.keys()
    missing = sum(record.path not in there for record in manifest.sources)
    if missing:
        return f"{missing:,} of the {len(manifest.sources):,} files of {manifest.version} are not there now"
    aside = sum(record.path in books.quarantine for record in manifest.sources)
    if aside:
        return (
            f"{aside:,} of the {len(manifest.sources):,} files of {manifest.version} are there and set aside: once they, or "
            "those that differ from them, are mended, the hold ends by itself"
        )
    return (
        f"all {len(manifest.sources):,} files of {manifest.version} are there now: "
        f"`mlforge approve {name}` goes on with them"
    )
