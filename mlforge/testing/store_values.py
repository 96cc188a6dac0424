"""Values that the contract of offline stores is told with: events, a partial, a manifest, a published version."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge.core.expression.columns import Derived
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.manifest import ChangeSummary, Manifest, Partial, SourceRecord, TableRecord
from mlforge.core.metrics import MetricColumn
from mlforge.core.schema import Column
from mlforge.core.time_model import Window, length_named
from mlforge.core.values import Duration, TimeRange, Version
from mlforge.frames.digest import digest
from mlforge.store import Pointer, Store, TablePiece, Transaction
from mlforge.testing.every_field import differ_in_every_field

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


def in_full(manifest: Manifest) -> Manifest:
    """The manifest with something in each of its fields, and in those of its spec."""
    day = Duration.parse("1d")
    spec = FeatureSpec(
        name=manifest.name,
        keys=("user", "ä card"),
        timestamp="at",
        interval=Duration.parse("1h"),
        columns=(
            MetricColumn("x", "last_3", Window(Duration.parse("7d"), day, "left"), where="ok"),
            MetricColumn("x", "p99_9", Window(length_named("all"), None, "left")),
            MetricColumn("x", "sum", Window(length_named("mtd"), None, "left")),
        ),
        online_clock="wall",
        derived=(Derived("half", "x__sum__mtd / 2"),),
    )
    full = replace(
        manifest,
        spec=spec,
        engine="duckdb",
        rowwise=False,
        columns=(*EVENTS, Column("x__p99_9__all", "Float64", "p99_9", "all", narrow=True)),
        sources=(
            SourceRecord("ä b/#%.parquet", 10, 17, "aa", 2, TimeRange(0, 1), "a1"),
            SourceRecord("b.parquet", 0, 18, "bb", 0, None, "b2"),
        ),
        change=ChangeSummary("minor", "logic_changed", ("ä",), {"files": [1, None], "x": {"y": 2}}),
        parent=Version(0, 9, 9),
        source="transactions/",
        why="the whole source is one",
        mlforge_version="1.2.3",
        frontier=(1_699_999_999_999_999, 1_900_000_000_000_000),
        tables={"merchants": (TableRecord("dim/ä.parquet", 7, 19, "cc"),), "none": ()},
        table_sources={"merchants": ("dim/",)},
    )
    given = ("events", "code_hash", "partials", "version", "parts", "created_at")
    assert differ_in_every_field(full, manifest, *given)
    assert differ_in_every_field(spec, SPEC, "name", "timestamp")
    return full


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

    def damage(self, file: str, hash_: str) -> None:
        """Change bytes amid a stored file, of the partial or part with this hash, as a failing disk does."""
        path = Path(file)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.chmod(0o644)
        path.write_bytes(content)
