"""The place of a training set in a bucket: its parts lie below its own id, and it is there once its document is.

Whoever takes part shares files below the id, too. What a killed process leaves no document names; it goes with the set's hold on versions.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlforge.core.lock import FILE
from mlforge.core.scratch import scratch_folder
from mlforge.errors import IntegrityError, RetrievalError, StoreError, TaskRefused
from mlforge.store.bucket_client import ConditionFailed, Objects, each
from mlforge.training_sets.document import DOCUMENT, SetDocument, SetPart
from mlforge.training_sets.set_files import SetFiles, SetPlace

_MAKING, _OPEN, _ASIDE = "_making", "open", "aside/"


class BucketFiles(SetFiles):
    """Objects below the set's id. scratch: a folder of this machine alone."""

    def __init__(self, objects: Objects, set_id: str, scratch: Path) -> None:
        self._objects, self._id, self.scratch = objects, set_id, scratch
        self.address, self.prefix = f"{objects.url}/{set_id}", f"{set_id}/"
        self.is_published = False

    def text(self, name: str) -> str:
        """Read the object."""
        blob = self._objects.read(self._key(name))
        if blob is None:
            raise self._given_up(name)
        return blob.data.decode()

    @contextmanager
    def written(self, name: str) -> Iterator[Path]:
        """Put the file."""
        path = self.scratch / uuid.uuid4().hex
        try:
            yield path
            self._check_open()
            self._objects.put(self._key(name), path)
        finally:
            path.unlink(missing_ok=True)

    def read(self, folder: str) -> Sequence[Path]:
        """Fetch them."""
        entries = self._objects.entries(self._key(folder))
        return each(self._fetched, sorted(entry.key for entry in entries))

    def shared(self, path: Path) -> str:
        """Put a file of `scratch`; of another the path, which whoever takes part must see."""
        if path.parent != self.scratch:
            return str(path.absolute())
        self._objects.put(self._key(_ASIDE + path.name), path)
        return _ASIDE + path.name

    def found(self, text: str) -> Path:
        """Fetch what was put aside, once."""
        return self._fetched(self._key(text)) if text.startswith(_ASIDE) else Path(text)

    def place(self, path: Path) -> None:
        """Put it, and take it off this machine."""
        self._check_open()
        self._objects.put(f"{self._id}/{path.name}", path)
        path.unlink()

    def has(self, part: SetPart) -> bool:
        """Look at the object."""
        return self._objects.look(f"{self._id}/{part.file}") is not None

    def begin(self) -> None:
        """Put the object that says that the set is being made."""
        self._objects.put(self._key(_OPEN), b"")

    def end(self) -> None:
        """Delete that object, then all that is no part of a set that is published."""
        self._objects.delete([self._key(_OPEN)])
        below = self._key("").rstrip("/") if self.is_published else self._id
        self._objects.delete([entry.key for entry in self._objects.entries(below)])

    def _check_open(self) -> None:
        if self._objects.look(self._key(_OPEN)) is None:
            raise self._given_up(_OPEN)

    def _fetched(self, key: str) -> Path:
        path = self.scratch / key.replace("/", "-")
        if not path.exists() and not _arrived(self._objects, key, path):
            raise self._given_up(key)
        return path

    def _key(self, name: str) -> str:
        return f"{self._id}/{_MAKING}/{name}"

    def _given_up(self, name: str) -> TaskRefused:
        return TaskRefused(
            f"{self.address} has no {name}: the set is finished or given up, so nothing is written"
        )


class BucketPlace(SetPlace):
    """A prefix of a bucket, whose document is created last."""

    def __init__(self, objects: Objects) -> None:
        self._objects, self.address = objects, objects.url

    def check_free(self) -> None:
        """Look for a document, and for objects beside it; what killed sets left below their ids is none."""
        level = self._objects.level("")
        if level.entries or not all(map(_is_id, level.folders)):
            raise self._taken()

    @contextmanager
    def making(self, set_id: str) -> Iterator[BucketFiles]:
        """Say that the set is being made, with a folder of this machine for what is put aside."""
        with scratch_folder("set") as scratch:
            files = BucketFiles(self._objects, set_id, scratch)
            files.begin()
            try:
                yield files
            finally:
                files.end()

    def publish(self, files: SetFiles, document: str, lock: str) -> None:
        """Create the document where there is none."""
        assert isinstance(files, BucketFiles)
        self._objects.put(f"{files.prefix}{FILE}", lock.encode())
        files.is_published = True  # from here on, unless it is known that the document is not there
        try:
            self._objects.create(DOCUMENT, document.encode())
        except StoreError as error:
            files.is_published = self.document() == document  # then just the answer was lost
            if not files.is_published and isinstance(error, ConditionFailed):
                raise self._taken() from error
            if not files.is_published:
                raise

    def document(self) -> str | None:
        """Read it."""
        blob = self._objects.read(DOCUMENT)
        return None if blob is None else blob.data.decode(errors="replace")

    def is_given_up(self, set_id: str) -> bool:
        """Never known: another machine may be at it."""
        return False

    def remove(self, set_id: str) -> None:
        """Delete what lies below the id, but for the parts of the set that is there."""
        files = BucketFiles(self._objects, set_id, Path())
        text = self.document()
        try:
            files.is_published = (
                text is not None and SetDocument.from_text(text, self.address).id == set_id
            )
        except IntegrityError:
            return
        files.end()

    def _taken(self) -> RetrievalError:
        return RetrievalError(
            f"{self.address} has objects, and a training set is never overwritten; name another place"
        )


def _is_id(folder: str) -> bool:
    return len(folder) == 32 and not folder.strip("0123456789abcdef")


def fetched(objects: Objects, name: str, folder: Path) -> Path:
    """The file of an object in a folder of this machine, fetched where it is not there.

    Raises IntegrityError for an object that is missing, StoreError where no answer comes.
    """
    path = folder / name
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    if not _arrived(objects, name, path):
        raise IntegrityError(f"{objects.url}/{name} is missing; make the training set again")
    return path


def _arrived(objects: Objects, name: str, path: Path) -> bool:
    """Whether there is such an object; its file is at the path then, whole: others of this process may look there meanwhile."""
    arriving = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        is_there = objects.download(name, arriving)
        if is_there:
            arriving.replace(path)
        return is_there
    finally:
        arriving.unlink(missing_ok=True)
