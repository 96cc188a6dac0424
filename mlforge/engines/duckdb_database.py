"""Databases in memory, each used by one evaluation at a time: to open one takes longer than most evaluations."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

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
        if folder := config.get("temp_directory"):
            # Made by a database when it first spills, and looked for no more: somebody may have swept it since.
            with suppress(OSError):  # DuckDB says so itself where it needs the folder
                Path(folder).mkdir(parents=True, exist_ok=True)
        return database
    database.close()
    return None


os.register_at_fork(before=close_idle)
