"""The order in which a job takes the features of its source."""

from __future__ import annotations

import os
from itertools import groupby

import polars as pl
import pytest

from mlforge import Feature, feature
from mlforge.metrics import Rolling
from worker.queue.together import in_order

WINDOWS = (["7d"], ["30d"], ["1d", "7d"])


def spend(df: pl.DataFrame) -> pl.DataFrame:
    return df


def features(count: int) -> dict[str, Feature]:
    """Features of one source with windows by turns."""
    return {
        name: feature(
            name=name,
            keys=["user_id"],
            source="events/",
            timestamp="at",
            metrics=[Rolling(WINDOWS[number % len(WINDOWS)], {"amount": ["sum"]})],
        )(spend)
        for number, name in enumerate(f"f{n}" for n in range(count))
    }


@pytest.mark.parametrize("process", range(8))
def test_features_that_one_pass_evaluates_are_taken_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, process: int
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: process)
    known = features(12)
    windows_of = {name: number % len(WINDOWS) for number, name in enumerate(known)}
    order = in_order(known, "f1")
    assert sorted(order) == sorted(name for name in known if name != "f1")
    runs = [windows for windows, _ in groupby(order, windows_of.__getitem__)]
    assert runs[0] == 1, "those alike with the job's own feature come first"
    assert len(runs) <= 1 + len(WINDOWS), "one group may be cut where the process begins"


def test_processes_begin_at_places_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    known, begun = features(12), set()
    for process in range(20):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        begun.add(in_order(known, "f1")[len(known) // len(WINDOWS) - 1])
    assert len(begun) > 2
