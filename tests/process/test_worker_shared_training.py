"""A training set that workers make, by real processes: one killed amid a task, and a set whose own process is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlforge import TrainingSet, training_set
from tests.support.workers import Shop, eventually, purchases, running_shop, several, write

pytestmark = pytest.mark.slow
SHARED = """
import os
import time

from mlforge import Service
from mlforge.core import failpoints
from mlforge.training_sets.by_tasks import shared_writing
from worker.state import shared_build

shared_writing.TASK_BYTES = 0
shared_build.CLAIM_MS, shared_build.RENEW_S = 1_500, 0.4
service = Service("checkout", features=[defs.features["spend"]])
defs.services["checkout"] = service


def hold_set():
    while is_there("hold_set"):
        (HERE / f"set-{os.getpid()}").touch()
        time.sleep(0.01)


failpoints.arm("task.set", hold_set)
"""
TRAIN = ("train", "checkout", "--spine", "spine", "--out", "sets/made", "--part-rows", "20")


@pytest.fixture
def shop(server, tmp_path: Path) -> Iterator[Shop]:
    """A built feature, which is too small to be shared, and a spine of 400 rows, which is not."""
    settings = {"runner": "rq", "distribute_above": 200}
    about = {
        "definitions": several({"spend": "drops/"}, settings=settings) + SHARED,
        "sources": ["drops"],
    }
    with running_shop(server, tmp_path, (), **about) as made:
        for day in range(4):
            events = [(n, day * 43_200 + n, (n + 1) / 7 + day) for n in range(40)]
            write(made.folder / "drops" / f"d{day}.parquet", purchases(*events))
        for number in range(3):
            rows = [(n % 50, (n * 7_919 + number) % 300_000, 0.0) for n in range(133 + number)]
            write(made.folder / "spine" / f"{number}.parquet", purchases(*rows))
        assert made.ask_apart("build").returncode == 0
        yield made


def is_as_by_one_process(shop: Shop) -> None:
    made = TrainingSet.open(shop.folder / "sets" / "made")
    out = shop.folder / "alone"
    alone = training_set(shop.folder / "spine", ["spend"], shop.store, out, part_rows=20)
    assert made.verify() == []
    assert made.document.parts == alone.document.parts
    assert len(made.document.parts) == 21


@pytest.mark.slow
def test_a_worker_that_is_killed_at_a_task_costs_no_more_than_the_task(shop: Shop) -> None:
    shop.start_rq_workers(2)
    (shop.folder / "hold_set").touch()
    train = shop.start(*TRAIN)
    eventually(lambda: len(list(shop.folder.glob("set-*"))) == 3)
    held = next(path for path in shop.folder.glob("set-*") if path.name != f"set-{train.pid}")
    os.kill(int(held.name.partition("-")[2]), signal.SIGKILL)
    (shop.folder / "hold_set").unlink()

    assert train.wait(60) == 0
    assert shop.log("terminated unexpectedly")
    is_as_by_one_process(shop)


def test_a_set_whose_process_is_killed_is_not_there_and_is_made_anew(shop: Shop) -> None:
    shop.start_rq_workers(1)
    (shop.folder / "hold_set").touch()
    train = shop.start(*TRAIN)
    eventually(lambda: len(list(shop.folder.glob("set-*"))) == 2)
    train.send_signal(signal.SIGKILL)
    train.wait(10)
    (shop.folder / "hold_set").unlink()
    assert not (shop.folder / "sets" / "made").exists()

    assert shop.ask_apart(*TRAIN).returncode == 0

    is_as_by_one_process(shop)
