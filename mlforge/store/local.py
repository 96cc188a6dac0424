"""The offline store in a local folder.

    feature_store/
      user_spend/
        1.0.0/  data.parquet  .meta.json
        _latest.json                     {"version": "1.0.0", "generation": 1, ...}
        _partials/<hash>.parquet         the events that versions consist of
        _lineage/<hash>.json             pieces of long lists of files, shared between versions
        _books.json  _sources.json       mutable notes: quarantine, holds, what files were last seen
        _audit.json                      another: what the last audit found
      _metadata/manifest.json            an index of all features, for people

A version is written into a hidden sibling, synced, and renamed into place; only then does
`_latest.json` change. A crash leaves the version before served and a hidden folder that the next
writer removes. A whole version above the `highest` that `_latest.json` knows of is one that a crash
kept from being served; one below may have been rolled back from.

No name, link or document in it leads outside the folder: a link is refused.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import polars as pl

from mlforge.errors import (
    DefinitionError,
    IntegrityError,
    StoreError,
    UnsupportedStore,
    VersionConflict,
)
from mlforge.failpoints import reach
from mlforge.manifest import (
    Manifest,
    Partial,
    check_format,
    config_of,
    partial_from_json,
    partial_to_json,
)
from mlforge.store import chunks, files, staging
from mlforge.store.base import Pointer, Store
from mlforge.store.books import Audit, Books, Seen, seen_from_json, seen_to_json
from mlforge.values import Version, check_name, to_iso

META = ".meta.json"
DATA = "data.parquet"
_LATEST, _BOOKS, _SOURCES, _AUDIT = "_latest.json", "_books.json", "_sources.json", "_audit.json"
_PARTIALS, _LINEAGE = "_partials", "_lineage"
_DESCRIPTION = "mlforge.partial"
_HASH = re.compile(r"[0-9A-Za-z]{1,100}")
_ROW_GROUP = 65_536
_INDEX_FORMAT = 1
_NOTE_FORMAT = 1
_REMEMBERED = 8


class LocalStore(Store):
    """A folder on a local disk, made when it is first written to."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._given = Path(path).expanduser()
        self.path = self._given.absolute()
        self._manifests: dict[tuple[str, int, int, int], Manifest] = {}

    def located_at(self, folder: Path) -> LocalStore:
        """The store that a relative path means in a definitions file of that folder."""
        return LocalStore(folder / self._given)

    def __repr__(self) -> str:
        return f"LocalStore({str(self.path)!r})"

    def features(self) -> list[str]:
        """Names of the features that have a published version, sorted."""
        found = []
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.path) as entries:
            for entry in entries:
                with suppress(StoreError):
                    if (self._folder(entry.name) / _LATEST).is_file():
                        found.append(entry.name)
        return sorted(found)

    def versions(self, name: str) -> list[Version]:
        """Whole versions, ascending."""
        found, folder = [], self._folder(name)
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
            for entry in entries:
                with suppress(StoreError):
                    version = Version.parse(entry.name)
                    if (self._version(name, version) / META).is_file():
                        found.append(version)
        return sorted(found)

    def pointer(self, name: str) -> Pointer | None:
        """What `_latest.json` says."""
        known = self._known(name)
        return None if known is None else known[0]

    def manifest(self, name: str, version: Version) -> Manifest:
        """Read `.meta.json`, once while it stays as it is: a refresh and a push ask several times."""
        path = self._version(name, version) / META
        self._partials(name)
        try:
            state = _state(path)
        except (FileNotFoundError, NotADirectoryError):
            if not self.versions(name):
                raise self._not_found(name) from None
            raise self._no_version(name, version) from None
        known = self._manifests.get(state)
        if known is None:
            known = self._read_manifest(name, version, path)
            self._remember(path, known)
        return known

    def _remember(self, path: Path, manifest: Manifest) -> None:
        while len(self._manifests) >= _REMEMBERED:
            self._manifests.pop(next(iter(self._manifests)), None)
        self._manifests[_state(path)] = manifest

    def _read_manifest(self, name: str, version: Version, path: Path) -> Manifest:
        document = files.read_json(path)
        if document is None:
            raise self._no_version(name, version)
        check_format(document, str(path))
        with _well_formed(path):
            document = chunks.unpacked(document, functools.partial(self._piece, name))
        manifest = Manifest.from_json(document, str(path))
        if (manifest.name, manifest.version) != (name, version):
            raise IntegrityError(
                f"{path} is that of {manifest.name} {manifest.version}; restore it from a backup"
            )
        return manifest

    def data(self, name: str, version: Version) -> Path:
        """`<feature>/<version>/data.parquet`: a file, or a folder once it is large."""
        path = self._version(name, version) / DATA
        with suppress(NotADirectoryError, FileNotFoundError), os.scandir(_no_link(path)) as parts:
            for part in parts:
                _no_link(path / part.name)
        return path

    def partial(self, name: str, hash_: str) -> Path:
        """`<feature>/_partials/<hash>.parquet`."""
        if _HASH.fullmatch(hash_) is None:
            raise StoreError(f"{name}: {hash_!r} is not a partial's hash")
        # A version names thousands; the folders above were looked at when it was read.
        return _no_link(Path(f"{self.path}/{_checked(name)}/{_PARTIALS}/{hash_}.parquet"))

    def find_partial(self, name: str, hash_: str) -> Partial | None:
        """Read the description that a partial carries in its own metadata."""
        path = self.partial(name, hash_)
        if not path.is_file():
            return None
        try:
            found = partial_from_json(json.loads(pl.read_parquet_metadata(path)[_DESCRIPTION]))
        except (
            pl.exceptions.PolarsError,
            pl.exceptions.PanicException,
            KeyError,
            TypeError,
            ValueError,
        ):
            return None  # damaged: whoever asked makes it anew
        return found if found.hash == hash_ else None

    def write_partial(self, name: str, partial: Partial, frame: pl.DataFrame) -> None:
        """Write it under its hash, whole or not at all."""
        path = self.partial(name, partial.hash)
        with files.storage_errors(path):
            self._partials(name).mkdir(exist_ok=True)
        with files.replacing(path) as temporary:
            frame.write_parquet(
                temporary,
                compression="lz4",
                row_group_size=_ROW_GROUP,
                metadata={
                    _DESCRIPTION: json.dumps(partial_to_json(partial)),
                    files.CHECKSUM: files.UNSEALED,
                },
            )
            files.seal(temporary)
        reach("partial.written")

    def partials(self, name: str) -> list[str]:
        """What lies in `_partials`."""
        with suppress(FileNotFoundError), os.scandir(self._partials(name)) as found:
            return sorted(
                entry.name.removesuffix(".parquet")
                for entry in found
                if _HASH.fullmatch(entry.name.removesuffix(".parquet"))
                and entry.is_file(follow_symlinks=False)
            )
        return []

    def check_partial(self, name: str, hash_: str) -> str | None:
        """Compare the file with the checksum within it."""
        path = self.partial(name, hash_)
        if not path.is_file():
            return "is missing"
        return None if files.is_sealed(path) else "is not what was written: its bytes have changed"

    def remove_partial(self, name: str, hash_: str) -> None:
        """Delete the file."""
        path = self.partial(name, hash_)
        self._partials(name)
        with files.storage_errors(path):
            path.unlink(missing_ok=True)

    def remove(self, name: str, version: Version) -> None:
        """Take the folder out of sight in one step, then delete it."""
        hidden = self._folder(name) / staging.new_name()
        path = self._version(name, version)
        self.manifest(name, version)
        with self._exclusive(name, ".publishing"):
            pointer = self.pointer(name)
            if pointer is not None and pointer.version == version:
                raise StoreError(f"{name} {version} is served and cannot be removed")
            with files.storage_errors(path):
                path.rename(hidden)
        reach("remove.hidden")
        with files.storage_errors(path):
            shutil.rmtree(hidden)
            self._sweep(name)

    def check_manifest(self, manifest: Manifest) -> list[str]:
        """Compare the hashes that the document states with those of what it says."""
        assert manifest.version is not None
        stated = files.read_json(self._version(manifest.name, manifest.version) / META)
        found = manifest.to_json()
        hashes = ("content_hash", "schema_hash", "config_hash", "rows_hash", "row_count")
        return [
            f"{META}: {key} does not fit what it says"
            for key in hashes
            if stated.get(key) != found[key]
        ]

    @contextmanager
    def stage(self, name: str) -> Iterator[Path]:
        """A hidden sibling of the versions."""
        staged = self._folder(name) / staging.new_name()
        with files.storage_errors(staged):
            staged.mkdir()
        try:
            with files.storage_errors(staged):
                reach("stage.made")
                yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def publish(self, staged: Path, manifest: Manifest, expected: Pointer | None) -> Pointer:
        """Sync, rename, point."""
        version = manifest.version
        assert version is not None
        name, target = manifest.name, self._version(manifest.name, version)
        with files.storage_errors(target):
            document = chunks.packed(manifest.to_json(), functools.partial(self._write_piece, name))
            (staged / META).write_text(files.json_text(document), encoding="utf-8")
            for path in (*staged.rglob("*"), staged):
                files.sync(path)
            reach("publish.staged")
            with self._exclusive(name, ".publishing"):
                if self.pointer(name) != expected:
                    raise VersionConflict(f"{name}: another publisher was faster; refresh again")
                if os.path.lexists(target):
                    raise VersionConflict(
                        f"{name}: version {version} exists; versions are never overwritten"
                    )
                try:
                    staged.rename(target)
                except FileExistsError as error:  # another host does not see this one's locks
                    raise VersionConflict(f"{name}: version {version} exists by now") from error
                except OSError as error:
                    if error.errno != errno.ENOTEMPTY:
                        raise
                    raise VersionConflict(f"{name}: version {version} exists by now") from error
                files.sync(target.parent)
                self._remember(target / META, manifest)
                reach("publish.renamed")
                pointer = self._point(name, version)
        reach("publish.pointed")
        self._index(name, manifest)
        reach("publish.indexed")
        return pointer

    def serve(self, name: str, version: Version) -> Pointer:
        """Point at an existing version."""
        manifest = self.manifest(name, version)
        with self._exclusive(name, ".publishing"):
            pointer = self._point(name, version)
        self._index(name, manifest)
        return pointer

    def recover(self, name: str) -> None:
        """Finish or undo what a killed writer left: call with the lock held.

        A version that was made but never served is served now, unless the feature is held.
        """
        folder = self._folder(name)
        with self._exclusive(name, ".publishing"):
            for litter in folder.glob(f"{staging.PREFIX}*"):
                if staging.is_litter(litter):
                    shutil.rmtree(litter, ignore_errors=True)
            for litter in (*folder.glob(".*.json.*"), *self._partials(name).glob(".*")):
                litter.unlink(missing_ok=True)
            versions, known = self.versions(name), self._known(name)
            unserved = versions and (known is None or known[1] < versions[-1])
            if unserved and self.books(name).hold is None:
                self._point(name, versions[-1])
        served = self.pointer(name)
        if served is not None and self._indexed(name) != str(served.version):
            self._index(name, self.manifest(name, served.version))

    def books(self, name: str) -> Books:
        """Read `_books.json`."""
        path = self._folder(name) / _BOOKS
        with _well_formed(path):
            document = files.read_json(path)
            _check_note(document or {}, path)
            return Books.from_json(document)

    def write_books(self, name: str, books: Books) -> None:
        """Replace `_books.json`."""
        self._write(name, _BOOKS, books.to_json())
        reach("books.written")

    def seen(self, name: str) -> dict[str, Seen]:
        """Read `_sources.json`; it only saves work, so a damaged one is as good as none."""
        path = self._folder(name) / _SOURCES
        with suppress(IntegrityError), _well_formed(path):
            return seen_from_json(files.read_json(path))
        return {}

    def write_seen(self, name: str, seen: Mapping[str, Seen]) -> None:
        """Replace `_sources.json`."""
        files.write_json(self._folder(name) / _SOURCES, seen_to_json(seen), durable=False)
        reach("seen.written")

    def audit(self, name: str) -> Audit | None:
        """Read `_audit.json`; a damaged one is as good as none: the next audit makes it anew."""
        path = self._folder(name) / _AUDIT
        with suppress(IntegrityError), _well_formed(path):
            document = files.read_json(path)
            _check_note(document or {}, path)
            return None if document is None else Audit.from_json(document)
        return None

    def write_audit(self, name: str, audit: Audit) -> None:
        """Replace `_audit.json`."""
        self._write(name, _AUDIT, audit.to_json())

    @contextmanager
    def lock(self, name: str, *, repair: bool = True) -> Iterator[None]:
        """An advisory lock on the feature's folder; what a killed writer left is put right first."""
        folder = self._folder(name)
        with files.storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with self._exclusive(name, ".refreshing"):
            if repair:
                self.recover(name)
            yield

    def regenerate_index(self) -> list[str]:
        """Write `_metadata/manifest.json` anew from the versions; returns the features listed."""
        with files.storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with self._exclusive(None, ".indexing"):
            entries = self._entries()
            self._write_index(entries)
        return sorted(entries)

    def index(self) -> dict[str, dict[str, Any]]:
        """What `_metadata/manifest.json` lists."""
        path = self._index_path()
        document = files.read_json(path)
        if document is None:
            return {}
        if not isinstance(document, dict) or document.get("format") != _INDEX_FORMAT:
            raise UnsupportedStore(
                f"{path} was written by another mlforge; 'mlforge manifest --regenerate' makes it anew"
            )
        with _well_formed(path):
            return {name: {**entry} for name, entry in document["features"].items()}

    def _known(self, name: str) -> tuple[Pointer, Version] | None:
        """What is served, and the highest version when that was decided."""
        path = self._folder(name) / _LATEST
        with _well_formed(path):
            document = files.read_json(path)
            if document is None:
                return None
            _check_note(document, path)
            version = Version.parse(document["version"])
            pointer = Pointer(version, int(document["generation"]))
            return pointer, Version.parse(document.get("highest", document["version"]))

    def _point(self, name: str, version: Version) -> Pointer:
        known = self._known(name)
        generation = known[0].generation + 1 if known else 1
        highest = max(version, known[1]) if known else version
        self._write(
            name,
            _LATEST,
            {"version": str(version), "generation": generation, "highest": str(highest)},
        )
        return Pointer(version, generation)

    def _write(self, name: str, document: str, content: Mapping[str, Any]) -> None:
        files.write_json(self._folder(name) / document, {"format": _NOTE_FORMAT, **content})

    def _lineage(self, name: str) -> Path:
        return _no_link(self._folder(name) / _LINEAGE)

    def _piece(self, name: str, piece: str) -> Any:
        """A piece of a version's lists; its name is the hash of its text."""
        if _HASH.fullmatch(piece) is None:
            raise IntegrityError(f"{name}: {piece!r} is not the name of a piece of its lineage")
        path = self._lineage(name) / f"{piece}.json"
        entries = files.read_json(path)
        if entries is None or files.hash_file(path) != piece:
            raise IntegrityError(f"{path} is missing or damaged; restore it from a backup")
        return entries

    def _write_piece(self, name: str, piece: str, text: str) -> None:
        folder = self._lineage(name)
        folder.mkdir(exist_ok=True)
        if not (folder / f"{piece}.json").exists():
            with files.replacing(folder / f"{piece}.json") as temporary:
                temporary.write_text(text, encoding="utf-8")

    def _sweep(self, name: str) -> None:
        """Delete the pieces that no version names."""
        folder = self._lineage(name)
        if folder.is_dir():
            metas = (files.read_json(self._version(name, v) / META) for v in self.versions(name))
            needed = {piece for meta in metas if meta for piece in chunks.named(meta)}
            for path in folder.glob("*.json"):
                if path.stem not in needed:
                    path.unlink()

    def _index(self, name: str, manifest: Manifest) -> None:
        with self._exclusive(None, ".indexing"):
            try:
                known = self.index()
            except UnsupportedStore:
                return  # another mlforge's is left alone until somebody asks for a new one
            except IntegrityError:
                known = self._entries()
            self._write_index({**known, name: self._entry(manifest)})

    def _indexed(self, name: str) -> str | None:
        with suppress(StoreError):
            return self.index().get(name, {}).get("version")
        return None

    def _index_path(self) -> Path:
        return _no_link(self.path / "_metadata") / "manifest.json"

    def _entries(self) -> dict[str, Any]:
        latest = {name: self.latest(name) for name in self.features()}
        return {name: self._entry(manifest) for name, manifest in latest.items() if manifest}

    def _write_index(self, entries: Mapping[str, Any]) -> None:
        path = self._index_path()
        with files.storage_errors(path):
            path.parent.mkdir(exist_ok=True)
            for litter in path.parent.glob(f".{path.name}.*"):
                litter.unlink(missing_ok=True)
        index = {"format": _INDEX_FORMAT, "features": dict(sorted(entries.items()))}
        files.write_json(path, index, durable=False)

    @staticmethod
    def _entry(manifest: Manifest) -> dict[str, Any]:
        return {
            "version": str(manifest.version),
            "row_count": manifest.row_count,
            **{
                key: config_of(manifest.spec)[key]
                for key in ("entity_keys", "timestamp", "interval")
            },
            "updated_at": to_iso(manifest.created_at),
            "content_hash": manifest.content_hash,
        }

    @contextmanager
    def _exclusive(self, name: str | None, lock: str) -> Iterator[None]:
        path = (self.path if name is None else self._folder(name)) / lock
        with files.storage_errors(path):
            descriptor = files.no_link(str(path), os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _folder(self, name: str) -> Path:
        return _no_link(self.path / _checked(name))

    def _partials(self, name: str) -> Path:
        return _no_link(self._folder(name) / _PARTIALS)

    def _version(self, name: str, version: Version) -> Path:
        return _no_link(self._folder(name) / str(version))

    def _not_found(self, name: str) -> StoreError:
        flat = self.path / f"{name}.parquet"
        if flat.is_file():
            return UnsupportedStore(
                f"{flat} is of the flat layout of v0.4: run 'mlforge build' to make a version of "
                f"{name}, then 'mlforge manifest --regenerate'; the old files are left alone"
            )
        return super()._not_found(name)


def _checked(name: str) -> str:
    try:
        return check_name(name)
    except DefinitionError as error:
        raise StoreError(str(error)) from error


def _check_note(document: Mapping[str, Any], path: Path) -> None:
    """Notes of a newer mlforge are left alone: what this one does not know it would drop."""
    if document.get("format", _NOTE_FORMAT) != _NOTE_FORMAT:
        raise UnsupportedStore(
            f"{path} has format {document['format']!r}, this mlforge knows {_NOTE_FORMAT}: "
            "upgrade to the release that wrote it"
        )


def _state(path: Path) -> tuple[str, int, int, int]:
    """What tells that a file is the one that was read."""
    stat = path.lstat()
    return str(path), stat.st_mtime_ns, stat.st_ino, stat.st_size


def _no_link(path: Path) -> Path:
    if os.path.islink(path):  # noqa: PTH114 - False where pathlib raises
        raise StoreError(f"{path} is a link, and a store follows none; put the real thing there")
    return path


@contextmanager
def _well_formed(path: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, StoreError) as error:
        if isinstance(error, StoreError) and str(path) in str(error):
            raise
        raise IntegrityError(
            f"{path} is damaged ({type(error).__name__}: {error}); restore it from a backup"
        ) from error
