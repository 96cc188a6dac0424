"""A bucket in memory, which counts requests, and can lose answers and fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from mlforge.errors import StoreError
from mlforge.store import bucket_place
from mlforge.store.objects.objects import (
    Blob,
    ConditionFailed,
    Entry,
    Level,
    NotChanged,
    Objects,
    Tag,
)

T = TypeVar("T")


class MemoryObjects(Objects):
    """Objects in a dictionary. Instances that share `stored` are clients of one server.

    before: called with the deed and the key ahead of each request, in place of which it may raise. after: called once
    the server has done it; what it raises is in place of the answer.
    """

    def __init__(self, stored: dict[str, tuple[bytes, int, int]] | None = None) -> None:
        self.url = "s3://memory/store"
        self.stored = {} if stored is None else stored
        self.requests: list[tuple[str, str, float, float]] = []
        self.before: Callable[[str, str], None] = lambda deed, key: None
        self.after: Callable[[str, str], None] = lambda deed, key: None

    def at(self, url: str) -> MemoryObjects:
        """Another address, at which nothing is."""
        other = MemoryObjects()
        other.url = url
        return other

    def read(self, key: str, unless: Tag | None = None) -> Blob | None:
        def answer() -> Blob | None:
            if key not in self.stored:
                return None
            data, state, _ = self.stored[key]
            if unless == Tag(str(state), None):
                raise NotChanged
            return Blob(data, Tag(str(state), None))

        return self._request("read", key, answer)

    def create(self, key: str, data: bytes) -> Tag:
        return self._request("create", key, lambda: self._write(key, data, None))

    def replace(self, key: str, data: bytes, expected: Tag) -> Tag:
        return self._request("replace", key, lambda: self._write(key, data, expected))

    def put(self, key: str, data: bytes | Path) -> Tag:
        content = data.read_bytes() if isinstance(data, Path) else data
        return self._request("put", key, lambda: self._store(key, content))

    def download(self, key: str, path: Path) -> bool:
        def answer() -> bool:
            if key in self.stored:
                path.write_bytes(self.stored[key][0])
            return key in self.stored

        return self._request("download", key, answer)

    def look(self, key: str) -> Entry | None:
        return self._request("look", key, lambda: self._entry(key))

    def delete(self, keys: Sequence[str]) -> None:
        def answer() -> None:
            for key in keys:
                self.stored.pop(key, None)

        if keys:
            self._request("delete", keys[0], answer)

    def entries(self, folder: str) -> list[Entry]:
        def answer() -> list[Entry]:
            start = f"{folder}/" if folder else ""
            keys = sorted(key for key in self.stored if key.startswith(start))
            return [entry for entry in map(self._entry, keys) if entry is not None]

        return self._request("list", folder, answer)

    def level(self, folder: str) -> Level:
        def answer() -> Level:
            start = f"{folder}/" if folder else ""
            below = sorted(key.removeprefix(start) for key in self.stored if key.startswith(start))
            entries = [self._entry(start + key) for key in below if "/" not in key]
            folders = sorted({start + key.partition("/")[0] for key in below if "/" in key})
            return Level([entry for entry in entries if entry is not None], folders)

        return self._request("list", folder, answer)

    _lock = threading.RLock()

    def _request(self, deed: str, key: str, answer: Callable[[], T]) -> T:
        start = time.perf_counter()
        try:
            self.before(deed, key)
            with self._lock:
                result = answer()
            self.after(deed, key)
            return result
        finally:
            self.requests.append((deed, key, start, time.perf_counter()))

    def _write(self, key: str, data: bytes, expected: Tag | None) -> Tag:
        state = self.stored[key][1] if key in self.stored else None
        if (None if state is None else Tag(str(state), None)) != expected:
            raise ConditionFailed(f"{key} is not as it was read")
        return self._store(key, data)

    def _store(self, key: str, data: bytes) -> Tag:
        state = time.time_ns()
        self.stored[key] = data, state, state // 1000
        return Tag(str(state), None)

    def _entry(self, key: str) -> Entry | None:
        if key not in self.stored:
            return None
        data, state, modified = self.stored[key]
        return Entry(key, len(data), modified, Tag(str(state), None))


_Any = TypeVar("_Any", bound=Objects)


def only_bucket(patch: pytest.MonkeyPatch, objects: _Any) -> _Any:
    """The objects, which sources find under whatever bucket's address they name."""
    patch.setattr(bucket_place, "_bucket", lambda url: objects)
    return objects


def lost_answer(deed: str, key: str) -> Callable[[str, str], None]:
    """A fault for `after`: the answer to one request of that kind is lost."""
    left = [1]

    def lose(done: str, of: str) -> None:
        if left and done == deed and of.endswith(key):
            left.clear()
            raise StoreError("the connection was reset")

    return lose
