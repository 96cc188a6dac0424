"""Requests of the features that are made from one of which a version was published."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from worker.queue.cascade import request_readers


def test_the_server_is_asked_for_nothing_where_no_feature_is_made_from_the_published_one() -> None:
    project: Any = SimpleNamespace(definitions=SimpleNamespace(features={}))  # it has no server
    request_readers(project, "spend", "1.0.0", closed_at=None)
