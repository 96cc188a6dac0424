"""Databases in memory: one after another uses the same, two at once never do, and none survives an error or a fork."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from mlforge.engines import duckdb_database

CONFIG, OTHER = {"memory_limit": "200MB"}, {"memory_limit": "300MB"}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The memory limits of the databases that were opened."""
    limits: list[str] = []
    connect = duckdb.connect

    def counted(config: dict[str, str]) -> duckdb.DuckDBPyConnection:
        limits.append(config["memory_limit"])
        return connect(config=config)

    duckdb_database.close_idle()
    monkeypatch.setattr(duckdb, "connect", counted)
    yield limits
    duckdb_database.close_idle()


def use(config: dict[str, str]) -> None:
    with duckdb_database.connection(config) as connection:
        [(limit,)] = connection.sql("select current_setting('memory_limit')").fetchall()
        assert limit == {"200MB": "190.7 MiB", "300MB": "286.1 MiB"}[config["memory_limit"]]


def test_one_after_another_uses_the_same_database_and_sees_nothing_of_the_other(
    opened: list[str],
) -> None:
    with duckdb_database.connection(CONFIG) as connection:
        connection.register("line", connection.sql("select 1 as n").to_arrow_table())
        assert connection.sql("select n from line").fetchall() == [(1,)]
    unknown = pytest.raises(duckdb.CatalogException, match="line")
    with unknown, duckdb_database.connection(CONFIG) as connection:
        connection.sql("select n from line")
    assert opened == ["200MB"]


def test_another_configuration_has_a_database_of_its_own(opened: list[str]) -> None:
    use(CONFIG)
    use(OTHER)
    use(OTHER)
    use(CONFIG)
    assert opened == ["200MB", "300MB", "200MB"]


def test_two_at_once_share_neither_database_nor_memory(opened: list[str]) -> None:
    with duckdb_database.connection(CONFIG), duckdb_database.connection(CONFIG):
        assert len(opened) == 2
    use(CONFIG)
    assert len(opened) == 2


def test_a_database_is_not_used_again_after_an_error(opened: list[str]) -> None:
    with (
        pytest.raises(duckdb.OutOfRangeException),
        duckdb_database.connection(CONFIG) as connection,
    ):
        connection.sql("select 9223372036854775807::bigint + n from range(1, 3) t(n)").fetchall()
    use(CONFIG)
    assert len(opened) == 2


@pytest.mark.slow
def test_a_folder_for_spilling_that_was_swept_meanwhile_is_there_again(
    opened: list[str], tmp_path: Path
) -> None:
    config = {"memory_limit": "64MB", "threads": "1", "temp_directory": str(tmp_path / "spilled")}
    numbers = "select i, md5(i::varchar) text from range(1000000) t(i)"
    spilling = f"select sum(place * i) from (select i, row_number() over (order by text) place from ({numbers}))"
    answers = []
    for _ in range(2):
        with duckdb_database.connection(config) as connection:
            answers += connection.sql(spilling).fetchall()
        shutil.rmtree(tmp_path / "spilled")  # missing unless the statement spilled
    assert answers[0] == answers[1]
    assert opened == ["64MB"]


def test_a_process_that_is_forked_off_inherits_none(opened: list[str]) -> None:
    use(CONFIG)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            use(CONFIG)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    use(CONFIG)
    assert len(opened) == 2
