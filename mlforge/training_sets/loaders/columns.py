"""Columns of a training set that a library takes: which are meant, and which it holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module

import polars as pl

from mlforge.core.arguments import shown
from mlforge.core.repeated import first_repeated
from mlforge.errors import MissingExtra, RetrievalError, did_you_mean
from mlforge.frames.polars_schema import dtype_text

TEXTS = (pl.String, pl.Categorical, pl.Enum)
_NUMBERS = (
    *(pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64),
    *(pl.Float32, pl.Float64, pl.Decimal, pl.Boolean, pl.Null),
)


def check_library(name: str, extra: str) -> None:
    """Raise MissingExtra unless a library can be imported, of which an extra of mlforge knows."""
    try:
        import_module(name)
    except ImportError as error:
        raise MissingExtra.of(f"TrainingSet.to_{extra}", extra) from error


def named_columns(
    known: Sequence[str], columns: Iterable[str] | None, default: Iterable[str]
) -> list[str]:
    """The columns that a caller names, each once, or else the default ones; known: all that the set has.

    Raises RetrievalError for what is no list of names, and for a column that the set does not have.
    """
    if isinstance(columns, str) or not isinstance(columns, (Iterable, type(None))):
        raise RetrievalError(
            f"columns is {shown(columns)}; give a list of names, as in columns=[{known[-1]!r}]"
        )
    names = list(default if columns is None else columns)
    for name in names:
        check_column(known, name)
    twice = first_repeated(names)
    if twice is not None:
        raise RetrievalError(f"columns has {twice!r} twice; name it once")
    if not names:
        raise RetrievalError(
            f"no column is left to learn from; name some with columns=, of {', '.join(known)}"
        )
    return names


def check_column(known: Sequence[str], name: object) -> None:
    """Raise RetrievalError for a column that the set does not have."""
    if not isinstance(name, str) or name not in known:
        raise RetrievalError(
            f"the training set has no column {shown(name)}; {did_you_mean(name, known)}"
        )


def is_number(dtype: pl.DataType) -> bool:
    """Whether values are numbers or booleans of at most 64 bits, decimals among them, or all null."""
    return isinstance(dtype, _NUMBERS)


def check_numbers(schema: Mapping[str, pl.DataType], names: Iterable[str], taker: str) -> None:
    """Raise RetrievalError for a column of neither numbers nor booleans."""
    for name in names:
        if not is_number(schema[name]):
            raise misfit(name, schema[name], taker, "numbers and booleans")


def misfit(name: str, dtype: pl.DataType, taker: str, kinds: str) -> RetrievalError:
    """The error for a column that a library does not take."""
    return RetrievalError(
        f"{name!r} is {dtype_text(dtype)}, and {taker} takes {kinds}; leave it out with columns=[...], or make a number of it "
        "in the feature or the spine"
    )
