"""Values that the contract of offline stores is told with: events, a partial, a manifest, a published version."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.manifest import ChangeSummary, Manifest, Partial
from mlforge.core.metrics import MetricColumn
from mlforge.core.schema import Column
from mlforge.core.time_model import Window
from mlforge.core.values import Duration, TimeRange, Version
from mlforge.frames.digest import digest
from mlforge.store import Pointer, Store, TablePiece, Transaction

FIRST, SECOND, THIRD = Version(1, 0, 0), Version(1, 0, 1), Version(1, 1, 0)
EVENTS = (Column("user", "Int64"), Column("at", "Datetime(us, UTC)"), Column("x", "Float64"))
SPEC = FeatureSpec(
    name="spend",
    keys=("user",),
    timestamp="at",
    interval=None,
    columns=(MetricColumn("x", "sum", Window(Duration.parse("7d"), None, "both")),),
)


def events(*users: int) -> pl.DataFrame:
    """An event a user, a microsecond apart."""
    instants = pl.Series("at", range(len(users)), dtype=pl.Int64)
    return pl.DataFrame({"user": users, "at": instants, "x": [float(user) for user in users]}).cast(
        {"user": pl.Int64, "at": pl.Datetime("us", "UTC"), "x": pl.Float64}
    )


def partial_of(frame: pl.DataFrame, name: str = "a1") -> Partial:
    """A description that is true of the frame."""
    times = TimeRange(0, frame.height - 1) if frame.height else None
    return Partial(name, frame.height, times, EVENTS, {"null_key": 2}, digest(frame))


def described(version: Version, name: str = "spend") -> Manifest:
    """The manifest of a version without parts and partials."""
    return Manifest(
        spec=replace(SPEC, name=name),
        events=EVENTS,
        columns=EVENTS,
        code_hash="c0de",
        partials=(),
        engine="polars",
        rowwise=True,
        version=version,
        change=ChangeSummary("patch", "data_refresh", ("2 rows",), {"rows_changed": 2}),
        created_at=1_700_000_000_000_000,
    )


def version_of(
    tx: Transaction, version: Version, rows: pl.DataFrame, name: str = "spend", **changes: Any
) -> Manifest:
    """Write a table of one part; returns its manifest."""
    parts = tx.write_table([TablePiece(rows, TimeRange(0, 9))])
    return replace(described(version, name), parts=parts, **changes)


def publish(
    store: Store, version: Version, *users: int, name: str = "spend", **changes: Any
) -> Pointer:
    """Publish a version as a refresh does."""
    with store.open(name) as snapshot, store.transaction(snapshot) as tx:
        return tx.commit(version_of(tx, version, events(*users), name, **changes))


class StoreFixtures:
    """Stores to test; `store` is an empty one, `again` opens the same one anew, on any machine."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        raise NotImplementedError

    def again(self, store: Store) -> Store:
        raise NotImplementedError

    def beside(self, store: Store) -> Store:
        """The store opened anew on the machine of `store`, with whose caches and locks it works."""
        return self.again(store)

    def read_location(self, location: str) -> pl.DataFrame:
        """The rows at a `location`, as a tool reads them that has the store's credentials."""
        return pl.read_parquet(location)
