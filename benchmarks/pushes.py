"""Measure 6: a push of many rows, against their bytes on a bare socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

import polars as pl

from benchmarks import data
from benchmarks.harness import MB, ROWS_PER_S, Bench, Measure, Row, Target, check, median_of
from benchmarks.memory import peak_of
from benchmarks.project import TTL_S
from benchmarks.timing import seconds
from mlforge import Definitions, feature
from mlforge.core import clock
from mlforge.frames.encoding import json_rows, key_hashes
from mlforge.online import RedisStore
from mlforge.online import Target as Goal
from mlforge.store import LocalStore

_NAME = "profile"
_KEYS = ("user_id",)
_AT_ONCE = 2_000
_OURS, _BARE = "ours", "bare"  # as long, so that both write as many bytes
_OK = b"+OK\r\n"


@feature(name=_NAME, keys=list(_KEYS), source="rows.parquet")
def profile(df: pl.DataFrame) -> pl.DataFrame:
    return df.select(pl.all())


def resp(frame: pl.DataFrame, prefix: str) -> Iterator[bytes]:
    """A SET with a TTL for each row, ready for the wire."""
    values = [name for name in frame.columns if name not in _KEYS]
    for block in frame.iter_slices(_AT_ONCE):
        hashes = key_hashes(block, _KEYS).to_list()
        texts = json_rows(block, values).to_list()
        yield "".join(map(partial(_command, f"{prefix}:{_NAME}:"), hashes, texts)).encode()


def _command(head: str, row: str, text: str) -> str:
    key, size, life = head + row, len(text.encode()), str(TTL_S)
    return (
        f"*5\r\n$3\r\nSET\r\n${len(key)}\r\n{key}\r\n${size}\r\n{text}\r\n"
        f"$2\r\nEX\r\n${len(life)}\r\n{life}\r\n"
    )


def bare_socket(url: str) -> socket.socket:
    """A connection to the server that knows no protocol."""
    place = urlsplit(url)
    connection = socket.create_connection((place.hostname, place.port))
    connection.sendall(f"AUTH {place.password}\r\n".encode())
    check(connection.recv(len(_OK)) == _OK, "the server lets the bare socket in")
    return connection


def send(url: str, chunks: list[bytes], rows: int) -> None:
    """All of it down one socket, replies read meanwhile and counted."""
    with bare_socket(url) as connection:
        replies: list[bytes] = []
        reader = threading.Thread(target=_read, args=(connection, rows * len(_OK), replies))
        reader.start()
        for chunk in chunks:
            connection.sendall(chunk)
        reader.join()
    check(b"".join(replies) == _OK * rows, "every bare SET was taken")


def _read(connection: socket.socket, left: int, replies: list[bytes]) -> None:
    while left > 0 and (received := connection.recv(1 << 16)):
        left -= len(received)
        replies.append(received)


def _run(bench: Bench) -> list[Row]:
    rows = bench.size.online
    frame = data.profiles(rows)
    root = bench.new_folder("profiles")
    data.put(frame, root / "rows.parquet")
    online = RedisStore.from_url(bench.url, ttl=TTL_S, prefix=_OURS)
    definitions = Definitions(LocalStore(root / "store"), [profile], online, root=root)
    definitions.refresh(_NAME)
    chunks = list(resp(frame, _BARE))

    def whole() -> None:
        definitions.push(_NAME)

    actions: list[Callable[[], None]] = [
        whole,
        partial(_put, online, frame),
        partial(send, bench.url, chunks, rows),
    ]
    times: list[list[float]] = [[], [], []]
    for turn in range(bench.repeat):
        for action, own in zip(actions, times, strict=True):
            bench.client.flushall()
            own.append(seconds(action))
            if action is whole and turn == 0:
                _check_rows(bench, frame, _OURS)
    _check_rows(bench, frame, _BARE)
    pushed, put, bare = ([rows / each for each in own] for own in times)
    half, full = (peak_of(partial(_put, online, frame.head(n))) for n in (rows // 2, rows))
    online.close()
    reference = f"prebuilt RESP on a socket: {median_of(bare, ROWS_PER_S)}"
    what = f"push of {rows:,} rows of 6 values"
    return [
        Row(
            "6",
            what,
            median_of(pushed, ROWS_PER_S),
            reference,
            [a / b for a, b in zip(pushed, bare, strict=True)],
            Target(0.6, at_least=True),
        ),
        Row(
            "6",
            "of which begin, put, finish",
            f"{median_of(put, ROWS_PER_S)} ({full // MB} MB; half as many rows: {half // MB} MB)",
            reference,
            [a / b for a, b in zip(put, bare, strict=True)],
        ),
    ]


def _put(online: RedisStore, frame: pl.DataFrame) -> None:
    """The online store's part of a push alone."""
    goal = Goal("1.0.0", 1, None)
    books = online.begin(_NAME, goal)
    online.put(_NAME, goal, frame, _KEYS)
    now = clock.now()  # books of rows that were never renewed would expire at once
    online.finish(_NAME, goal, replace(books, pushed_at=now, renewed_at=now))


def _check_rows(bench: Bench, frame: pl.DataFrame, prefix: str) -> None:
    """All rows are there with a life, and those of a sample as they should be."""
    count = sum(1 for _ in bench.client.scan_iter(f"{prefix}:{_NAME}:*", count=10_000))
    check(count == frame.height, f"{prefix}: {count:,} of {frame.height:,} rows are online")
    sample = frame.gather_every(max(1, frame.height // 100))
    keys = [f"{prefix}:{_NAME}:{row}" for row in key_hashes(sample, _KEYS)]
    texts = json_rows(sample, [name for name in sample.columns if name not in _KEYS]).to_list()
    check(bench.client.mget(keys) == texts, f"{prefix}: rows online hold what was pushed")
    lives = [bench.client.ttl(key) for key in keys]
    check(all(0 < life <= TTL_S for life in lives), f"{prefix}: rows online have their TTL")


MEASURES = (
    Measure(
        "6",
        "push of many rows with TTL and fence, against prebuilt RESP on one socket",
        ">= 0.6x of its rows/s",
        _run,
    ),
)
