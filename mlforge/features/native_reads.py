"""Files that a function's code reads through libraries that open them unheard: DuckDB, Arrow and polars.

The code is looked at, not run: so it tells of branches, too, that only certain rows lead into.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import PurePath
from types import CodeType, FunctionType, ModuleType
from typing import Any

import polars as pl

from mlforge.features.ast_form import nested
from mlforge.features.references import Home, module_of, reachable

# Functions that open files, by the package that has them.
_READERS = {
    "duckdb": frozenset(
        [
            "from_csv_auto",
            "from_parquet",
            "parquet_scan",
            "read_csv",
            "read_csv_auto",
            "read_json",
            "read_parquet",
        ]
    ),
    "pandas": frozenset(["read_feather", "read_orc", "read_parquet"]),
    "polars": frozenset(name for name in dir(pl) if name.startswith(("read_", "scan_"))),
    "pyarrow": frozenset(
        [
            "FileSystemDataset",
            "LocalFileSystem",
            "ORCFile",
            "OSFile",
            "ParquetDataset",
            "ParquetFile",
            "dataset",
            "input_stream",
            "memory_map",
            "open_csv",
            "open_json",
            "read_csv",
            "read_feather",
            "read_json",
            "read_metadata",
            "read_pandas",
            "read_schema",
            "read_table",
        ]
    ),
}
_SQL = {"duckdb": None, "polars": frozenset({"SQLContext", "sql"})}
_SUFFIXES = "parquet|csv|tsv|jsonl?|ndjson|duckdb|ddb|db|arrow|feather|ipc|avro|orc|xlsx"
_FILE_IN_SQL = re.compile(
    rf"""\b(?:read_\w+|\w+_scan|glob|sniff_csv|parquet_\w+)\s*\(       # a table function over files
    | \b(?:from|join)\s*\(?\s*(?:'|"[^"\n]*\.(?:{_SUFFIXES})(?:\.\w+)?")  # a file in a table's place
    | \battach\s+(?:database\s+)?(?:if\s+not\s+exists\s+)?'""",
    re.IGNORECASE | re.VERBOSE,
)
_DATABASE = re.compile(r"[^'\"\n]*\.(?:duckdb|ddb|db)", re.IGNORECASE)
_VIEWS = "select sql from duckdb_views() where not internal"
_FILES = "select path from duckdb_databases() where path is not null and not internal"


def files_in_sql(text: object) -> bool:
    """Whether a text of SQL reads files: by a table function, or by a file's name in the place of a table."""
    return isinstance(text, str) and _FILE_IN_SQL.search(text) is not None


def in_code(function: Callable[..., object]) -> str | None:
    """The way in which the code of a function or its helpers reads files, as the end of a sentence; None if it does not."""
    home, values = Home.of(function), reachable(function)
    texts = [value for value in values if isinstance(value, str | PurePath)]
    for value in values:
        if (way := _of_constant(value)) is not None:
            return way
        if isinstance(value, FunctionType) and home.owns(module_of(value)):
            for code in nested(value.__code__):
                if (way := _of_code(code, value, texts)) is not None:
                    return way
    return None


def _of_code(code: CodeType, function: FunctionType, texts: list[str | PurePath]) -> str | None:
    """The first library that the code has read files; texts: constants of the module that it may use."""
    names = set(code.co_names)
    packages = dict(_packages(code, function))
    for package, reader in sorted((p, n) for p in packages for n in _READERS[p] & names):
        if package == "duckdb" or any(_is_its(module, reader) for module in packages[package]):
            return f"{package}: {reader}"
    for package in sorted(packages.keys() & _SQL.keys()):
        calls = _SQL[package]
        if calls is not None and not calls & names:
            continue
        constants = [text for text in _strings(code) if text != function.__doc__]
        for text in [*constants, *texts]:
            opens = package == "duckdb" and "connect" in names and _DATABASE.fullmatch(str(text))
            if opens or files_in_sql(text):
                return f"{package}: {' '.join(str(text).split())[:60]}"
    return None


def _packages(code: CodeType, function: FunctionType) -> Iterator[tuple[str, list[ModuleType]]]:
    """The packages of readers that a code uses, each with those of its modules that the code has by name."""
    known = [function.__globals__.get(name) for name in code.co_names]
    known += [sys.modules.get(name) for name in code.co_names]  # imported within the function
    closure = [cell.cell_contents for cell in function.__closure__ or () if _is_bound(cell)]
    modules: dict[str, list[ModuleType]] = {}
    for value in [*known, *closure]:
        name = getattr(value, "__name__" if isinstance(value, ModuleType) else "__module__", None)
        package = str(name).partition(".")[0].lstrip("_")
        if package in _READERS:
            owner = value if isinstance(value, ModuleType) else sys.modules.get(str(name))
            modules.setdefault(package, []).extend([owner] if owner is not None else [])
    yield from modules.items()


def _is_its(module: ModuleType, name: str) -> bool:
    """Whether a module, or a module in it, has a function or class of a name."""
    below = [value for value in vars(module).values() if isinstance(value, ModuleType)]
    package = module.__name__.partition(".")[0]
    own = [each for each in below if each.__name__.partition(".")[0] == package]
    return any(callable(getattr(each, name, None)) for each in [module, *own])


def _is_bound(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - asks whether there is one
    except ValueError:
        return False
    return True


def _strings(code: CodeType) -> Iterator[str]:
    """The constant texts of a code, also those within tuples."""
    constants = list(code.co_consts)
    while constants:
        constant = constants.pop()
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, tuple | frozenset):
            constants.extend(constant)


def _of_constant(value: object) -> str | None:
    """The files behind a connection or a relation of DuckDB's: each call reads them anew."""
    if not type(value).__module__.lstrip("_").startswith("duckdb"):
        return None
    connection: Any = value
    try:
        if hasattr(value, "sql_query"):
            return "duckdb: a relation over files" if files_in_sql(connection.sql_query()) else None
        if not hasattr(value, "cursor"):
            return None
        cursor = connection.cursor()
        if cursor.execute(_FILES).fetchall():
            return "duckdb: a connection to a database file"
        views = cursor.execute(_VIEWS).fetchall()
    except Exception:  # noqa: BLE001 - a connection that was closed, or is at work, tells nothing
        return None
    return "duckdb: a view of files" if any(files_in_sql(sql) for (sql,) in views) else None
