"""A process that waits for its job keeps up with as many features as its memory has room for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from mlforge import Definitions, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore
from tests.support.projects import rows
from worker.queue import warmup
from worker.queue.warmup import FILE_BYTES, KEEP_UP_S, LOOKING_SHARE, Followed, warm_up

NAMES = [f"f{number:02d}" for number in range(12)]
EVENTS = 200
BYTES = EVENTS * 4 * 8
"""Of one feature's events: three columns and one value beside them."""


def spend(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", "amount")


def raised_by(number: int) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda df: df.select("user_id", "at", amount=pl.col("amount") + number)


def at_work(folder: Path, resident_memory: int, *, alike: bool = True) -> Any:
    """A project of twelve built features over one file, as a process of a worker holds it; alike: of one function."""
    drops = folder / "drops"
    drops.mkdir()
    rows(*((n % 5, n / EVENTS, 1.0) for n in range(EVENTS))).write_parquet(drops / "a.parquet")
    metrics = [Rolling("7d", {"amount": "sum"})]
    of: dict[str, Any] = {"keys": ["user_id"], "source": str(drops), "timestamp": "at"}
    functions = [spend if alike else raised_by(number) for number in range(len(NAMES))]
    features = [
        feature(name=name, metrics=metrics, **of)(function)
        for name, function in zip(NAMES, functions, strict=True)
    ]
    store = LocalStore(folder / "store")
    defs = Definitions(store, features, root=folder, resident_memory=resident_memory)
    defs.build()
    there = SimpleNamespace(read=list, ping=lambda: True)
    return SimpleNamespace(definitions=defs, work_queue=there, online=there)


def looked_at(project: Any) -> list[str]:
    """Follow as many features as there is room for, and look at each once; their names."""
    followed = Followed(project)
    for name in NAMES:
        if followed.has_room:
            followed.follow(name)
    for name in followed.names:
        followed.look(name)
    return followed.names


def kept(project: Any) -> list[str]:
    """Features whose own events are in memory."""
    folders = project.definitions.store._features
    return [name for name in NAMES if folders[name].partial_store.resident is not None]


def test_all_features_are_followed_that_there_is_room_for(tmp_path: Path) -> None:
    project = at_work(tmp_path, 48_000_000)
    followed = Followed(project)

    for name in NAMES:
        followed.follow(name)
    versions = [followed.look(name) for name in followed.names]

    assert [str(v.version) for v in versions if v is not None] == ["1.0.0"] * len(NAMES)
    assert kept(project) == NAMES
    assert [followed.look(name) for name in NAMES] == [None] * len(NAMES)  # as they were

    late = rows((1, 1.5, 2.0))
    late.write_parquet(tmp_path / "drops" / "b.parquet")
    project.definitions.build(features=NAMES[-1])
    looked = {name: followed.look(name) for name in followed.names}
    assert [name for name, version in looked.items() if version is not None] == NAMES[-1:]


def test_what_is_followed_takes_no_more_memory_than_there_is_room_for(tmp_path: Path) -> None:
    room = 20 * FILE_BYTES
    project = at_work(tmp_path, room, alike=False)
    assert looked_at(project) == NAMES[:10]  # manifests take half of it
    assert kept(project) == NAMES[: 10 * FILE_BYTES // BYTES]
    assert len(kept(project)) == 3


def test_features_that_share_their_events_take_room_for_them_once(tmp_path: Path) -> None:
    project = at_work(tmp_path, 20 * FILE_BYTES)
    assert looked_at(project) == kept(project) == NAMES[:10]
    folders = project.definitions.store._features
    assert len({id(folders[name].partial_store.resident) for name in NAMES[:10]}) == 1


def test_without_memory_one_feature_is_looked_at_and_no_events_are_kept(tmp_path: Path) -> None:
    project = at_work(tmp_path, 0)
    steps = warm_up(lambda: project, list)
    pauses = list(iter(lambda: next(steps), KEEP_UP_S))

    assert warmup.CALM_S in pauses
    assert steps.gi_frame is not None, "it goes on"
    assert list(steps.gi_frame.f_locals["followed"].names) == NAMES[:1]
    assert not any(f.partial_store.resident for f in project.definitions.store._features.values())


def test_a_feature_that_cannot_be_read_leaves_the_others_followed(tmp_path: Path) -> None:
    project = at_work(tmp_path, 48_000_000)
    (meta,) = (tmp_path / "store" / NAMES[3]).glob("*/.meta.json")
    meta.write_text("{")
    project.definitions.store = LocalStore(tmp_path / "store")
    followed = Followed(project)

    for name in NAMES:
        followed.follow(name)
    looked = [name for name in NAMES if followed.look(name) is not None]

    assert looked == [*NAMES[:3], *NAMES[4:]]


def test_looking_takes_a_small_share_of_the_time_however_many_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0

    def look_s() -> float:
        nonlocal now_s
        now_s += 0.5
        return now_s

    project = at_work(tmp_path, 48_000_000)
    steps = warm_up(lambda: project, list)
    for pause in steps:
        if pause == KEEP_UP_S:
            break
    monkeypatch.setattr(warmup, "time", SimpleNamespace(perf_counter=look_s))
    rounds = [[next(steps) for _ in range(len(NAMES) + 1)] for _ in range(4)]

    pause = len(NAMES) * 0.5 / LOOKING_SHARE
    assert [each[-1] for each in rounds] == [2 * pause, 4 * pause, 4 * pause, 4 * pause]
    assert {step for each in rounds for step in each[:-1]} == {0.0}
