"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import pwd
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from mlforge.core.disk import sync, system_number, write_all
from mlforge.core.failpoints import reach
from mlforge.errors import IntegrityError, StoreUnavailable, encodable

_SYNCS = 4  # at a time; the disk takes them together
_text = json.JSONEncoder(ensure_ascii=False).encode  # `json.dumps` would make an encoder each time


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
        with open(path, "rb", buffering=0, opener=no_link) as file:
            return file.readall()
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


def write_texts(texts: Mapping[Path, str], beside: Path) -> None:
    """Replace files atomically, synced together; the caller syncs their folder.

    beside: a folder of the same disk, in which they are written until they are whole.
    """
    with _replacing_all([*texts], durable=True, beside=beside) as temporaries:
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
    paths: Sequence[Path],
    *,
    durable: bool,
    after: Iterable[Path] = (),
    beside: Path | None = None,
) -> Iterator[list[Path]]:
    """As `replacing`, a hidden sibling for each path, or a hidden file in the folder `beside`; no folder is synced."""
    folders = (path.parent if beside is None else beside for path in paths)
    temporaries = [
        folder / f".{path.name}.{uuid.uuid4().hex}"
        for folder, path in zip(folders, paths, strict=True)
    ]
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
            _discard(temporary)


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
            _discard(temporary)
    return is_new


def _discard(temporary: Path) -> None:
    """Remove what was not finished, if it is there. Why it was not is told, not why it stays: a read-only disk refuses both."""
    with suppress(OSError):
        temporary.unlink(missing_ok=True)


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
        number = system_number(error)
        if number is None:
            raise
        why = f"{_hint(number)}{_whose(path, number)} ({str(error).splitlines()[0]})"
        raise StoreUnavailable(f"cannot write {path}: {why}") from error


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


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none or they are two."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
