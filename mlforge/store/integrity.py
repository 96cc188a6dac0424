"""Stored files that cannot be read: one error, whichever library raised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import polars as pl

from mlforge.errors import IntegrityError
from mlforge.sources.damage import DAMAGE

T = TypeVar("T")
_UNREADABLE = (
    FileNotFoundError,
    pl.exceptions.ComputeError,
    pl.exceptions.InvalidOperationError,
    pl.exceptions.ColumnNotFoundError,
    pl.exceptions.SchemaError,
    pl.exceptions.PanicException,
)
_MAYBE_ELSE = (pl.exceptions.ComputeError, pl.exceptions.InvalidOperationError)
"""Errors that computing ends in, too."""
_OF_FILES = ("parquet: ", "parquet error", "unable to decode the encoded schema")
"""The beginnings of the messages of the same errors where they are of a file's bytes."""


def mended(mend: Callable[[], bool], read: Callable[[], T]) -> T:
    """The result of a reading; of a second one where the first met damage that could be mended."""
    try:
        return read()
    except (*DAMAGE, IntegrityError):
        if not mend():
            raise
        return read()


@contextmanager
def intact(name: str) -> Iterator[None]:
    """Turn polars' errors over a feature's unreadable stored file into IntegrityError."""
    try:
        yield
    except _UNREADABLE as error:
        reason = next(iter(str(error).splitlines()), "")
        if isinstance(error, _MAYBE_ELSE) and not reason.startswith(_OF_FILES):
            raise
        meanwhile = (
            "a file is gone: if its version was pruned or its events were packed anew meanwhile, ask again; "
            if isinstance(error, FileNotFoundError)
            else ""
        )
        raise IntegrityError(
            f"{name}: what is stored cannot be read ({reason}); {meanwhile}'mlforge verify' names what is "
            f"damaged: 'mlforge build --features {name} --full' makes it anew from the source, "
            "or restore it from a backup"
        ) from error
