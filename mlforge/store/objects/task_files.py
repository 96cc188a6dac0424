"""Files of a build's tasks in a bucket: parts lie where versions name them, and all else under a prefix of the feature.

A part is uploaded once, by the process that wrote it: the version that the build publishes names it where it lies. A file is named
after its bytes, or holds the same bytes whoever writes it, so twins write the same objects. What a killed build leaves is taken up
by the next, or goes by age with all else that no version names.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from mlforge.core.disk import hash_file
from mlforge.core.manifest import Part, Partial
from mlforge.errors import IntegrityError, VersionConflict
from mlforge.store.file_tasks import PartialWrite
from mlforge.store.local import io
from mlforge.store.local.transaction import write_part
from mlforge.store.objects import keys
from mlforge.store.objects.cache import FeatureCache
from mlforge.store.objects.document import FeatureDocument
from mlforge.store.objects.documents import Documents
from mlforge.store.objects.objects import NotReadable, each, together
from mlforge.store.task_files import TaskFiles
from mlforge.store.transaction import TablePiece

_OPEN = "open.json"
"""The object that says that a build has its tasks here, in which life of the feature, and after how many scrubs."""


class ObjectTaskFiles(TaskFiles):
    """Objects of one feature, with files of the machine's cache that have their bytes.

    document: the feature's as this process knows it. No request forbids another machine's write, so a process that is
    late looks before each: what it still writes in that moment no version names, and it goes by age.
    """

    def __init__(
        self, cache: FeatureCache, documents: Documents, document: FeatureDocument | None
    ) -> None:
        self._cache, self._objects, self._documents = cache, cache.objects, documents
        self._life = [document.born, document.scrubbed] if document else None

    def prepare(self) -> None:
        """Write the object that says so."""
        text = json.dumps(self._life).encode()
        self._objects.put(self._key(_OPEN), text)
        session = self._documents.session(self._cache.name)
        if session is not None:
            session.has_tasks = True

    def check_open(self) -> None:
        """Read the object that says so."""
        blob = self._objects.read(self._key(_OPEN))
        with suppress(ValueError):
            if blob is not None and json.loads(blob.data) == self._life:
                return
        raise VersionConflict(
            f"{self._objects.url}/{self._key(_OPEN)} is gone, or of another build: the build that this task is of has ended, "
            "so nothing is written"
        )

    def share(self, partials: Sequence[Partial]) -> None:
        """Upload those that the bucket does not have."""
        hashes = [*dict.fromkeys(p.hash for p in partials)]
        with self._cache.loose_partials([*self.lacks_partials(hashes)]) as files:
            self._put_partials(files)
        self.take_partials(hashes)

    def write_document(self, document: Mapping[str, Any], name: str | None = None) -> str:
        """Put `NAME.json`."""
        text = json.dumps(document, sort_keys=True).encode()
        name = name or hashlib.sha256(text).hexdigest()
        self.check_open()
        self._objects.put(self._key(f"{name}.json"), text)
        return name

    def document(self, name: str) -> Any:
        """Read `NAME.json`."""
        try:
            blob = self._objects.read(self._key(f"{name}.json"))
            return None if blob is None else json.loads(blob.data)
        except (NotReadable, ValueError):
            return None

    def write_frame(self, frame: pl.DataFrame) -> str:
        """Put `HASH.parquet` beside the documents."""
        with self._written(TablePiece(frame, None)) as (part, path):
            self._objects.put(self._key(f"{part.hash}.parquet"), path)
        return part.hash

    def write_part(self, piece: TablePiece) -> Part:
        """Put `HASH.parquet` among the parts of versions."""
        with self._written(piece) as (part, path):
            key = keys.part(self._cache.home, part.hash)
            self._objects.put(key, path)
            self._note_stored(key)
        return part

    def frame(self, hash_: str) -> Path | None:
        """The file of the cache, fetched where it is not there."""
        return self._at_hand(hash_, self._key(f"{hash_}.parquet"))

    def frames(self, hashes: Sequence[str]) -> list[Path | None]:
        """The files of the cache, fetched where they are not there."""
        paths = _each_once(self.frame, hashes)
        return [paths[hash_] for hash_ in hashes]

    def parts(self, hashes: Sequence[str]) -> list[Path | None]:
        """The files of the cache, fetched where they are not there, of parts that the bucket has."""
        paths = _each_once(self._part, hashes)
        for hash_, path in paths.items():
            if path is not None:  # noted by the thread that holds the feature's lock
                self._note_stored(keys.part(self._cache.home, hash_))
        return [paths[hash_] for hash_ in hashes]

    def _part(self, hash_: str) -> Path | None:
        key = keys.part(self._cache.home, hash_)
        return None if self._objects.look(key) is None else self._at_hand(hash_, key)

    def write_partials(
        self, writes: Sequence[PartialWrite], sorted_by: str | None = None
    ) -> list[str]:
        """Put each among the events of versions, in an object of its own."""
        hashes = [write.partial.hash for write in writes]
        with self._cache.spool() as spool:
            spool.write(writes, sorted_by)
            self.check_open()
            self._put_partials({hash_: spool.alone(hash_) for hash_ in hashes})
        return hashes

    def lacks_partials(self, files: Sequence[str]) -> set[str]:
        """List those that the bucket has; whoever reads one compares its bytes with the checksum within."""
        home = self._cache.home
        entries = self._objects.entries(f"{home}/{keys.PARTIALS}") if files else []
        stored = {entry.key for entry in entries}
        return {hash_ for hash_ in files if keys.partial(home, hash_) not in stored}

    def take_partials(self, files: Sequence[str]) -> None:
        """Note that the bucket has them: they lie where versions name them."""
        for hash_ in files:
            self._note_stored(keys.partial(self._cache.home, hash_))

    def clear(self) -> None:
        """Delete what says that a build has its tasks here, then all else but the parts."""
        folder = f"{self._cache.home}/{keys.TASKS}"
        self._objects.delete([self._key(_OPEN)])
        self._objects.delete([entry.key for entry in self._objects.entries(folder)])

    def _put_partials(self, files: Mapping[str, Path]) -> None:
        """Upload files of partials, by their hashes."""
        home = self._cache.home
        together(
            [
                partial(self._objects.put, keys.partial(home, hash_), file)
                for hash_, file in files.items()
            ]
        )

    def _key(self, file: str) -> str:
        return keys.task(self._cache.home, file)

    @contextmanager
    def _written(self, piece: TablePiece) -> Iterator[tuple[Part, Path]]:
        """A part and its file, which stays in the cache once it was uploaded."""
        folder = self._cache.part("").parent
        path = folder / f".{uuid.uuid4().hex}.parquet"
        with io.storage_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                part, _ = write_part(piece, path)
                self.check_open()
                yield part, path
                path.replace(self._cache.part(part.hash))
            finally:
                path.unlink(missing_ok=True)

    def _at_hand(self, hash_: str, key: str) -> Path | None:
        path = self._cache.part(hash_)
        with io.storage_errors(path):
            if path.is_file() and hash_file(path) == hash_:
                return path
            try:
                self._cache.fetch(hash_, key)
            except (IntegrityError, NotReadable):
                return None
            return path

    def _note_stored(self, key: str) -> None:
        """Note that the bucket has an object, so that the version that names it need not upload it."""
        session = self._documents.session(self._cache.name)
        document = self._documents.read(self._cache.name) if session is not None else None
        if session is not None and document is not None and document.sweeping is None:
            session.stored[key] = document.swept


def _each_once(
    fetch: Callable[[str], Path | None], hashes: Sequence[str]
) -> dict[str, Path | None]:
    """By hash the files that are fetched, side by side, each once."""
    unique = [*dict.fromkeys(hashes)]
    return dict(zip(unique, each(fetch, unique), strict=True))
