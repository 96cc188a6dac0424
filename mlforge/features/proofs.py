"""Proofs that functions treat each row alone, remembered while the functions' code stays the same."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import polars as pl

from mlforge.features.row_wise import prove

_Shape = tuple[tuple[str, pl.DataType], ...]


@dataclass(frozen=True, slots=True)
class _Proven:
    """The shapes, of the rows and then of each table, for which the code of a hash is proven."""

    code_hash: str
    shapes: set[tuple[object, ...]] = field(default_factory=set)


_proven: weakref.WeakKeyDictionary[Callable[..., object], _Proven] = weakref.WeakKeyDictionary()


def doubt(
    function: Callable[..., object],
    code_hash: str,
    schema: pl.Schema,
    tables: Mapping[str, pl.Schema],
) -> str | None:
    """The reason why a function is not proven to treat each row of a shape alone; None if it is.

    code_hash: the function's. A proof is remembered by it, as the calls that it takes cost more than a small file does;
    a doubt is not, so that it goes as soon as its reason does.
    """
    known = _proven.get(function)
    if known is None or known.code_hash != code_hash:
        known = _proven[function] = _Proven(code_hash)
    shape = (_shape(schema), *((name, _shape(table)) for name, table in tables.items()))
    if shape in known.shapes:
        return None
    proof = prove(function, schema, tables)
    if not proof.holds:
        return proof.reason
    known.shapes.add(shape)
    return None


def _shape(schema: pl.Schema) -> _Shape:
    return tuple(schema.items())
