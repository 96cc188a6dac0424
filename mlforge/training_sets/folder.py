"""The folder of a training set: written beside its place, and moved there once it is whole."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlforge.core.disk import hash_file, sync
from mlforge.core.lock import FILE
from mlforge.errors import RetrievalError, TaskRefused
from mlforge.training_sets.document import DOCUMENT, SetPart
from mlforge.training_sets.set_files import SetFiles, SetPlace

_SET, _SCRATCH = "set", "scratch"


class FolderFiles(SetFiles):
    """A hidden folder beside the set's place, on the same disk: its `set` becomes the set, and all else lies in its `scratch`."""

    def __init__(self, hidden: Path) -> None:
        self.address, self.staged, self.scratch = str(hidden), hidden / _SET, hidden / _SCRATCH

    def text(self, name: str) -> str:
        """Read the file."""
        path = self.scratch / name
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            raise _given_up(path, "read", error) from error

    @contextmanager
    def written(self, name: str) -> Iterator[Path]:
        """Write beside it, and rename."""
        path, hidden = self.scratch / name, self.scratch / uuid.uuid4().hex
        try:
            yield hidden
            _renamed(hidden, path)
        finally:
            hidden.unlink(missing_ok=True)

    def read(self, folder: str) -> Sequence[Path]:
        """The files where they are."""
        return sorted((self.scratch / folder).glob("*"))

    def shared(self, path: Path) -> str:
        """The path: whoever takes part sees it."""
        return str(path.absolute())

    def found(self, text: str) -> Path:
        """The path."""
        return Path(text)

    def place(self, path: Path) -> None:
        """Rename it into the folder that becomes the set."""
        _renamed(path, self.staged / path.name)

    def has(self, part: SetPart) -> bool:
        """Read the part."""
        path = self.staged / part.file
        return path.is_file() and hash_file(path) == part.hash


class FolderPlace(SetPlace):
    """A folder, which appears by a rename."""

    def __init__(self, out: Path) -> None:
        self.out, self.address = out, str(out)

    def check_free(self) -> None:
        """Look for anything but an empty folder."""
        out = self.out
        if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
            raise RetrievalError(
                f"{out} exists, and a training set is never overwritten; name another folder"
            )

    @contextmanager
    def making(self, set_id: str) -> Iterator[FolderFiles]:
        """Make the hidden folder, and hold it, so that others can tell whether this process was killed."""
        hidden = self._hidden(set_id)
        try:
            hidden.mkdir(parents=True)
        except OSError as error:
            raise RetrievalError(
                f"cannot write the training set {self.out}: {error.strerror}"
            ) from error
        files = FolderFiles(hidden)
        try:
            with _held(hidden):
                files.staged.mkdir()
                files.scratch.mkdir()
                yield files
        finally:
            shutil.rmtree(hidden, ignore_errors=True)

    def publish(self, files: SetFiles, document: str, lock: str) -> None:
        """Flush all to the disk, and rename."""
        assert isinstance(files, FolderFiles)
        staged = files.staged
        for name, text in ((FILE, lock), (DOCUMENT, document)):
            (staged / name).write_text(text, encoding="utf-8")
        for path in [*staged.iterdir(), staged]:
            sync(path)
        self.check_free()
        try:
            staged.rename(self.out)
        except OSError:
            self.check_free()
            raise
        sync(self.out.parent)

    def document(self) -> str | None:
        """Read it."""
        try:
            return (self.out / DOCUMENT).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None

    def is_given_up(self, set_id: str) -> bool:
        """Whether the hidden folder is here, and nobody holds it."""
        try:
            with _held(self._hidden(set_id)):
                return True
        except OSError:  # somebody holds it, or it is not there, or on another machine
            return False

    def remove(self, set_id: str) -> None:
        """Delete the hidden folder."""
        shutil.rmtree(self._hidden(set_id), ignore_errors=True)

    def _hidden(self, set_id: str) -> Path:
        return self.out.with_name(f".{self.out.name}.{set_id}")


def _renamed(written: Path, path: Path) -> None:
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(exist_ok=True)
        written.replace(path)
    except OSError as error:
        raise _given_up(path, "written", error) from error


def _given_up(path: Path, deed: str, error: OSError) -> TaskRefused:
    return TaskRefused(
        f"{path} cannot be {deed} ({error.strerror}): the set is finished or given up, or this machine does not reach the "
        "folder of the set, which all must write to"
    )


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder while the block runs, by the kernel's own lock; OSError where another process holds it, or it is not there."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
