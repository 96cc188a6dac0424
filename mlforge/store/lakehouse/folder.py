"""Files below a local folder, or below the address of a bucket."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mlforge.store.addresses import as_path
from mlforge.store.local import io
from mlforge.store.objects.bucket import Bucket
from mlforge.store.objects.objects import ConditionFailed


@dataclass(frozen=True)
class Folder:
    """The files below an address such as `/data/events` or `s3://bucket/events`. Raises StoreError where no answer comes."""

    address: str

    def read(self, path: str) -> bytes | None:
        """The bytes of a file; None where there is none."""
        if self._is_local:
            with io.storage_errors(self._path(path)):
                try:
                    return self._path(path).read_bytes()
                except FileNotFoundError:
                    return None
        blob = self._bucket.read(path)
        return None if blob is None else blob.data

    def has(self, path: str) -> bool:
        """Whether a file is there."""
        if self._is_local:
            return self._path(path).is_file()
        return self._bucket.look(path) is not None

    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder of it, sorted; none where there is no such folder."""
        if self._is_local:
            there = self._path(folder)
            return sorted(each.name for each in there.iterdir()) if there.is_dir() else []
        keys = (entry.key for entry in self._bucket.entries(folder))
        return sorted(key.rpartition("/")[2] for key in keys)

    def write(self, path: str, data: bytes) -> None:
        """Write a file, or write it over, whole or not at all."""
        if not self._is_local:
            self._bucket.put(path, data)
            return
        place = self._made(path)
        with io.replacing(place) as temporary:
            temporary.write_bytes(data)

    def create(self, path: str, data: bytes) -> bool:
        """Write a file that is not there yet, whole or not at all; returns False where there is one already."""
        if not self._is_local:
            try:
                self._bucket.create(path, data)
            except ConditionFailed:
                return False
            return True
        return io.create(self._made(path), data)

    @cached_property
    def _bucket(self) -> Bucket:
        return Bucket(self.address)

    @property
    def _is_local(self) -> bool:
        return as_path(self.address) is None

    def _path(self, path: str) -> Path:
        return Path(self.address, path)

    def _made(self, path: str) -> Path:
        place = self._path(path)
        with io.storage_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
        return place
