"""The process that `mlforge.ingest.function_process` starts: it runs one feature's function, as often as it is asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import polars as pl

from mlforge.core.bound import die_with_parent
from mlforge.definitions.loader import load_as_written
from mlforge.errors import MlforgeError
from mlforge.ingest import function_process as protocol
from mlforge.ingest.calling import ReadsFilesError, TooLargeError, collected, size_of
from mlforge.ingest.intake import FUNCTION_FAULTS
from mlforge.ingest.returned import described
from mlforge.sources import sandbox


def main(target: str, here: str, feature: str, code_hash: str, parent: str) -> int:
    """Answer calls until the other side ends. parent: its process."""
    die_with_parent(int(parent))
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the function prints is no answer
    try:
        defined = load_as_written(target or None, here=Path(here)).features.get(feature)
        is_this_code = defined is not None and defined.code_hash == code_hash
        function = defined.function if defined is not None and is_this_code else None
    except MlforgeError:
        function = None
    while True:
        try:
            header, frames = protocol.receive(requests)
        except EOFError:
            return 0
        _answer(answers, function, header, frames)


def _answer(
    to: IO[bytes],
    function: Callable[..., Any] | None,
    header: dict[str, Any],
    frames: Sequence[pl.DataFrame],
) -> None:
    if function is None:
        protocol.send(to, {"kind": protocol.NOT_THIS_CODE, "text": ""}, [])
        return
    most = header["most"]
    tables = dict(zip(header["tables"], frames[1:], strict=True))
    kind, text, returned = protocol.FAILED, "", None
    try:
        with sandbox.at_most(most + sum(map(size_of, frames))):
            returned = collected(function, frames[0], tables, most)
    except ReadsFilesError as error:
        kind, text = protocol.READS, str(error)
    except TooLargeError as error:
        kind, text = protocol.TOO_LARGE, str(error)
    except MemoryError:
        kind = protocol.TOO_LARGE
        text = f"takes more memory than the {most:,} bytes allowed by max_file_memory"
    except pl.exceptions.ColumnNotFoundError as error:
        kind, text = protocol.NO_SUCH_COLUMN, str(error)
    except FUNCTION_FAULTS as error:
        first = next(iter(str(error).strip().splitlines()), "")
        text = f"failed on {header['where']}: {type(error).__name__}: {first}"
    else:
        text = "" if isinstance(returned, pl.DataFrame) else f"returned {described(returned)}"
    result = [returned] if isinstance(returned, pl.DataFrame) else []
    protocol.send(to, {"kind": kind, "text": text}, result)
