"""The annotations of `@feature`, by which type checkers judge definitions."""

from __future__ import annotations

from typing import get_args, get_type_hints

from mlforge import feature
from mlforge.core.metrics import Metric


def test_every_kind_of_metric_is_accepted_by_type_checkers() -> None:
    several, nothing = get_args(get_type_hints(feature)["metrics"])
    [element] = get_args(several)
    assert nothing is type(None)
    assert set(get_args(element)) == set(Metric.__subclasses__())
