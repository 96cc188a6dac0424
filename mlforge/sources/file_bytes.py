"""The bytes of a file that somebody may be writing at this moment, all of one instant."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from mlforge.errors import UnreadableFile
from mlforge.sources.source_file import FileStat, Remote, SourceFile

# Not blocking: a pipe may have taken the file's place.
_READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
# So long after the last write a file that is still open is taken as it is: its writer forgot to close it.
_ABANDONED_NS = 30_000_000_000


class NotReadNow(UnreadableFile):
    """Its surroundings are at fault, not the file's bytes: the same bytes are worth another try."""


class BeingWritten(NotReadNow):
    """Somebody has it open and writes to it; whoever waits sees it whole."""


@dataclass(frozen=True, slots=True)
class FileBytes:
    """A file's bytes with their SHA-256, its stat, and when reading began, in nanoseconds since the epoch."""

    path: str
    content: bytes
    hash: str
    stat: FileStat
    begun: int


def is_being_written(path: Path) -> bool:
    """Whether a process has the file open for writing and has written to it lately.

    Known on Linux only, for local files of this user, or for root; elsewhere False.
    """
    try:
        descriptor = os.open(path, _READING)
    except OSError:
        return False
    try:
        return _has_writer(descriptor)
    finally:
        os.close(descriptor)


def hash_and_stat(path: Path) -> tuple[str, FileStat]:
    """SHA-256 of the file's bytes, in hex, and the stat that the file had when it was opened. Raises NotReadNow."""
    try:
        with path.open("rb") as file:
            _check_writer(file.fileno(), path.name)
            opened = FileStat.of(os.fstat(file.fileno()))
            return hashlib.file_digest(file, "sha256").hexdigest(), opened
    except OSError as error:
        raise NotReadNow(f"{path}: {why_not(error)}") from error


def read_bytes(file: SourceFile, max_bytes: int | None = None) -> FileBytes:
    """A file's bytes, undecoded. Raises UnreadableFile if there are more than allowed, else NotReadNow as `read`."""
    begun = time.time_ns()
    if file.remote is not None:
        content = _fetched(file, file.remote, max_bytes)
        return FileBytes(file.path, content, hashlib.sha256(content).hexdigest(), file.stat, begun)
    try:
        descriptor = os.open(file.absolute, _READING)
        with os.fdopen(descriptor, "rb", buffering=0) as opened:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise NotReadNow(f"{file.path}: is not a regular file")
            _check_writer(descriptor, file.path)
            if max_bytes is not None and before.st_size > max_bytes:
                raise too_large(file.path, "holds", before.st_size, max_bytes)
            content = opened.readall()
            file_stat = FileStat.of(before)
            if FileStat.of(os.fstat(descriptor)) != file_stat or len(content) != file_stat.size:
                raise NotReadNow(
                    f"{file.path}: changed while it was read; write under another name, such as "
                    f"{Path(file.path).name}.tmp, then rename"
                )
    except OSError as error:
        raise NotReadNow(f"{file.path}: {why_not(error)}") from error
    return FileBytes(file.path, content, hashlib.sha256(content).hexdigest(), file_stat, begun)


def _fetched(file: SourceFile, remote: Remote, max_bytes: int | None) -> bytes:
    if max_bytes is not None and file.stat.size > max_bytes:
        raise too_large(file.path, "holds", file.stat.size, max_bytes)
    content = remote.fetch(file.path, file.stat)
    if content is None:
        raise NotReadNow(f"{file.path}: is gone, or was written anew since it was listed")
    return content


def _check_writer(descriptor: int, path: str) -> None:
    if _has_writer(descriptor):
        raise BeingWritten(f"{path}: is being written; it is read once its writer closes it")


def _has_writer(descriptor: int) -> bool:
    """Whether the kernel refuses a lease on the file, as it does while a process may write to it."""
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        # If a writer opens the file meanwhile, the kernel sends a harmless signal, not SIGIO, which kills.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        file_stat = os.fstat(descriptor)
        return time.time_ns() - max(file_stat.st_mtime_ns, file_stat.st_ctime_ns) < _ABANDONED_NS
    except OSError:  # not a file system, or not a file, of which we may know
        return False
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def too_large(path: str, verb: str, size: int, most: int) -> UnreadableFile:
    """The error of a file that `holds`, or `claims`, more bytes than are allowed."""
    return UnreadableFile(
        f"{path}: {verb} {size:,} bytes, more than the {most:,} allowed; split the file, or raise the limit"
    )


def why_not(error: OSError) -> str:
    """Why a file cannot be read, in words that follow its path."""
    if isinstance(error, FileNotFoundError):
        return "is gone"
    if isinstance(error, PermissionError):
        return "cannot be opened: permission denied; give read access to the user that runs mlforge"
    return f"cannot be read: {error.strerror or error}"
