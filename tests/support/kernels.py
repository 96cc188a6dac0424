"""Forces engines, pushes and ingestion onto ways, and over seams, that small data would never take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from mlforge.build import looking
from mlforge.engines import Engine, duckdb_engine
from mlforge.engines.kernels import fixed_point, point_windows, segments_kernel
from mlforge.engines.tiles import build, by_entity, held, sets, totals
from mlforge.frames import polars_schema
from mlforge.ingest import small_files as module_of_small_files
from mlforge.online import batches, chunks
from mlforge.sources import read_ahead
from mlforge.store import entity_index, resident
from mlforge.store.local import manifest_chunks, reading_plans

WAYS: Mapping[str, Mapping[str, bool]] = {
    "as it comes": {},
    "general": {"general": True},
    "tiled": {"tiled": True},
    "point by point": {"points": True},
}
"""How an engine may evaluate: small data alone would take the first way always."""


@contextmanager
def forced(
    *,
    general: bool = False,
    tiled: bool = False,
    indexed: bool = False,
    points: bool = False,
    events_at_once: int | None = None,
    small_pushes: bool = False,
    lasting: bool = False,
    small_files: bool = False,
) -> Iterator[None]:
    """Within the block.

    general: no fixed point, no lists, ranks over the whole line, as with data too wide or too long for the others. tiled: tiles for all that
    is aligned, however few and thin the events. indexed: beside these no values are held, and what few entities have is looked up in the index
    of entities, over its seams. points: windows looked up at the points, however many those
    are, and gathered over seams. events_at_once: as of an engine.
    small_pushes: a push of a handful of rows goes through every seam. lasting: events that are resident stay so, however
    many have come and gone since, and entities are looked up among them, however few there are. small_files: files are
    read ahead two at a time, and made events of three at a time, however few there are; where a refresh is told which changed, it
    looks at these alone, what is read of packs is planned from what it was before, and lists of files lie in pieces.
    """
    with pytest.MonkeyPatch.context() as patch:
        if general:
            patch.setattr(fixed_point, "_ROOM", 0)
            patch.setattr(duckdb_engine, "_LIST_ROWS", -1)
            patch.setattr(segments_kernel, "_OVERLAP", dict.fromkeys(segments_kernel._OVERLAP, -1))
            patch.setattr(duckdb_engine, "_OVERLAP", dict.fromkeys(duckdb_engine._OVERLAP, -1))
            patch.setattr(polars_schema, "_LISTED", 0)
            patch.setattr(polars_schema, "_FEW", 0)
        if tiled:
            patch.setattr(build, "DENSE", 0)
            patch.setattr(build, "FEWEST", 0)
            patch.setattr(totals, "_settled", lambda newest: newest)
            patch.setattr(totals, "_OVERDUE_US", 0)
            patch.setattr(totals, "_AT_ONCE", 7)
            patch.setattr(held, "MOST_HELD", 4)
            patch.setattr(held, "SPARE", 0)
            patch.setattr(held, "GAIN", 0)
            patch.setattr(sets, "GAIN", 0)
            patch.setattr(held, "EVENTS", 0)
        if indexed:
            patch.setattr(held, "GAIN", 1_000_000)
            patch.setattr(by_entity, "AT_ONCE", 7)
            patch.setattr(by_entity, "STALE", 4)
            patch.setattr(by_entity, "OVERDUE", 4)
            patch.setattr(entity_index, "FEW", 0)
            patch.setattr(entity_index, "LEAST", 0)
        if points:
            patch.setattr(Engine, "rows_a_point", 0)
            patch.setattr(point_windows, "SLICED_ROWS", 3)
            patch.setattr(point_windows, "GATHERED_ROWS", 4)
        if events_at_once is not None:
            patch.setattr(Engine, "events_at_once", events_at_once)
        if small_pushes:
            patch.setattr(batches, "EVENTS_HELD", 5)
            patch.setattr(chunks, "ENCODED_AT_ONCE", 3)
            patch.setattr(chunks, "CHUNK", 2)
        if lasting:
            patch.setattr(resident, "_STALE", 0)
            patch.setattr(resident, "_FEW", 0)
        if small_files:
            patch.setattr(looking, "MANY_FILES", 0)
            patch.setattr(reading_plans, "MANY", 0)
            patch.setattr(read_ahead, "_FEW_FILES", 1)
            patch.setattr(read_ahead, "_RUN_FILES", 2)
            for name, few in (
                ("_INLINE", 2),
                ("_AT_ONCE", 2),
                ("_VERY_MANY", 1),
                ("_LONG_BYTES", 1),
            ):
                patch.setattr(manifest_chunks, name, few)
            patch.setattr(module_of_small_files, "_MOST_FILES", 3)
            patch.setattr(module_of_small_files, "_FEW_FILES", 1)
        yield
