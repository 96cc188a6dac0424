"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pwd
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from mlforge.core.disk import sync, write_all
from mlforge.core.failpoints import reach
from mlforge.core.side_by_side import begin
from mlforge.errors import IntegrityError, StoreUnavailable, encodable

CHECKSUM, UNSEALED = "mlforge.checksum", "0" * 64
_SEAL = CHECKSUM.encode() + b"\x18\x40"  # as thrift writes a key and the length of its value
_SYNCS = 4  # at a time; the disk takes them together
_READ_BYTES = 1 << 20
_LARGE = 4 << 20  # bytes that take the disk longer than a further sync does
_text = json.JSONEncoder(ensure_ascii=False).encode  # `json.dumps` would make an encoder each time
# polars tells the number in the text alone.
_NUMBER = re.compile(r"\(os error (\d+)\)")


def write_json(
    path: Path,
    document: Mapping[str, Any],
    *,
    durable: bool = True,
    folder: bool = True,
    after: Iterable[Path] = (),
) -> None:
    """Replace a document atomically; `durable` False for a document that can be rebuilt after a power failure.

    after: files and folders that are synced before it is replaced. folder: as in `replacing`.
    """
    with replacing(path, durable=durable, folder=folder, after=after) as temporary:
        temporary.write_text(json_text(document), encoding="utf-8")


class JsonText(str):
    """A value's text, which documents take as it is: of a list that many documents hold."""

    __slots__ = ()

    @classmethod
    def of(cls, value: Any) -> JsonText:
        """The text that the value has in a document."""
        return cls(_lines(value))


def json_text(document: Mapping[str, Any]) -> str:
    """JSON with an entry a line, and an item a line in lists: for people, `diff` and the fast encoder."""
    entries = (f"{json.dumps(key)}: {_lines(value)}" for key, value in document.items())
    return encodable("{\n" + ",\n".join(entries) + "\n}\n")


def _lines(value: Any) -> str:
    """A value on one line, but a list or mapping of several things with each on its own."""
    if isinstance(value, JsonText):
        return value
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return "[\n " + ",\n ".join(_text(item) for item in value) + "\n]"
    if isinstance(value, dict) and any(isinstance(item, (dict, list)) for item in value.values()):
        inner = (f"{json.dumps(k)}: {_text(v)}" for k, v in value.items())
        return "{\n " + ",\n ".join(inner) + "\n}"
    return _text(value)


def read_json(path: Path) -> Any:
    """The document, or None where there is none; IntegrityError if it is not JSON."""
    content = read_bytes(path)
    return None if content is None else parsed_json(content, path)


def parsed_json(content: bytes, path: Path | str) -> Any:
    """The document in a file's bytes; IntegrityError if they are not JSON."""
    try:
        return json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{path} is damaged ({error}); restore it from a backup") from error


def read_bytes(path: Path | str) -> bytes | None:
    """The bytes of a file, or None where there is none."""
    try:
        with open(path, "rb", opener=no_link) as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        why = f"{_hint(error.errno)} ({error.strerror})"
        raise StoreUnavailable(f"cannot read {path}: {why}") from error


def append_text(path: Path, text: str) -> None:
    """Write behind what a file holds; it need not survive a power failure."""
    with storage_errors(path), open(path, "ab", opener=no_link) as file:
        # A bare descriptor may take a part of it, as where the disk is about to be full.
        write_all(file, text.encode())


def write_texts(texts: Mapping[Path, str]) -> None:
    """Replace files atomically, synced together; the caller syncs their folder."""
    with _replacing_all([*texts], durable=True) as temporaries:
        for temporary, text in zip(temporaries, texts.values(), strict=True):
            temporary.write_text(text, encoding="utf-8")


@contextmanager
def replacing(
    path: Path, *, durable: bool = True, folder: bool = True, after: Iterable[Path] = ()
) -> Iterator[Path]:
    """A hidden sibling to write to; once the block ends it is synced and takes the path's place.

    folder: False where the caller syncs the folder, once for many files. after: as in `write_json`.
    """
    with _replacing_all([path], durable=durable, after=after) as [temporary]:
        yield temporary
    if durable and folder:
        with storage_errors(path):
            sync(path.parent)


@contextmanager
def _replacing_all(
    paths: Sequence[Path], *, durable: bool, after: Iterable[Path] = ()
) -> Iterator[list[Path]]:
    """As `replacing`, a hidden sibling for each path; no folder is synced."""
    temporaries = [path.with_name(f".{path.name}.{uuid.uuid4().hex}") for path in paths]
    try:
        with storage_errors(paths[0]):
            yield temporaries
            if durable:
                sync_all([*temporaries, *after])
            reach("file.synced")
            for temporary, path in zip(temporaries, paths, strict=True):
                temporary.replace(path)
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


def create(path: Path, content: bytes) -> bool:
    """Write a file that is not there yet, whole or not at all; returns False where there is one already."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with storage_errors(path):
        try:
            temporary.write_bytes(content)
            sync(temporary)
            reach("file.written")
            is_new = _claimed(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    return is_new


def _claimed(temporary: Path, path: Path) -> bool:
    """Give a finished file its name; returns False if the name is in use. Of two hosts, the one that links first has it."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links: the caller's lock keeps other processes of this host away
        if os.path.lexists(path):
            return False
        temporary.rename(path)
    return True


def remove(path: Path) -> bool:
    """Delete a file for good; returns whether there was one."""
    with storage_errors(path):
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        sync(path.parent)
    return True


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn OSErrors of a full, read-only or vanished disk into StoreUnavailable."""
    try:
        yield
    except (OSError, pl.exceptions.ComputeError) as error:
        match = _NUMBER.search(str(error))
        number = int(match[1]) if match else getattr(error, "errno", None)
        if number is None:
            raise
        first = str(error).splitlines()[0]
        why = f"{_hint(number)}{_whose(path, number)}"
        raise StoreUnavailable(f"cannot write {path}: {why} ({first})") from error


def _hint(number: int | None) -> str:
    return {
        errno.ENOSPC: "the disk is full: free some space, or prune old versions",
        errno.EDQUOT: "the disk quota is used up: free some space, or prune old versions",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "permission is denied",
        errno.EPERM: "permission is denied",
        errno.ENOENT: "a file or folder has vanished meanwhile",
        errno.ENOTDIR: "something that is no folder is in the way",
        errno.ELOOP: "it is a link, and a store follows none; put the real file there",
    }.get(number or 0, "the file system refuses it")


def _whose(path: Path, number: int) -> str:
    """Whose the path, or the folder that is to hold it, is, where that explains a denial: commands run by root leave files that workers may not touch."""
    if number not in (errno.EACCES, errno.EPERM):
        return ""
    place = next((place for place in (path, *path.parents) if os.access(place, os.F_OK)), path)
    with suppress(OSError):
        owner, user = place.stat().st_uid, os.geteuid()
        if owner != user:
            return f", as {place} belongs to {_user(owner)}, and {_user(user)} asks: have one user run all that writes to the store"
    return ""


def _user(id_: int) -> str:
    try:
        return pwd.getpwuid(id_).pw_name
    except KeyError:
        return f"user {id_}"


def no_link(path: str, flags: int) -> int:
    """Open a path unless it is a symbolic link."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o644)


def begin_sync(path: Path) -> Future[None]:
    """A flush of a file or a folder's entries to the disk that goes on beside the caller; done at once where no thread can be started."""
    try:
        return _threads().submit(sync, path)
    except RuntimeError:
        sync(path)
        done: Future[None] = Future()
        done.set_result(None)
        return done


def sync_all(paths: Iterable[Path]) -> None:
    """Flush files and folders' entries to the disk, many at a time: it takes them in fewer writes than one by one."""
    first, *others = paths
    synced: list[Future[None]] = []
    with suppress(RuntimeError):  # no further thread can be started
        synced.extend(_threads().submit(sync, path) for path in others)
    try:
        for path in (first, *others[len(synced) :]):
            sync(path)
    finally:
        wait(synced)  # none is at work on a file that the caller goes on to remove
    for each in synced:
        each.result()


@cache
def _threads() -> ThreadPoolExecutor:
    """The threads that sync beside the one that asks: started as they are needed, and kept."""
    return ThreadPoolExecutor(_SYNCS - 1, "mlforge-sync")


os.register_at_fork(after_in_child=_threads.cache_clear)  # a fork has none of its parent's threads


def hash_file(path: Path) -> str:
    """sha256 of the file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class Sealed:
    """The bytes of a parquet file with a checksum of itself in its own metadata, and that checksum."""

    content: memoryview
    checksum: str

    @classmethod
    def of(cls, frame: pl.DataFrame, row_group: int, metadata: Mapping[str, str]) -> Sealed:
        """The file of a frame, with row groups of so many rows."""
        written = _unsealed(frame, row_group, metadata)
        place, checksum = _checksum_of(written.getbuffer())
        written.seek(place)
        written.write(checksum)
        return cls(written.getbuffer(), checksum.decode())

    def write(self, path: Path, *, durable: bool = True) -> None:
        """Write the file at a path, whole or not at all; the caller syncs the folder. durable: as in `write_json`."""
        with (
            replacing(path, durable=durable, folder=False) as temporary,
            temporary.open("wb") as file,
        ):
            write_all(file, self.content)

    def estimated_size(self) -> int:
        """The bytes that it takes."""
        return len(self.content)


def write_sealed(
    path: Path, frame: pl.DataFrame, row_group: int, metadata: Mapping[str, str]
) -> None:
    """Write a parquet file with a checksum of itself in its own metadata; the caller syncs the folder.

    The checksum is computed while the other bytes are written, and while a large file's begin their way to the disk.
    """
    content = _unsealed(frame, row_group, metadata).getbuffer()
    checking = begin(_checksum_of, content)
    with replacing(path, folder=False) as temporary, temporary.open("wb") as file:
        write_all(file, content)
        if len(content) >= _LARGE:
            file.flush()
            os.fsync(file.fileno())
        place, checksum = checking.result()
        file.seek(place)
        file.write(checksum)


def _unsealed(frame: pl.DataFrame, row_group: int, metadata: Mapping[str, str]) -> io.BytesIO:
    """The bytes of a parquet file with room for a checksum in its metadata."""
    written = io.BytesIO()
    frame.write_parquet(
        written,
        compression="uncompressed",  # read often, and for less than it takes to unpack
        row_group_size=row_group,
        metadata={**metadata, CHECKSUM: UNSEALED},
    )
    return written


def is_sealed(path: Path) -> bool:
    """Whether a file still has all the bytes that it was sealed with."""
    with path.open("rb") as file:
        place, checksum = _checksum_in(file)
        file.seek(place)
        return place > 0 and file.read(len(checksum)) == checksum


def seal_of(path: Path) -> str:
    """The checksum that a file was sealed with, whether or not it is still true."""
    return pl.read_parquet_metadata(path)[CHECKSUM]


def _checksum(size: int, read: Callable[[int, int], bytes | memoryview]) -> tuple[int, bytes]:
    """The offset of the checksum, 0 if there is none, and its value over all other bytes.

    read: the bytes from an offset until before another.
    """
    length = bytes(read(max(size - 8, 0), max(size - 4, 0)))
    footer = max(size - 8 - int.from_bytes(length, "little"), 0)
    offset = bytes(read(footer, size)).rfind(_SEAL)
    if offset < 0:
        return 0, b""
    place = footer + offset + len(_SEAL)
    hashed = hashlib.sha256()
    for start, end in ((0, place), (place + len(UNSEALED), size)):
        for at in range(start, end, _READ_BYTES):
            hashed.update(read(at, min(at + _READ_BYTES, end)))
    return place, hashed.hexdigest().encode()


def _checksum_of(content: memoryview) -> tuple[int, bytes]:
    """As `_checksum`, of bytes in memory, none of which is copied."""
    return _checksum(len(content), lambda start, end: content[start:end])


def _checksum_in(file: BinaryIO) -> tuple[int, bytes]:
    """As `_checksum`, of an open file."""

    def read(start: int, end: int) -> bytes:
        file.seek(start)
        return file.read(end - start)

    return _checksum(file.seek(0, os.SEEK_END), read)


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none or they are two."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
