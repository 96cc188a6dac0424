"""Columns that are null throughout a file take the dtype that they have in the source's other files.

A function that asks for `.str` or `.dt` of a column must not fail because one file has no value in it, and
writers give such a column any dtype, or none. So the dtype is mended before the function sees the column.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType

import polars as pl

from mlforge.core.widening import Backing, narrowed, settle
from mlforge.errors import DataError
from mlforge.frames.polars_schema import dtype_text, parse_dtype
from mlforge.store import FileState

UNREADABLE = "-"
"""The shape of a file that was tried and could not be read."""
_NULL = "?"  # before the dtype of a column that is null throughout


def shape_of(frame: pl.DataFrame) -> str:
    """The columns of a file as text: the dtype of each, and whether it is null throughout."""
    columns = {
        each.name: (_NULL if each.null_count() == frame.height else "") + dtype_text(each.dtype)
        for each in frame.get_columns()
    }
    return json.dumps(columns, separators=(",", ":"))


class Shapes:
    """The shapes of files; that of a file like the one before is not made anew."""

    def __init__(self) -> None:
        self._last: tuple[list[str], list[pl.DataType], list[bool]] | None = None
        self._shape = ""
        self._made: dict[str, str] = {}  # very many files share few texts

    def of(self, frame: pl.DataFrame) -> str:
        """The shape of a frame, as `shape_of` makes it."""
        nulls = [each.null_count() == frame.height for each in frame.get_columns()]
        columns = frame.columns, frame.dtypes, nulls
        if columns != self._last:
            shape = shape_of(frame)
            self._last, self._shape = columns, self._made.setdefault(shape, shape)
        return self._shape


def has_null_columns(shape: str) -> bool:
    """Whether a shape has a column that is null throughout."""
    return f'":"{_NULL}' in shape


class NullColumns:
    """The dtypes that columns without a value take, given the states of all files of a source.

    adopted: those of some shapes, as they are known already.
    """

    def __init__(
        self,
        states: Mapping[str, FileState],
        adopted: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    ) -> None:
        self._states = states
        self._adopted = dict(adopted)

    def adopted(self, shape: str) -> Mapping[str, str]:
        """The dtypes, by column, that a file of this shape takes from other files; mostly empty."""
        if not has_null_columns(shape):
            return {}
        dtypes = self._adopted.get(shape)
        if dtypes is None:
            unknown_dtypes = {
                name: dtype.removeprefix(_NULL)
                for name, dtype in json.loads(shape).items()
                if dtype.startswith(_NULL)
            }
            dtypes = self._adopted[shape] = {
                name: self._settled[name]
                for name, dtype in unknown_dtypes.items()
                if name in self._settled and self._settled[name] != dtype
            }
        return dtypes

    def content(self, state: FileState) -> str:
        """A content as memo keys name it: its hash, and the dtypes that it takes from other files."""
        adopted = self.adopted(state.shape)
        return f"{state.hash} {json.dumps(adopted, sort_keys=True)}" if adopted else state.hash

    def mended(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A file's rows, with the dtypes that it takes from other files."""
        adopted = self.adopted(shape_of(frame))
        if not adopted:
            return frame
        return frame.with_columns(
            pl.lit(None, dtype=parse_dtype(dtype)).alias(name) for name, dtype in adopted.items()
        )

    @cached_property
    def _settled(self) -> Mapping[str, str]:
        """The dtype of each column that some file has values of, or that files without one give several dtypes."""
        files, rows = Counter[str](), Counter[str]()
        for state in self._states.values():
            files[state.shape] += 1
            rows[state.shape] += state.rows
        backing, untold = _Dtypes(_by_dtype), _Dtypes(_by_dtype)
        for shape, count in files.items():
            if shape in ("", UNREADABLE):
                continue
            for name, dtype in json.loads(shape).items():
                told = dtype.removeprefix(_NULL)
                own = backing if told == dtype else untold
                if told != "Null" and _can_be_made(told):
                    own[name][narrowed(told, narrow=True)] += Backing(count, rows[shape])
        unlike = {n: by for n, by in untold.items() if n not in backing and len(by) > 1}
        return {name: settle(by_dtype) for name, by_dtype in {**backing, **unlike}.items()}


_Dtypes = defaultdict[str, dict[str, Backing]]


def _by_dtype() -> dict[str, Backing]:
    return defaultdict(Backing)


def _can_be_made(dtype: str) -> bool:
    try:
        parse_dtype(dtype)
    except DataError:
        return False
    return True
