"""A drop on the disk: written under a hidden name, flushed, renamed, and the folder flushed. After that no crash loses it."""

from __future__ import annotations

import fcntl
import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import polars as pl

from mlforge.core import failpoints
from mlforge.core.disk import sync
from mlforge.serve.problems import Refused

_REQUEST = "mlforge.request"
"""The name in a parquet file's own metadata of the hash of the body that its rows came in."""
_LEFT_S = 3_600.0
"""After so long a file under a hidden name is one that a killed server has left."""


def write_frame(file: Path, frame: pl.DataFrame) -> None:
    """Write a frame as a drop; raises as `write_bytes`, and Refused for one that parquet cannot hold."""
    write_bytes(file, parquet_of(frame))


def parquet_of(frame: pl.DataFrame, request: bytes | None = None) -> bytes:
    """A frame as the bytes of a parquet file; Refused for one that parquet cannot hold.

    request: the body that the frame was made of; its hash is in the file, for `holds`.
    """
    content = io.BytesIO()
    metadata = None if request is None else {_REQUEST: sha256(request).hexdigest()}
    try:
        frame.write_parquet(content, compression="zstd", metadata=metadata)
    except pl.exceptions.PolarsError as error:
        raise Refused(422, "bad_rows", f"the rows cannot be a parquet file: {error}") from None
    return content.getvalue()


def write_bytes(file: Path, content: bytes, request: bytes | None = None) -> None:
    """Write a drop's file, which is whole under its name or not there. Refused, 503, where the disk does not take it.

    request: the body that came with a caller's own key, whose name the file has. Then a file that is there already stays, and Refused is raised as by `holds`; and one
    whose folder cannot be flushed is left for the same request to come again. Without it that is removed, as the same rows would come again under another name.
    """
    hidden = file.with_name(f".{file.name}.{uuid4().hex}")
    is_placed = False
    try:
        with hidden.open("xb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        failpoints.reach("drop.written")
        _place(hidden, file, request)
        is_placed = True
        failpoints.reach("drop.renamed")
        sync(file.parent)
    except (OSError, Refused) as error:
        if not is_placed or request is None:
            with suppress(OSError):  # the first error is the one to tell of
                (file if is_placed else hidden).unlink(missing_ok=True)
        if isinstance(error, Refused):
            raise
        raise _unavailable(file, error) from error


def _place(hidden: Path, file: Path, request: bytes | None) -> None:
    """Give a whole file its name. Where a caller's own key may have come to another server, too, the first file stays."""
    if request is None:
        hidden.replace(file)
        return
    with _taking_turns(file.parent):
        if holds(file, request):
            hidden.unlink()
        else:
            hidden.replace(file)


@contextmanager
def _taking_turns(folder: Path) -> Iterator[None]:
    """A block that no two processes are in at once for a folder, as far as its file system has locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a network file system may have none for folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _unavailable(file: Path, error: OSError) -> Refused:
    missing = isinstance(error, FileNotFoundError)
    advice = "make the folder" if missing else "look at the server's disk"
    return Refused(
        503, "source_unavailable", f"{file.parent} takes no file: {error.strerror}; {advice}"
    )


def holds(file: Path, request: bytes) -> bool:
    """Whether a drop is on the disk already, and flushed. Refused: 409 where it was made of another body, 503 where the disk does not take it."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Refused(
            503, "source_unavailable", f"{file} cannot be read: {error.strerror}"
        ) from error
    if content != request and _request_of(content) != sha256(request).hexdigest():
        raise Refused(
            409,
            "key_reused",
            "other rows were sent with this Idempotency-Key before; none of these was taken, send them with a key of their own",
        )
    try:
        sync(file.parent)  # it failed, where the request before was answered so
    except OSError as error:
        raise _unavailable(file, error) from error
    return True


def _request_of(content: bytes) -> str | None:
    """The hash of the body that a drop was made of; None for a file that says none."""
    try:
        return pl.read_parquet_metadata(io.BytesIO(content)).get(_REQUEST)
    except pl.exceptions.PolarsError:
        return None


def clear(folder: Path) -> None:
    """Remove what killed servers have left under hidden names."""
    for file in folder.glob(".http-*"):
        try:
            if time.time() - file.stat().st_mtime > _LEFT_S:
                file.unlink()
        except OSError:  # another server's clearing
            continue
