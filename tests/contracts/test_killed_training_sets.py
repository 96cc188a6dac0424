"""Training sets whose process is killed: nothing is visible, and nothing stays for ever, neither rows on the disk nor versions in the store."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mlforge import TrainingSet, training_set
from mlforge.core import clock, failpoints
from mlforge.core.values import Duration
from mlforge.maintenance.operations import prune
from mlforge.maintenance.retention import Retention
from mlforge.store import LocalStore
from mlforge.store.records import SetPin
from tests.support.projects import Project, rows

MAKING = """
import os, signal, sys
from mlforge import training_set
from mlforge.core import failpoints
from mlforge.store import LocalStore
place, store, spine, out = sys.argv[1:]
failpoints.arm(place, lambda: os.kill(os.getpid(), signal.SIGKILL))
training_set(spine, ["spend"], LocalStore(store), out, part_rows=2)
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A feature, and a spine of five rows in `spine.parquet`."""
    made = Project(tmp_path)
    made.drop("a", rows(*((n % 2, n, n / 7) for n in range(9))))
    made.build()
    rows(*((n % 2, n, 0.0) for n in range(5))).drop("amount").write_parquet(
        tmp_path / "spine.parquet"
    )
    return made


def killed(project: Project, place: str) -> Path:
    """The folder of a set whose process was killed at a place."""
    assert isinstance(project.store, LocalStore)
    out = project.root / "sets" / "killed"
    about = (place, project.store.path, project.root / "spine.parquet", out)
    ended = subprocess.run([sys.executable, "-c", MAKING, *map(str, about)], check=False)
    assert ended.returncode == -signal.SIGKILL
    return out


def test_what_a_killed_set_left_goes_with_the_next_and_its_versions_at_the_latest_after_a_week(
    project: Project,
) -> None:
    out, store, spine = (
        killed(project, "set.written"),
        project.store,
        project.root / "spine.parquet",
    )
    assert not out.exists()
    assert len([*out.parent.glob(".killed.*")]) == 1
    for day in (70, 71):
        project.drop(f"more{day}", rows((1, day, 1.0)))
        project.build()
    now = clock.now()

    def prunable() -> list[str]:
        [pruned] = prune(store, ["spend"], Retention(newest=1), dry_run=True)
        return [str(version) for version in pruned.versions]

    with clock.fixed(now + Duration.parse("6d").us):
        assert "1.0.0" not in prunable()
    with clock.fixed(now + Duration.parse("8d").us):
        assert "1.0.0" in prunable()
    other = training_set(spine, ["spend"], store, out.with_name("other"))

    assert [path.name for path in out.parent.iterdir()] == ["other"]
    assert [*store.books("spend").sets] == [other.document.id]
    assert "1.0.0" in prunable()
    assert training_set(spine, ["spend"], store, out, part_rows=2).verify() == []


def test_a_set_whose_process_is_killed_behind_its_last_step_is_whole_and_keeps_its_versions(
    project: Project,
) -> None:
    out, store = killed(project, "set.published"), project.store
    made = TrainingSet.open(out)
    assert (made.rows, made.verify()) == (5, [])
    training_set(project.root / "spine.parquet", ["spend"], store, out.with_name("other"))

    assert store.books("spend").sets[made.document.id].until is None
    assert sorted(path.name for path in out.parent.iterdir()) == ["killed", "other"]


def test_a_set_that_another_machine_began_keeps_its_versions_for_a_week_alone(
    project: Project,
) -> None:
    store, now, begun = project.store, clock.now(), "f" * 32
    until = now + Duration.parse("7d").us
    with store.lock("spend"):
        pins = {begun: SetPin(("1.0.0",), str(project.root / "elsewhere"), now, until)}
        store.write_books("spend", replace(store.books("spend"), sets=pins))
    held = []
    for instant in (until - 1, until):
        with clock.fixed(instant):
            training_set(
                project.root / "spine.parquet", ["spend"], store, project.root / str(instant)
            )
        held.append(begun in store.books("spend").sets)
    assert held == [True, False]


def test_a_set_that_is_being_made_is_left_alone(project: Project) -> None:
    store, spine, sets = project.store, project.root / "spine.parquet", project.root / "sets"
    nested = []

    def another() -> None:
        if not nested:
            nested.append(None)
            training_set(spine, ["spend"], store, sets / "second")

    failpoints.arm("set.written", another)
    try:
        first = training_set(spine, ["spend"], store, sets / "first")
    finally:
        failpoints.disarm()

    assert first.verify() == []
    assert len(store.books("spend").sets) == 2
    assert {pin.until for pin in store.books("spend").sets.values()} == {None}
