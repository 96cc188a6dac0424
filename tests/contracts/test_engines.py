"""Both engines keep the engine contract."""

from __future__ import annotations

import pytest

from mlforge.engines import Engine, engine_named
from mlforge.testing.engine_contract import EngineContract


class TestPolars(EngineContract):
    @pytest.fixture
    def engine(self) -> Engine:
        return engine_named("polars")


class TestDuckDB(EngineContract):
    @pytest.fixture
    def engine(self) -> Engine:
        return engine_named("duckdb")
