"""The offline store in a local folder.

    feature_store/
      user_spend/
        1.0.0/  data.parquet  .meta.json
        _latest.json                     {"version": "1.0.0", "generation": 1}
        _partials/<hash>.parquet         the events that versions consist of
        _books.json  _sources.json       mutable notes: quarantine, holds, what files were last seen
      _metadata/manifest.json            an index of all features, for people

A version is written into a hidden sibling, synced, and renamed into place; only then does
`_latest.json` change. A crash leaves the version before served and a hidden folder that the next
writer removes.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import polars as pl

from mlforge.errors import DefinitionError, FeatureNotFound, StoreError, VersionConflict
from mlforge.failpoints import reach
from mlforge.manifest import Manifest, Partial, partial_from_json, partial_to_json
from mlforge.store import files
from mlforge.store.base import Pointer, Store
from mlforge.store.books import Books, Seen, seen_from_json, seen_to_json
from mlforge.values import Version, check_name

META = ".meta.json"
DATA = "data.parquet"
_STAGE = ".staged-"
_DESCRIPTION = "mlforge.partial"
_ROW_GROUP = 65_536


class LocalStore(Store):
    """A folder on a local disk, made when it is first written to."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._given = Path(path).expanduser()
        self.path = self._given.absolute()

    def located_at(self, folder: Path) -> LocalStore:
        """The store that a relative path means in a definitions file of that folder."""
        return LocalStore(folder / self._given)

    def __repr__(self) -> str:
        return f"LocalStore({str(self.path)!r})"

    def features(self) -> list[str]:
        """Names of the features that have a published version, sorted."""
        if not self.path.is_dir():
            return []
        return sorted(
            p.parent.name
            for p in self.path.glob("*/_latest.json")
            if not p.parent.name.startswith((".", "_"))
        )

    def versions(self, name: str) -> list[Version]:
        """Whole versions, ascending."""
        found = []
        with suppress(FileNotFoundError, NotADirectoryError):
            for entry in os.scandir(self._folder(name)):
                with suppress(StoreError):
                    found.append(Version.parse(entry.name))
        return sorted(found)

    def pointer(self, name: str) -> Pointer | None:
        """What `_latest.json` says."""
        document = files.read_json(self._folder(name) / "_latest.json")
        if document is None:
            return None
        return Pointer(Version.parse(document["version"]), int(document["generation"]))

    def manifest(self, name: str, version: Version) -> Manifest:
        """Read `.meta.json`."""
        path = self._version(name, version) / META
        document = files.read_json(path)
        if document is None:
            if not self.versions(name):
                raise FeatureNotFound(self._unknown(name))
            raise self._no_version(name, version)
        return Manifest.from_json(document, str(path))

    def data(self, name: str, version: Version) -> Path:
        """`<feature>/<version>/data.parquet`: a file, or a folder once it is large."""
        return self._version(name, version) / DATA

    def partial(self, name: str, hash_: str) -> Path:
        """`<feature>/_partials/<hash>.parquet`."""
        if not hash_.isalnum():
            raise StoreError(f"{name}: {hash_!r} is not a partial's hash")
        return self._folder(name) / "_partials" / f"{hash_}.parquet"

    def find_partial(self, name: str, hash_: str) -> Partial | None:
        """Read the description that a partial carries in its own metadata."""
        path = self.partial(name, hash_)
        if not path.is_file():
            return None
        return partial_from_json(json.loads(pl.read_parquet_metadata(path)[_DESCRIPTION]))

    def write_partial(self, name: str, partial: Partial, frame: pl.DataFrame) -> None:
        """Write it under its hash, whole or not at all."""
        path = self.partial(name, partial.hash)
        with files.storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as temporary:
            frame.write_parquet(
                temporary,
                compression="lz4",
                row_group_size=_ROW_GROUP,
                metadata={_DESCRIPTION: json.dumps(partial_to_json(partial))},
            )

    def partials(self, name: str) -> list[str]:
        """What lies in `_partials`."""
        return sorted(path.stem for path in (self._folder(name) / "_partials").glob("*.parquet"))

    def remove_partial(self, name: str, hash_: str) -> None:
        """Delete the file."""
        self.partial(name, hash_).unlink(missing_ok=True)

    def remove(self, name: str, version: Version) -> None:
        """Take the folder out of sight in one step, then delete it."""
        hidden = self._folder(name) / f"{_STAGE}{uuid.uuid4().hex}"
        path = self._version(name, version)
        with files.storage_errors(path):
            path.rename(hidden)
            shutil.rmtree(hidden)

    def check_manifest(self, manifest: Manifest) -> list[str]:
        """Compare the hashes that the document states with those of what it says."""
        assert manifest.version is not None
        stated = files.read_json(self._version(manifest.name, manifest.version) / META)
        found = manifest.to_json()
        hashes = ("content_hash", "schema_hash", "config_hash", "rows_hash", "row_count")
        return [
            f"{META}: {key} does not fit what it says"
            for key in hashes
            if stated[key] != found[key]
        ]

    @contextmanager
    def stage(self, name: str) -> Iterator[Path]:
        """A hidden sibling of the versions."""
        staged = self._folder(name) / f"{_STAGE}{uuid.uuid4().hex}"
        with files.storage_errors(staged):
            staged.mkdir(parents=True)
        try:
            with files.storage_errors(staged):
                yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def publish(self, staged: Path, manifest: Manifest, expected: Pointer | None) -> Pointer:
        """Sync, rename, point."""
        version = manifest.version
        assert version is not None
        name, target = manifest.name, self._version(manifest.name, version)
        with files.storage_errors(target):
            (staged / META).write_text(
                json.dumps(manifest.to_json(), indent=1) + "\n", encoding="utf-8"
            )
            for path in (*staged.rglob("*"), staged):
                files.sync(path)
            reach("publish.staged")
            with self._exclusive(name, ".publishing"):
                if self.pointer(name) != expected:
                    raise VersionConflict(f"{name}: another publisher was faster; refresh again")
                if target.exists():
                    raise VersionConflict(
                        f"{name}: version {version} exists; versions are never overwritten"
                    )
                staged.rename(target)
                files.sync(target.parent)
                reach("publish.renamed")
                pointer = self._point(name, version, expected)
        reach("publish.pointed")
        self._index(name, manifest)
        return pointer

    def serve(self, name: str, version: Version) -> Pointer:
        """Point at an existing version."""
        self.manifest(name, version)
        with self._exclusive(name, ".publishing"):
            return self._point(name, version, self.pointer(name))

    def recover(self, name: str) -> None:
        """Finish or undo what a killed writer left: call with the lock held.

        A pointer behind the highest whole version is moved there, unless the feature is held.
        """
        for litter in self._folder(name).glob(f"{_STAGE}*"):
            shutil.rmtree(litter, ignore_errors=True)
        for litter in (
            *self._folder(name).glob(".*.json.*"),
            *self._folder(name).glob("_partials/.*"),
        ):
            litter.unlink(missing_ok=True)
        versions, pointer = self.versions(name), self.pointer(name)
        behind = versions and (pointer is None or pointer.version < versions[-1])
        if behind and self.books(name).hold is None:
            self._point(name, versions[-1], pointer)
            self._index(name, self.manifest(name, versions[-1]))

    def books(self, name: str) -> Books:
        """Read `_books.json`."""
        return Books.from_json(files.read_json(self._folder(name) / "_books.json"))

    def write_books(self, name: str, books: Books) -> None:
        """Replace `_books.json`."""
        self._write(name, "_books.json", books.to_json())

    def seen(self, name: str) -> dict[str, Seen]:
        """Read `_sources.json`."""
        return seen_from_json(files.read_json(self._folder(name) / "_sources.json"))

    def write_seen(self, name: str, seen: Mapping[str, Seen]) -> None:
        """Replace `_sources.json`."""
        self._write(name, "_sources.json", seen_to_json(seen))

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """An advisory lock on the feature's folder; what a killed writer left is put right first."""
        with self._exclusive(name, ".refreshing"):
            self.recover(name)
            yield

    def regenerate_index(self) -> list[str]:
        """Write `_metadata/manifest.json` anew from the versions; returns the features listed."""
        entries = {
            name: self._entry(manifest)
            for name in self.features()
            if (manifest := self.latest(name))
        }
        self._write_index(entries)
        return sorted(entries)

    def index(self) -> dict[str, dict[str, Any]]:
        """What `_metadata/manifest.json` lists."""
        document = files.read_json(self.path / "_metadata" / "manifest.json") or {"features": {}}
        return dict(document["features"])

    def _point(self, name: str, version: Version, before: Pointer | None) -> Pointer:
        pointer = Pointer(version, before.generation + 1 if before else 1)
        self._write(
            name, "_latest.json", {"version": str(version), "generation": pointer.generation}
        )
        return pointer

    def _write(self, name: str, document: str, content: Any) -> None:
        path = self._folder(name) / document
        with files.storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, content)

    def _index(self, name: str, manifest: Manifest) -> None:
        with self._exclusive("", ".indexing"):
            document = files.read_json(self.path / "_metadata" / "manifest.json") or {
                "features": {}
            }
            self._write_index({**document["features"], name: self._entry(manifest)})

    def _write_index(self, entries: Mapping[str, Any]) -> None:
        path = self.path / "_metadata" / "manifest.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, {"features": dict(sorted(entries.items()))})

    @staticmethod
    def _entry(manifest: Manifest) -> dict[str, Any]:
        document = manifest.to_json()
        return {
            key: document[key]
            for key in (
                "version",
                "row_count",
                "entity_keys",
                "timestamp",
                "interval",
                "updated_at",
                "content_hash",
            )
        }

    @contextmanager
    def _exclusive(self, name: str, lock: str) -> Iterator[None]:
        folder = self._folder(name) if name else self.path
        with files.storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder / lock, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _folder(self, name: str) -> Path:
        try:
            return self.path / check_name(name)
        except DefinitionError as error:
            raise StoreError(str(error)) from error

    def _version(self, name: str, version: Version) -> Path:
        return self._folder(name) / str(version)
