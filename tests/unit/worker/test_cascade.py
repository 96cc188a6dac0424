"""Requests of the features that are made from one of which a version was published."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.support.projects import Project, rows
from worker.queue.cascade import has_moved, request_readers


def test_the_server_is_asked_for_nothing_where_no_feature_is_made_from_the_published_one() -> None:
    project: Any = SimpleNamespace(definitions=SimpleNamespace(features={}))  # it has no server
    request_readers(project, "spend", "1.0.0", closed_at=None)


def test_a_source_without_a_version_has_not_moved(tmp_path: Path) -> None:
    made = Project(tmp_path)
    made.drop("a", rows((1, 0, 1.0)))
    spend = made.define(metrics=[])
    definitions = made.definitions(spend, made.define(name="copy", source=spend, metrics=[]))
    project: Any = SimpleNamespace(definitions=definitions)
    definitions.build()
    assert not has_moved(project, "copy")
    made.drop("b", rows((1, 1, 1.0)))
    definitions.build(features=["spend"])
    assert has_moved(project, "copy")
    shutil.rmtree(tmp_path / "store/spend")
    assert not has_moved(project, "copy")
