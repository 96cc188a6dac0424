"""Stored files that cannot be read: one error, whichever library raised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl

from mlforge.errors import IntegrityError

_UNREADABLE = (
    FileNotFoundError,
    pl.exceptions.ComputeError,
    pl.exceptions.ColumnNotFoundError,
    pl.exceptions.SchemaError,
    pl.exceptions.PanicException,
)


@contextmanager
def intact(name: str) -> Iterator[None]:
    """Turn polars' errors over a feature's unreadable stored file into IntegrityError."""
    try:
        yield
    except _UNREADABLE as error:
        reason = next(iter(str(error).splitlines()), "")
        if isinstance(error, pl.exceptions.ComputeError) and "parquet" not in reason:
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
