"""Measure 7: reads online, against redis-py by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from benchmarks import data
from benchmarks.harness import (
    MILLISECONDS,
    Bench,
    Measure,
    Row,
    Target,
    by_turns,
    check,
    median_of,
    ratios,
)
from benchmarks.project import TTL_S
from mlforge import Definitions, feature, get_online_features
from mlforge.features.feature import Feature
from mlforge.online import RedisStore
from mlforge.store import LocalStore

_BATCH = 100
_TURNS = 10
_PREFIX, _PLAIN = "reads", "plain"
_NAMES = ("first", "second", "third")


def _columns(df: pl.DataFrame) -> pl.DataFrame:
    return df.select(pl.all())


def _features() -> list[Feature]:
    made = [feature(name=name, keys=["user_id"], source="rows.parquet") for name in _NAMES]
    return [make(_columns) for make in made]


def _run(bench: Bench) -> list[Row]:
    size = bench.size
    entities = min(size.online, 100_000)
    frame = data.profiles(entities)
    root = bench.new_folder("reads")
    data.put(frame, root / "rows.parquet")
    online = RedisStore.from_url(bench.url, ttl=TTL_S, prefix=_PREFIX)
    definitions = Definitions(LocalStore(root / "store"), _features(), online, root=root)
    definitions.build(online=True)
    fill_plain(bench, frame, _NAMES)
    asked = [{"user_id": number * 7_919 % entities} for number in range(size.reads)]
    batches = [asked[start : start + _BATCH] for start in range(0, len(asked), _BATCH)]
    few = batches[: max(1, len(batches) // 2)]
    name, client = _NAMES[0], bench.client

    def read() -> list[Any]:
        return [online.read(name, entity) for entity in asked]

    def get() -> list[Any]:
        return [json.loads(client.get(f"{_PLAIN}:{name}:{e['user_id']}")) for e in asked]

    def read_batch() -> list[Any]:
        return [row for batch in batches for row in online.read_batch(name, batch)]

    def mget() -> list[Any]:
        found = (client.mget(_keys(name, batch)) for batch in batches)
        return [json.loads(text) for texts in found for text in texts]

    def features() -> list[Any]:
        return [row for batch in few for row in get_online_features(_NAMES, batch, online)]

    def pipeline() -> list[Any]:
        return [row for batch in few for row in _piped(client, batch)]

    rows = [
        _row(bench, "read", read, get, "GET + json.loads", len(asked), 1.3),
        _row(bench, f"read_batch of {_BATCH}", read_batch, mget, "MGET + json.loads", len(batches), 1.3),
        _row(bench, f"get_online_features, 3 x {_BATCH}", features, pipeline, "pipeline + json.loads", len(few), 1.5),
    ]  # fmt: skip
    online.close()
    return rows


def fill_plain(bench: Bench, frame: pl.DataFrame, names: Sequence[str]) -> None:
    """The same rows as one would keep them by hand: plain keys, JSON texts."""
    texts = frame.select(pl.struct(pl.exclude("user_id")).struct.json_encode()).to_series()
    pairs = list(zip(frame["user_id"].to_list(), texts.to_list(), strict=True))
    for name in names:
        for start in range(0, len(pairs), 10_000):
            block = pairs[start : start + 10_000]
            bench.client.mset({f"{_PLAIN}:{name}:{user}": text for user, text in block})


def _keys(name: str, batch: Sequence[dict[str, int]]) -> list[str]:
    return [f"{_PLAIN}:{name}:{entity['user_id']}" for entity in batch]


def _piped(client: Any, batch: Sequence[dict[str, int]]) -> list[dict[str, Any]]:
    """One round trip for three features, put together as `get_online_features` does."""
    with client.pipeline(transaction=False) as pipe:
        for name in _NAMES:
            pipe.mget(_keys(name, batch))
        replies = pipe.execute()
    answers: list[dict[str, Any]] = [dict(entity) for entity in batch]
    for name, texts in zip(_NAMES, replies, strict=True):
        for answer, text in zip(answers, texts, strict=True):
            for column, value in json.loads(text).items():
                answer[f"{name}__{column}"] = value
    return answers


def _row(
    bench: Bench,
    what: str,
    ours: Callable[[], list[Any]],
    by_hand: Callable[[], list[Any]],
    reference: str,
    calls: int,
    limit: float,
) -> Row:
    check(ours() == by_hand(), f"{what} answers as by hand")
    turns = _TURNS * bench.repeat if bench.size.name != "tiny" else 1
    times = by_turns(turns, ours, by_hand)
    mine, theirs = ([each / calls for each in own] for own in times)
    return Row(
        "7",
        what,
        median_of(mine, MILLISECONDS),
        f"redis-py {reference}: {median_of(theirs, MILLISECONDS)}",
        ratios(mine, theirs),
        Target(limit),
    )


MEASURES = (
    Measure("7", "reads online, against redis-py by hand", "<= 1.3x, three features <= 1.5x", _run),
)
