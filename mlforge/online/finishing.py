"""Finishing: what rows lack of an answer is computed when they are read.

A derived column that depends on the instant is in no row, since time alone changes it. Of an entity without a
row, all derived columns are computed from the values of empty windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from mlforge.core.expression.columns import (
    Derived,
    RowDerivation,
    TypedColumn,
    columns_of_t,
    typed,
)
from mlforge.core.schema import Schema, dtypes
from mlforge.errors import ExpressionError, OnlineError
from mlforge.frames.keys import entity_key
from mlforge.online.books import OnlineBooks
from mlforge.online.decoding import Row


def answer_columns(books: OnlineBooks) -> list[str]:
    """The columns of an answer, in order: stored ones, then all derived ones."""
    derived = [column.name for column in books.derived]
    return [c.name for c in books.columns if c.name not in derived] + derived


def answer_dtypes(feature: str, books: OnlineBooks) -> dict[str, str]:
    """The dtypes of the columns of an answer, by name; OnlineError where the books' expressions do not fit."""
    known = dtypes(books.columns)
    if books.derived:
        known |= {
            column.name: column.dtype for column in _typed(feature, books.derived, books.inputs)
        }
    return known


def finished(
    feature: str,
    books: OnlineBooks,
    rows: Sequence[Row | None],
    entities: Sequence[Mapping[str, object]],
    t: int,
) -> Iterator[Mapping[str, Any]]:
    """The values of each entity as of `t`, in UTC microseconds, from its row; None is an entity without one.

    Raises OnlineError where the books' expressions do not fit their columns.
    """
    if not books.derived:
        yield from (books.empty_row() if row is None else row for row in rows)
        return
    of_row, of_empty = _derivations(feature, books.derived, books.inputs)
    names = [key.name for key in books.keys]
    row_reads_keys, empty_reads_keys = of_row.reads(names), of_empty.reads(names)
    for row, entity in zip(rows, entities, strict=True):
        values: Row = books.empty_row() if row is None else row
        derive, reads_keys = (
            (of_empty, empty_reads_keys) if row is None else (of_row, row_reads_keys)
        )
        known = values
        if reads_keys:
            own_keys = {name: entity[name] for name in names}
            known = {**values, **entity_key(own_keys, books.keys)}
        values.update(derive(known, t))
        yield values


@lru_cache(maxsize=256)
def _derivations(
    feature: str, derived: tuple[Derived, ...], inputs: Schema
) -> tuple[RowDerivation, RowDerivation]:
    """The functions that complete a row, and that complete the values of empty windows."""
    columns, of_t = _typed(feature, derived, inputs), columns_of_t(derived, feature)
    every = [column.name for column in columns]
    return RowDerivation(columns, dtypes(inputs), of_t), RowDerivation(
        columns, dtypes(inputs), every
    )


def _typed(feature: str, derived: tuple[Derived, ...], inputs: Schema) -> tuple[TypedColumn, ...]:
    try:
        columns_of_t(derived, feature)
        return typed(derived, feature, tuple(dtypes(inputs).items()), True)
    except ExpressionError as error:
        raise OnlineError(
            f"{error}\nThe books of {feature} name this expression, which this mlforge cannot evaluate: upgrade "
            f"it, or push again with 'mlforge build --features {feature} --online'"
        ) from None
