"""A drop on the disk: written under a hidden name, flushed, renamed, and the folder flushed. After that no crash loses it."""

from __future__ import annotations

import io
import os
import time
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


def write_bytes(file: Path, content: bytes) -> None:
    """Write a drop's file, which is whole under its name or not there. Refused, 503, where the disk does not take it."""
    hidden = file.with_name(f".{file.name}.{uuid4().hex}")
    try:
        with hidden.open("xb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        failpoints.reach("drop.written")
        hidden.replace(file)
        sync(file.parent)
    except OSError as error:
        hidden.unlink(missing_ok=True)
        missing = isinstance(error, FileNotFoundError)
        advice = "make the folder" if missing else "look at the server's disk"
        raise Refused(
            503, "source_unavailable", f"{file.parent} takes no file: {error.strerror}; {advice}"
        ) from error


def holds(file: Path, request: bytes) -> bool:
    """Whether a drop is on the disk already. Refused, 409, where it was made of another body."""
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
