"""The plan of a shared training set holds against what a machine sees, or no task runs by it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mlforge.errors import IntegrityError
from mlforge.training_sets.set_plan import SetPlan, _use, hash_of_text


def test_a_plan_that_is_not_the_one_that_the_task_names_is_refused() -> None:
    files: Any = SimpleNamespace(text=lambda _: "{}", address="here")
    with pytest.raises(IntegrityError, match="is not the plan that the task names"):
        SetPlan.of(files, hash_of_text("{ }"))


def test_a_version_of_that_number_with_other_rows_is_refused() -> None:
    used: Any = SimpleNamespace(
        reference=SimpleNamespace(name="spend"), version="1.0.0", content_hash="a"
    )
    manifest = SimpleNamespace(name="spend", content_hash="b")
    store: Any = SimpleNamespace(manifest=lambda *_: manifest)
    with pytest.raises(IntegrityError, match=r"spend 1\.0\.0 is not the version"):
        _use(used, store)
