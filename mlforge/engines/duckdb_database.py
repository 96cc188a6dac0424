"""Databases in memory, each used by one evaluation at a time: to open one takes longer than most evaluations."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import duckdb

Config = Mapping[str, str]
_idle: list[tuple[Config, duckdb.DuckDBPyConnection]] = []
"""The database that the next evaluation of its configuration takes; at most one, so that memory is bounded."""


@contextmanager
def connection(config: Config) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to a database that nobody else uses; what is registered ends with the block.

    config: DuckDB's settings. After an error of the block the database is not used again.
    """
    database = _idle_with(config) or duckdb.connect(config=dict(config))
    try:
        with database.cursor() as cursor:
            yield cursor
    except BaseException:
        database.close()
        raise
    if _idle:
        database.close()
    else:
        _idle.append((config, database))


def close_idle() -> None:
    """Close the database that waits for the next evaluation: its threads would not be there after a fork."""
    while _idle:
        _idle.pop()[1].close()


def _idle_with(config: Config) -> duckdb.DuckDBPyConnection | None:
    try:
        known, database = _idle.pop()
    except IndexError:
        return None
    if known == config:
        return database
    database.close()
    return None


os.register_at_fork(before=close_idle)
