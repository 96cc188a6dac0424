"""An intake that real workers share: one killed at a task, the process that builds killed midway, a damaged file among the others."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.test_worker_shared_build import (
    SETTINGS,
    SHARED,
    history,
    is_as_at_home,
)
from tests.support.workers import (
    Shop,
    eventually,
    running_shop,
    several,
    write,
)
from worker.service.embedded_redis import EmbeddedServer

GROUPS = 7
IN_GROUPS = """
import uuid

import mlforge.build.intake_by_tasks.tasks

mlforge.build.intake_by_tasks.tasks.GROUP_FILES = 2


def results():
    return sum('"partials"' in path.read_text() for path in HERE.glob("feature_store/spend/.tasks/*.json"))


def hold_ingested():
    (HERE / f"ingested-{os.getpid()}-{uuid.uuid4().hex}").touch()
    while is_there("hold_ingested") and results() > 2:
        time.sleep(0.01)


failpoints.arm("task.ingested", hold_ingested)
"""


@pytest.fixture
def shop(server: EmbeddedServer, tmp_path: Path) -> Iterator[Shop]:
    about = {
        "definitions": several({"spend": "drops/"}, settings=SETTINGS) + SHARED + IN_GROUPS,
        "sources": ["drops"],
    }
    with running_shop(server, tmp_path, (), **about) as made:
        history(made)
        write(made.folder / "drops" / "bad.parquet", b"PAR1 no parquet PAR1")
        yield made


def ingested(shop: Shop) -> list[str]:
    """The processes that have ingested a group of files, once for each."""
    return [path.name.split("-")[1] for path in shop.folder.glob("ingested-*")]


@pytest.mark.slow
def test_a_worker_that_is_killed_at_a_group_of_files_costs_no_more_than_the_group(
    shop: Shop, tmp_path: Path
) -> None:
    shop.start_rq_workers(2)
    (shop.folder / "hold_claimed").touch()
    build = shop.start("build")

    eventually(lambda: list(shop.folder.glob("claimed-*")))
    held = next(shop.folder.glob("claimed-*"))
    os.kill(int(held.name.partition("-")[2]), signal.SIGKILL)
    (shop.folder / "hold_claimed").unlink()

    assert build.wait(60) == 1  # as a file is set aside
    assert len(ingested(shop)) == GROUPS
    assert len({*ingested(shop)}) > 1
    assert [*shop.store.books("spend").quarantine] == ["bad.parquet"]
    is_as_at_home(shop, tmp_path)


@pytest.mark.slow
def test_a_build_that_is_killed_amid_the_intake_is_taken_up_with_the_groups_that_are_done(
    shop: Shop, tmp_path: Path
) -> None:
    shop.start_rq_workers(1)
    (shop.folder / "hold_ingested").touch()
    build = shop.start("build")
    results = shop.folder / "feature_store" / "spend" / ".tasks"
    eventually(lambda: sum('"partials"' in p.read_text() for p in results.glob("*.json")) > 2)
    eventually(lambda: str(build.pid) in ingested(shop))
    build.kill()
    build.wait()
    assert shop.versions("spend") == []
    (shop.folder / "hold_ingested").unlink()

    assert shop.start("build").wait(60) == 1

    # The group at which the build was killed may have been read twice, and no other.
    assert GROUPS <= len(ingested(shop)) <= GROUPS + 1
    is_as_at_home(shop, tmp_path)
