"""Detection of functions that read files by themselves, whose changes no refresh would notice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import FunctionType
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from mlforge.features import native_reads, purity
from mlforge.features.ast_form import nested
from mlforge.features.by_function import ByFunction
from mlforge.features.references import reachable

_SCANS = ("Scan", "PythonScan")
_READERS = frozenset(
    {"open", *(name for name in dir(pl) if name.startswith(("read_", "scan_")))}
) - {"read_excel"}  # fmt: skip

# How a function's code reads files; empty where it does not.
_in_code: ByFunction[str] = ByFunction()
# A function that caches what it has read shows its reading at its first call only.
_verdicts: ByFunction[str] = ByFunction()


def files_in_code(function: Callable[..., object], code_hash: str = "") -> str | None:
    """The way in which a function's code reads files by itself, as the end of a sentence; None if none is seen.

    Branches that only certain rows lead into are seen, too. code_hash: the function's; the answer is remembered
    as long as it stays the same.
    """
    way = _in_code.get(function, code_hash) if code_hash else None
    if way is None:
        way = _of_code(function) or ""
        _in_code.remember(function, code_hash, way)
    return way or None


def files_read(
    function: Callable[..., object],
    schema: pl.Schema,
    tables: Mapping[str, pl.Schema],
    code_hash: str = "",
) -> str | None:
    """The way in which a function reads files by itself, as the end of a sentence; None if it is not seen to read any.

    Its code is looked at, and it is called with empty frames, lazy and eager, of the rows' and the tables' schemas.
    code_hash: the function's; the verdict is remembered as long as it stays the same. Raises nothing but MemoryError.
    """
    if verdict := _verdicts.get(function, code_hash):
        return verdict
    reads = files_in_code(function, code_hash) or _of_calls(function, schema, tables)
    if reads:
        _verdicts.remember(function, code_hash, reads)
    return reads


def scans_files(frame: pl.LazyFrame, allowed: Collection[object] = ()) -> bool:
    """Whether a plan scans files, or any source but the allowed ones."""

    def scans() -> bool:
        flags = pl.QueryOptFlags.none()._pyoptflags
        return _scans_below(frame._ldf.with_optimizations(flags).visit(), allowed)

    return purity.call_unwatched(scans).result is True  # polars may panic over a plan


def _scans_below(nodes: Any, allowed: Collection[object]) -> bool:
    try:
        node = nodes.view_current_node()
        kind = type(node).__name__
        ours = kind == "PythonScan" and any(
            node.options[0].io_source is source for source in allowed
        )
        if kind in _SCANS and not ours:
            return True
    except (NotImplementedError, AttributeError):  # a step that polars does not show reads nothing
        pass
    for below in nodes.get_inputs():
        nodes.set_node(below)
        if _scans_below(nodes, allowed):
            return True
    return False


def _of_code(function: Callable[..., object]) -> str | None:
    """Plans of files among a function's constants, and helpers that keep what they read."""
    for value in reachable(function):
        if isinstance(value, pl.LazyFrame) and scans_files(value):
            return "a constant that it uses is a scan of files"
        kept = getattr(value, "__wrapped__", None) if hasattr(value, "cache_info") else None
        if not isinstance(kept, FunctionType):
            continue
        for code in nested(kept.__code__):
            if readers := _READERS & set(code.co_names):
                return f"{kept.__name__}() keeps what {min(readers)} gave"
    return native_reads.in_code(function)


def _of_calls(
    function: Callable[..., object], schema: pl.Schema, tables: Mapping[str, pl.Schema]
) -> str | None:
    shapes = [schema, *tables.values()]
    sources = [_Nothing(shape) for shape in shapes]
    lazy = [register_io_source(s, schema=shape) for s, shape in zip(sources, shapes, strict=True)]
    eager = [pl.DataFrame(schema=shape) for shape in shapes]
    frames: list[Any]
    for frames in (lazy, eager):
        first, further = frames[0], dict(zip(tables, frames[1:], strict=True))
        outcome = purity.call(lambda first=first, further=further: function(first, **further))  # type: ignore[misc]
        if outcome.reads:
            return outcome.reads
        if isinstance(outcome.result, pl.LazyFrame) and scans_files(outcome.result, sources):
            return "its plan has a scan of files"
        if outcome.error is None:
            return None
    return None


class _Nothing:
    """A source of frames without rows."""

    def __init__(self, schema: pl.Schema) -> None:
        self.schema = schema

    def __call__(self, columns: list[str] | None, *_: object) -> Any:
        yield pl.DataFrame(schema=self.schema).select(columns or pl.all())
