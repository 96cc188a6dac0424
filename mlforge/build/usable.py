"""Checks before a version is made: the store is still there, each file that counts is listed, the intake is whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from mlforge.core.manifest import Manifest
from mlforge.core.values import FEATURE
from mlforge.errors import IntegrityError, MlforgeError, SourceError, StoreError
from mlforge.ingest.intake import Intake
from mlforge.sources.listing import Listing
from mlforge.sources.row_source import RowSource
from mlforge.store import Snapshot, Store
from mlforge.store.integrity import intact


@contextmanager
def still_there(store: Store, snapshot: Snapshot) -> Iterator[None]:
    """Tell a feature that went away while it was worked on from one whose files are damaged, which is built from its sources.

    Raises StoreError for the first, which must not be begun anew, IntegrityError for the second.
    """
    try:
        with intact(snapshot.name):
            yield
    except IntegrityError as error:
        if snapshot.pointer is None or store.pointer(snapshot.name) is not None:
            raise
        raise StoreError(
            f"{snapshot.name}: all that the store held of it has vanished meanwhile; bring it back, or run this again "
            f"if it was retired or renamed ({error})"
        ) from error


def complete(listing: Listing, source: RowSource, latest: Manifest | None) -> Listing:
    """The listing, and those of its tables, with each file of the latest version that they lack though it is there.

    Raises SourceError where no answer comes.
    """
    if latest is None:
        return listing
    listing = source.with_unlisted(listing, (record.path for record in latest.sources))
    if not listing.tables:
        return listing
    sources, records = dict(source.tables), latest.tables
    tables = {
        name: sources[name].with_unlisted(table, (r.path for r in records.get(name, ())))
        for name, table in listing.tables.items()
    }
    return replace(listing, tables=tables)


def check_whole(snapshot: Snapshot, listing: Listing, intake: Intake) -> None:
    """Refuse to go on with some parts of a table: they are no files of their own, and rows would be lost or doubled."""
    table = listing.version.removeprefix(FEATURE)
    lost = sorted(listing.stats.keys() - intake.file_states.keys())
    if not intake.errors and not lost:
        return
    reason = intake.errors[0] if intake.errors else f"{lost[0]} is gone"
    stays = (
        f"{snapshot.pointer.version} goes on being served" if snapshot.pointer else "none is made"
    )
    raise SourceError(f"{snapshot.name}: no version can be made of {table}, and {stays}: {reason}")


def nothing_usable(name: str, intake: Intake) -> MlforgeError:
    """The error of a source none of whose files can be used."""
    first = intake.errors[0]
    if len(intake.errors) == 1:
        return first
    return type(first)(
        f"{first} (and {len(intake.errors) - 1} more files of {name} cannot be used)"
    )
