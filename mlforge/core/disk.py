"""Files: writing, hashing, and flushing: a write that has been flushed outlives the machine's fall."""

from __future__ import annotations

import hashlib
import os
import re
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

_AT_ONCE = 1 << 20
"""More bytes in one call take Linux several times as long each: it seeks memory for them that lies in one piece."""

# polars tells the number in the text alone.
_NUMBER = re.compile(r"\(os error (\d+)\)")


def system_number(error: Exception) -> int | None:
    """The number of the system's own error, which an error of polars has in its text; None where it is no matter of the system."""
    match = _NUMBER.search(str(error))
    return int(match[1]) if match else getattr(error, "errno", None)


def write_all(file: BinaryIO, content: bytes | memoryview) -> None:
    """Write bytes to a file, some at a time."""
    whole = memoryview(content)
    file.writelines(whole[start : start + _AT_ONCE] for start in range(0, len(whole), _AT_ONCE))


def bytes_of(buffer: BytesIO) -> memoryview:
    """The bytes of a buffer, without a copy; the buffer can be closed and forgotten.

    Not the view that the buffer itself gives: where both end in one circle of garbage, Python 3.13 complains on stderr that it cannot close the buffer.
    """
    return memoryview(buffer.getvalue())


def sync(path: Path) -> None:
    """Flush a file or a folder's entries to the disk; OSError where it does not take them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> str:
    """sha256 of the file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
