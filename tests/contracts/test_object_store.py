"""The store in a bucket: the shared contract over objects in memory, and what is its own."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from mlforge.store import ObjectStore, Store
from mlforge.testing.store_contract import StoreContract
from tests.support.objects import MemoryObjects

URL = "s3://memory/store"


def opened(objects: MemoryObjects, cache: Path) -> ObjectStore:
    return ObjectStore(URL, cache, grace="1ms", objects=objects)


class TestObjectStore(StoreContract):
    """All on one machine."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        self.objects, self.cache = MemoryObjects(), tmp_path / "cache"
        return opened(self.objects, self.cache)

    def again(self, store: Store) -> Store:
        return opened(self.objects, self.cache)

    def read_location(self, location: str) -> pl.DataFrame:
        return pl.read_parquet(self.objects.stored[location.removeprefix(f"{URL}/")][0])


class TestObjectStoreOfManyMachines(TestObjectStore):
    """Each time that the store is opened again it is on another machine, whose cache is empty."""

    def again(self, store: Store) -> Store:
        self.machines = getattr(self, "machines", 0) + 1
        return opened(MemoryObjects(self.objects.stored), self.cache / str(self.machines))

    def beside(self, store: Store) -> Store:
        assert isinstance(store, ObjectStore)
        return opened(MemoryObjects(self.objects.stored), store.cache.parent)
