"""The plan of a shared training set holds against what a machine sees, or no task runs by it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from mlforge.errors import IntegrityError
from mlforge.training_sets.by_tasks.set_plan import SetPlan, _use, hash_of_text, planned_files
from mlforge.training_sets.spines import FileSpine


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


def test_a_file_knows_how_many_rows_of_a_crowded_stretch_lie_in_earlier_files(
    tmp_path: Path,
) -> None:
    paths = [tmp_path / f"{number}.parquet" for number in range(3)]
    for path in paths:
        pl.DataFrame({"at": [datetime(2026, 1, 1, tzinfo=UTC)] * 6}).write_parquet(path)
    shared: Any = SimpleNamespace(shared=str)
    files, slices = planned_files(FileSpine(paths), "at", 4, shared)
    assert slices is not None
    assert slices.crowded
    assert [sum(count for _, count in file.seen) for file in files] == [0, 6, 12]
