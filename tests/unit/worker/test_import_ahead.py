"""Modules that a worker imports before it forks."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlforge import engines
from tests.support.projects import Project
from worker.queue.rq_worker import import_ahead


@pytest.mark.parametrize(("named", "imported"), [((None, "polars"), 0), ((None, "duckdb"), 1)])
def test_an_engine_is_imported_ahead_if_a_feature_names_it(
    named: tuple[str | None, ...], imported: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int] = []
    monkeypatch.setitem(engines._ENGINES, "duckdb", lambda: limits.append)
    project = Project(tmp_path)
    features = [project.define(name=f"f{n}", engine=name) for n, name in enumerate(named)]
    import_ahead(project.definitions(*features))
    assert len(limits) == imported
