"""Proofs that functions treat each row alone, remembered while the functions' code stays the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import polars as pl

from mlforge.features.by_function import ByFunction
from mlforge.features.row_wise import prove

_Shape = tuple[tuple[str, pl.DataType], ...]

# The shapes, of the rows and then of each table, for which a function is proven.
_proven: ByFunction[set[tuple[object, ...]]] = ByFunction()


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
    shapes = _proven.get(function, code_hash) or set()
    shape = (_shape(schema), *((name, _shape(table)) for name, table in tables.items()))
    if shape in shapes:
        return None
    proof = prove(function, schema, tables)
    if not proof.holds:
        return proof.reason
    _proven.remember(function, code_hash, {*shapes, shape})
    return None


def _shape(schema: pl.Schema) -> _Shape:
    return tuple(schema.items())
