"""A drop on the disk: written under a hidden name, flushed, renamed, and the folder flushed. After that no crash loses it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import polars as pl

from mlforge.core import failpoints
from mlforge.serve.problems import Refused

_LEFT_S = 3_600.0
"""After so long a file under a hidden name is one that a killed server has left."""


def write_frame(file: Path, frame: pl.DataFrame) -> None:
    """Write a frame as a drop; raises as `write_drop`."""
    write_drop(file, lambda opened: frame.write_parquet(opened, compression="zstd"))


def write_bytes(file: Path, content: bytes) -> None:
    """Write a parquet file's bytes as a drop; raises as `write_drop`."""
    write_drop(file, lambda opened: opened.write(content))


def write_drop(file: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file that is whole under its name or not there. Refused, 503, where the disk does not take it."""
    hidden = file.with_name(f".{file.name}.{uuid4().hex}")
    try:
        with hidden.open("xb") as opened:
            write(opened)
            opened.flush()
            os.fsync(opened.fileno())
        failpoints.reach("drop.written")
        hidden.replace(file)
        _sync(file.parent)
    except OSError as error:
        hidden.unlink(missing_ok=True)
        missing = isinstance(error, FileNotFoundError)
        advice = "make the folder" if missing else "look at the server's disk"
        raise Refused(
            503, "source_unavailable", f"{file.parent} takes no file: {error.strerror}; {advice}"
        ) from error


def clear(folder: Path) -> None:
    """Remove what killed servers have left under hidden names."""
    for file in folder.glob(".http-*"):
        try:
            if time.time() - file.stat().st_mtime > _LEFT_S:
                file.unlink()
        except OSError:  # another server's clearing
            continue


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
