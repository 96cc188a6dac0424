"""The files that a refresh takes for there: those that its source lists, and those that count and are there though they are not listed."""

from __future__ import annotations

from dataclasses import replace

from mlforge.core.manifest import Manifest
from mlforge.sources.listing import Listing
from mlforge.sources.row_source import RowSource


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
