"""Stored files that cannot be read are one error, which says what works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from mlforge.engines.events import events_of
from mlforge.errors import IntegrityError
from mlforge.store.integrity import intact
from tests.support.projects import Project, rows


def vanish(path: Path) -> None:
    path.unlink()


def flip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def garble(path: Path) -> None:
    path.write_bytes(b"PAR1 nothing of use PAR1")


@pytest.mark.parametrize(
    ("harm", "said"),
    [(vanish, "is gone: .* ask again"), (flip, "mlforge verify"), (garble, "mlforge verify")],
)
def test_a_file_that_goes_or_breaks_after_it_was_looked_up_is_an_integrity_error(
    harm: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    project = Project(tmp_path / "project")
    project.drop("one", rows((1, 0, 1.0), (2, 1, 2.0)))
    project.build()
    events = events_of(project.store, project.store.read_metadata("spend"))
    [task] = events.tasks
    harm(Path(task.file))
    with (
        pytest.raises(IntegrityError, match=f"spend: what is stored cannot be read.*{said}"),
        intact("spend"),
    ):
        events.scan().collect()


def test_an_error_that_is_no_damage_stays_what_it_is() -> None:
    with pytest.raises(pl.exceptions.ComputeError), intact("spend"):
        raise pl.exceptions.ComputeError("a list is too short")


@pytest.mark.parametrize(
    ("error", "is_damage"),
    [
        (pl.exceptions.ComputeError("parquet: File out of specification: invalid utf8"), True),
        (pl.exceptions.ComputeError("parquet error: Error { source_location: .. }"), True),
        (pl.exceptions.ComputeError("cannot compare the column 'parquet' with a number"), False),
        (pl.exceptions.InvalidOperationError("unable to decode the encoded schema stored"), True),
        (pl.exceptions.InvalidOperationError("conversion from `str` to `i64` failed"), False),
    ],
)
def test_damage_is_told_by_what_a_message_begins_with(error: Exception, is_damage: bool) -> None:
    with pytest.raises(IntegrityError if is_damage else type(error)), intact("spend"):
        raise error
