"""The engines, by name; each is imported when it is first used."""

from __future__ import annotations

from collections.abc import Callable

from mlforge.engines.base import MEMORY_LIMIT, POINT, Engine
from mlforge.engines.events import Events
from mlforge.errors import MissingExtra
from mlforge.features.feature import SPARK, check_engine

__all__ = ["MEMORY_LIMIT", "POINT", "Engine", "Events", "engine_for", "engine_named"]


def _polars() -> type[Engine]:
    from mlforge.engines.polars_engine import PolarsEngine

    return PolarsEngine


def _duckdb() -> type[Engine]:
    try:
        from mlforge.engines.duckdb_engine import DuckDBEngine
    except ModuleNotFoundError as error:
        raise MissingExtra.of("engine 'duckdb'", "duckdb") from error
    return DuckDBEngine


_ENGINES: dict[str, Callable[[], type[Engine]]] = {"polars": _polars, "duckdb": _duckdb}


def engine_named(name: str, memory_limit: int = MEMORY_LIMIT) -> Engine:
    """The engine of that name; MissingExtra if its library is not installed."""
    return _ENGINES[check_engine(name, "engine")]()(memory_limit)


def engine_for(chosen: str, memory_limit: int = MEMORY_LIMIT) -> Engine:
    """The engine of what a feature or definitions name: polars for "spark", whose executors compute with it; as `engine_named`."""
    return engine_named("polars" if chosen == SPARK else chosen, memory_limit)
