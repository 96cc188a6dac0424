"""A small project to drop files into: what the tests of the public API share."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from mlforge import Definitions, Feature, feature
from mlforge.build.result import BuildResult
from mlforge.engines import engine_named
from mlforge.engines.events import events_of
from mlforge.metrics import Rolling
from mlforge.online.batches import AsOfView, EntitySubset, cut
from mlforge.store import LocalStore, Store

START = datetime(2026, 1, 1, tzinfo=UTC)
SPEND: dict[str, Any] = {
    "keys": ["user_id"],
    "source": "events",
    "timestamp": "at",
    "metrics": [Rolling(["2d", "7d"], {"amount": ["sum", "count"]})],
    "name": "spend",
}


def at(days: float) -> datetime:
    """An instant, in days from the start."""
    return START + timedelta(days=days)


def rows(*events: tuple[int | None, float | None, float | None]) -> pl.DataFrame:
    """Events as (user, day, amount)."""
    return pl.DataFrame(
        {
            "user_id": [user for user, _, _ in events],
            "at": [None if day is None else at(day) for _, day, _ in events],
            "amount": [amount for _, _, amount in events],
        },
        schema={"user_id": pl.Int64, "at": pl.Datetime("us", "UTC"), "amount": pl.Float64},
    )


def identity(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", "amount")


def _keeping_links() -> Callable[[str, str], None]:
    """A way to copy files in which two names of one file stay so: versions share parts by hard links."""
    first: dict[tuple[int, int], str] = {}

    def copied(source: str, target: str) -> None:
        stat = Path(source).stat()
        original = first.setdefault((stat.st_dev, stat.st_ino), target)
        if original != target:
            Path(target).hardlink_to(original)
        else:
            shutil.copy2(source, target)

    return copied


class Project:
    """A folder with sources and a store."""

    def __init__(self, root: Path, engine: str = "polars") -> None:
        self.root, self.engine = root, engine
        self.events = root / "events"
        self.events.mkdir(parents=True)
        self.store: Store = LocalStore(root / "store")

    def on(self, store: Store) -> Project:
        """The same folder with another store, as another process may have it."""
        other = copy.copy(self)
        other.store = store
        return other

    def rebuilt(self, root: Path, *features: Feature) -> Store:
        """A new store, into which what is in the folder now was built in one go."""
        fresh = self.on(LocalStore(root))
        fresh.build(*features)
        return fresh.store

    def copied(self, root: Path) -> Project:
        """The project with its store as they are now, in a new folder."""
        assert isinstance(self.store, LocalStore)
        shutil.copytree(self.root, root, dirs_exist_ok=True, copy_function=_keeping_links())
        other = self.on(
            LocalStore(root / self.store.path.relative_to(self.root), self.store.packing)
        )
        other.root, other.events = root, root / "events"
        return other

    def drop(self, name: str, frame: pl.DataFrame) -> Path:
        path = self.events / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(path)
        return path

    def define(self, function: Callable[[pl.DataFrame], Any] = identity, **changes: Any) -> Feature:
        return feature(**{**SPEND, **changes})(function)

    def definitions(self, *features: Feature, **options: Any) -> Definitions:
        return Definitions(
            store=self.store,
            features=list(features) or [self.define()],
            root=self.root,
            **{"engine": self.engine, **options},
        )

    def build(self, *features: Feature, **options: Any) -> BuildResult:
        """Build one feature, by default the usual one."""
        [result] = self.definitions(*features).build(**options).values()
        return result


def rows_to_push(project: Project, *users: int) -> pl.DataFrame:
    """Keys and values that a push would write of these users, those who have a value."""
    manifest = project.store.resolve("spend")
    view = AsOfView(events_of(project.store, manifest), manifest.as_of(10**18))
    among = EntitySubset(pl.DataFrame({"user_id": users}))
    return pl.concat(batch.rows for batch in cut(engine_named(project.engine), view, among))


def column(frame: pl.DataFrame, name: str, **keys: Any) -> list[Any]:
    """A column's values where the keys have these values."""
    return frame.filter(**keys)[name].to_list()
