"""The project that is measured: a source of daily files, one feature, stores."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from benchmarks.harness import Bench
from mlforge import Definitions, feature
from mlforge.features.feature import Feature
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.store import LocalStore
from mlforge.store.local.packs import Packing

NAME = "spend"
TTL_S = 7 * 86_400
WINDOWS = ("7d", "30d")
BASIC = ("sum", "mean", "count")
ALL = ("sum", "mean", "count", "min", "max", "std", "median")


def _rows(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "event_time", "amount")


def spend(
    aggregations: Sequence[str] = BASIC, interval: str | None = None, name: str = NAME
) -> Feature:
    """The feature: windows of 7 and 30 days over the amounts of a user."""
    return feature(
        name=name,
        keys=["user_id"],
        source="events/",
        timestamp="event_time",
        interval=interval,
        metrics=[Rolling(list(WINDOWS), {"amount": list(aggregations)})],
    )(_rows)


def columns(aggregations: Sequence[str] = BASIC) -> list[tuple[str, str, str]]:
    """Name, aggregation and window of each value column, in order."""
    columns = spend(aggregations).spec.columns
    return [(column.name, column.aggregation, column.window.name) for column in columns]


@dataclass(frozen=True)
class Stores:
    """A set of stores of a project; the prefix is that of its rows online."""

    definitions: Definitions
    prefix: str

    @property
    def data(self) -> Path:
        """The served table."""
        store = self.definitions.store
        pointer = store.pointer(NAME)
        assert pointer is not None
        return Path(store.location(NAME, pointer.version))

    @property
    def path(self) -> Path:
        """The offline store."""
        store = self.definitions.store
        assert isinstance(store, LocalStore)
        return store.path

    def build(self) -> None:
        """What a reference does to bring everything up: build all, push all."""
        self.definitions.refresh(NAME, full=True)
        self.definitions.push(NAME)

    def remove(self) -> None:
        """Take the stores away."""
        assert self.definitions.online_store is not None
        self.definitions.online_store.drop(NAME)
        self.definitions.close()
        shutil.rmtree(self.path)


@dataclass(frozen=True)
class Place:
    """Where stores of a project are, and what it computes: all that another process needs to open them."""

    root: Path
    path: Path
    url: str
    prefix: str
    aggregations: tuple[str, ...]
    interval: str | None
    engine: str

    def stores(self) -> Stores:
        """The stores."""
        what = spend(self.aggregations, self.interval)
        return stores_at(self.root, self.path, self.url, self.prefix, what, self.engine)


@dataclass(frozen=True)
class Project:
    """A source, and the feature over it; each call of `stores` gives it fresh ones."""

    bench: Bench
    folder: Path
    feature: Feature
    aggregations: tuple[str, ...] = BASIC
    interval: str | None = None

    @classmethod
    def over(
        cls,
        bench: Bench,
        files: Iterable[Path],
        aggregations: Sequence[str] = BASIC,
        interval: str | None = None,
    ) -> Project:
        """A project whose source holds these files, by hard links."""
        folder = bench.new_folder("project")
        (folder / "events").mkdir()
        for file in files:
            os.link(file, folder / "events" / file.name)
        what = spend(aggregations, interval)
        return cls(bench, folder, what, tuple(aggregations), interval)

    @property
    def source(self) -> Path:
        """Where its files are."""
        return self.folder / "events"

    def stores(self, engine: str | None = None) -> Stores:
        """Empty stores for it."""
        path = self.bench.new_folder("store")
        return stores_at(
            self.folder, path, self.bench.url, path.name, self.feature, engine or self.bench.engine
        )

    def place(self, stores: Stores, engine: str) -> Place:
        """Where stores of the project are, to be opened with an engine."""
        return Place(
            self.folder,
            stores.path,
            self.bench.url,
            stores.prefix,
            self.aggregations,
            self.interval,
            engine,
        )


def stores_at(root: Path, path: Path, url: str, prefix: str, what: Feature, engine: str) -> Stores:
    """The stores of a project, wherever they are."""
    online = RedisStore.from_url(url, ttl=TTL_S, prefix=prefix)
    store = LocalStore(path, Packing(grace_s=1))  # a run is shorter than the time that is usual
    return Stores(Definitions(store, [what], online, engine, root=root), prefix)
