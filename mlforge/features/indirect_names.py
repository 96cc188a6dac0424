"""Values that code uses by names which are not its own: methods that were put onto frames, and tables that a query names."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from types import FunctionType
from typing import Any

_FRAMES = {
    "polars": ("DataFrame", "LazyFrame", "Series", "Expr"),
    "pandas": ("DataFrame", "Series", "Index"),
}
"""Classes of frames, whose methods and namespaces anybody may add to."""
_QUERIES = frozenset({"eval", "execute", "from_query", "query", "sql"})
"""Calls that find variables of Python by their names in a text."""
_HOMES_OF_ROWS = frozenset({"_duckdb", "duckdb", "numpy", "pandas", "polars", "pyarrow"})
_NAME = re.compile(r"(@?)\b([^\W\d]\w*)")


def added_to_frames(names: Iterable[str], is_own: Callable[[object], bool]) -> Mapping[str, object]:
    """Methods and namespaces with these names that were put onto classes of frames, as `pl.api.register_expr_namespace` does.

    is_own: whether a function or a class counts for what it does.
    """
    kinds = [
        (f"{package}.{name}", getattr(sys.modules[package], name, None))
        for package, of_package in _FRAMES.items()
        if package in sys.modules
        for name in of_package
    ]
    found = ((f"{of}.{name}", _found(kind, name)) for of, kind in kinds for name in names)
    return {name: value for name, value in found if value is not None and is_own(value)}


def named_in_queries(
    names: Collection[str], texts: Iterable[str], known: Mapping[str, Any]
) -> Mapping[str, object]:
    """Frames that a query names as tables, and values that it names with an @, if the code with these names makes queries.

    known: the variables that may be meant, by name.
    """
    if _QUERIES.isdisjoint(names):
        return {}
    mentioned = {match[2]: match[1] for text in texts for match in _NAME.finditer(text)}
    return {
        name: known[name]
        for name in sorted(mentioned.keys() & known.keys())
        if mentioned[name] or type(known[name]).__module__.partition(".")[0] in _HOMES_OF_ROWS
    }


def _found(kind: object, name: str) -> object:
    """The function or class behind an attribute of a class; None for one that no user can have added."""
    value = getattr(kind, name, None)
    value = value.fget if isinstance(value, property) else value
    return value if isinstance(value, (FunctionType, type)) else None
