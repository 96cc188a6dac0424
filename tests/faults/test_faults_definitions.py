"""Definitions that change under a running plant: no version flaps, nothing of what is gone stays online."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from mlforge.errors import RetrievalError
from tests.support.faults import ASKED, Plant, running
from tests.support.invariant import Witness, assert_invariant
from tests.support.workers import eventually
from worker.project import Project
from worker.service.embedded_redis import EmbeddedServer


@pytest.fixture
def plant(redis: Redis, server: EmbeddedServer, tmp_path: Path) -> Iterator[Plant]:
    """A plant at work, with two versions of each feature online."""
    folder = tmp_path / "plant"
    folder.mkdir()
    made = Plant(folder, server.url).run_all()
    for _ in range(2):
        made.drop()
        assert_invariant(made.project, deadline_s=60)
    yield from running(made)


def edited(plant: Plant, *changes: tuple[str, str]) -> Project:
    """The project after an edit of its definitions."""
    file = plant.folder / "definitions.py"
    text = file.read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    hidden = file.with_suffix(".tmp")
    hidden.write_text(text)
    hidden.rename(file)
    return plant.reopened()


def keys(plant: Plant, feature: str) -> list[bytes]:
    return list(plant.project.redis.scan_iter(f"mlforge:{feature}*"))


WITH_MAX = ('ROLLING = [Rolling(["7d", "30s"], {"amount": ["sum", "count"]})]',
            'ROLLING = [Rolling(["7d", "30s"], {"amount": ["sum", "count", "max"]})]')  # fmt: skip


@pytest.mark.slow
def test_old_and_new_processes_at_once_make_no_version_twice(plant) -> None:
    """A rolling deploy: the new release stands in a folder of its own, both work on one store and server."""
    new = Plant.__new__(Plant)
    new.__dict__.update(
        plant.__dict__ | {"folder": plant.folder.parent / "new", "supervised": [], "processes": []}
    )
    new.__dict__.pop("project", None)
    shutil.copytree(
        plant.folder, new.folder, ignore=shutil.ignore_patterns("feature_store", "drops")
    )
    for shared in ("feature_store", "drops"):
        (new.folder / shared).symlink_to(plant.folder / shared)
    text = (plant.folder / "definitions.py").read_text()
    (new.folder / "definitions.py").write_text(text.replace(*WITH_MAX))
    before = len(plant.versions("spend"))
    for _ in running(new):
        new.run_all()
        new.drops = plant.drops
        eventually(lambda: len(plant.versions("spend")) > before)
        for _ in range(6):
            plant.drop()
            eventually(lambda: plant.drops in _amounts(plant))
        plant.stop()
        plant.drop()
        assert_invariant(new.project, deadline_s=60)
        bumps = [v.split(".")[1] for v in plant.versions("spend")]
        assert bumps == sorted(bumps)
        assert set(bumps) == {"0", "1"}, f"one change of code, one minor version: {bumps}"


def _amounts(plant: Plant) -> set[float]:
    return set(plant.store.read("newest")["amount"].to_list())


@pytest.mark.slow
def test_definitions_that_stop_importing_leave_the_old_ones_at_work(plant) -> None:
    since = plant.project.event_log.last_id()
    edited_text = (plant.folder / "definitions.py").read_text()
    with Witness(plant.project, ASKED):
        (plant.folder / "definitions.py").write_text(edited_text + "\nimport no_such_module\n")
        eventually(
            lambda: any(
                entry.kind == "definitions_broken" for entry in plant.project.event_log.read(since)
            )
        )
        plant.drop()
        assert_invariant(plant.project)
        (plant.folder / "definitions.py").write_text(edited_text)
        plant.drop()
        assert_invariant(plant.project)


@pytest.mark.slow
def test_a_feature_that_is_renamed_or_deleted_leaves_no_key_behind(plant) -> None:
    after = edited(
        plant,
        ('made("spend"', 'made("spending"'),
        ('    made("newest"),\n', ""),
        ('name="plant"', 'name="plant", gone_after="1ms"'),
    )
    # No time is promised: the new definitions are taken up first, then what is gone is looked for.
    eventually(lambda: not keys(plant, "spend:") and not keys(plant, "newest"), 180)
    assert_invariant(after)
    assert set(after.online.features()) == {"spending", "daily"}
    assert after.owned() == {"spending", "daily"}


@pytest.mark.slow
def test_a_feature_that_vanishes_is_served_as_it_stands_and_its_return_costs_nothing(plant) -> None:
    before = plant.project.online.read_batch("newest", ASKED["newest"])
    books = plant.project.online.books("newest")
    after = edited(plant, ('    made("newest"),\n', ""))
    eventually(after.gone)
    assert [gone.feature for gone in after.gone()] == ["newest"]
    shown = plant.ask_apart("status")
    assert "newest is gone from the definitions" in shown.stdout
    assert after.online.read_batch("newest", ASKED["newest"]) == before
    back = edited(plant, ('    made("daily"', '    made("newest"),\n    made("daily"'))
    eventually(lambda: not back.gone())
    assert back.online.books("newest") == books
    assert back.online.read_batch("newest", ASKED["newest"]) == before


@pytest.mark.slow
def test_a_feature_whose_keys_change_leaves_no_row_of_the_old_ones(plant) -> None:
    after = edited(
        plant,
        ('keys=["user_id"]', 'keys=["at", "user_id"] if name == "newest" else ["user_id"]'),
        ('timestamp="at"', 'timestamp=None if name == "newest" else "at"'),
        ('("user_id", "at", "amount")', '("user_id", pl.col("at").dt.date(), "amount") if name == "newest" else df.select("user_id", "at", "amount")'),
    )  # fmt: skip
    plant.drop((1, 86_400 * 20, 1.0))
    online = after.online

    def pushed() -> bool:
        books = online.books("newest")
        return bool(books and books.target and books.target.version[0] == "2" and not books.pending)

    eventually(pushed)
    with pytest.raises(RetrievalError, match="'at' is missing; the keys are user_id, at"):
        online.read_batch("newest", ASKED["newest"])
    assert online.books("newest").rows == len(keys(plant, "newest:"))


@pytest.mark.slow
def test_a_rollback_and_then_a_drop_is_held_until_somebody_approves(plant) -> None:
    before = [file.read_bytes() for file in sorted((plant.folder / "drops").iterdir())[:1]]
    with Witness(plant.project, ASKED, rolled_back=True):
        assert plant.ask_apart("rollback", "spend").returncode == 0
        plant.drop()
        assert_invariant(
            plant.project, held=["spend"], good={"spend": before}, features=["spend", "newest"]
        )
        assert plant.ask_apart("status").returncode == 1
        assert plant.ask_apart("approve", "spend").returncode == 0
        assert_invariant(plant.project)
