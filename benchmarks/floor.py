"""The floor of measures 3 and 3b, frozen: what a drop costs when each step is done bare, without any promise.

One process that knows the three features by heart: no versions, no hashes, no memory of what it read, no
late data, no retries, no fence. It hears of the file, gathers the events that the windows of its
entities (and of those that lose events) need, computes rows and values, writes and syncs a file a
feature, and sends the values down one socket. Change it and figures can no longer be compared.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
from watchfiles._rust_notify import RustNotify

_DAY = 86_400_000_000
_TTL_S = 7 * 86_400
_WAIT_MS = 10_000
_OK = b"+OK\r\n"

AGGREGATES: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "sum": lambda amount: pl.when(amount.count() > 0).then(amount.sum()),
    "mean": lambda amount: amount.mean(),
    "count": lambda amount: amount.count(),
    "min": lambda amount: amount.min(),
    "max": lambda amount: amount.max(),
}
# Feature, days of its windows, aggregations.
FEATURES: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "spend": ((7, 30), ("sum", "mean", "count")),
    "extremes": ((7,), ("min", "max")),
    "recent": ((1,), ("sum", "count")),
}
_LONGEST = 30 * _DAY


@dataclass(frozen=True)
class _File:
    path: Path
    first: int
    last: int


@dataclass
class Floor:
    """Follows the drops into a folder, for some of the features."""

    folder: Path
    out: Path
    connection: socket.socket
    names: Collection[str] = tuple(FEATURES)
    files: list[_File] = field(default_factory=list)

    @classmethod
    def over(
        cls, folder: Path, out: Path, connection: socket.socket, names: Collection[str]
    ) -> Floor:
        """Note the time range of each file that is there."""
        floor = cls(folder, out, connection, names)
        for path in sorted(folder.glob("*.parquet")):
            floor._note(path, pl.read_parquet(path, columns=["event_time"]))
        for name in floor.names:
            (out / name).mkdir()
        return floor

    @property
    def now(self) -> int:
        """The end of what it has seen."""
        return max(file.last for file in self.files)

    def take(self, hidden: Path, path: Path) -> None:
        """Rename a file into the folder, and follow it until its rows are readable."""
        notify = RustNotify([str(self.folder)], False, False, 0, True, True)
        try:
            hidden.rename(path)
            while not self._heard(notify, path):
                pass
            self.follow(path)
        finally:
            notify.close()

    def follow(self, path: Path) -> None:
        """From the file to rows in Redis."""
        drop = pl.read_parquet(path)
        before = self.now
        self._note(path, drop)
        now = self.now
        dropped = drop.select("user_id").unique()
        leaving = {
            days: self._scan(before - days * _DAY, now - days * _DAY - 1).select("user_id")
            for days in sorted({days for name in self.names for days in FEATURES[name][0]})
        }
        left = dict(zip(leaving, pl.collect_all(leaving.values()), strict=True))
        entities = pl.concat([dropped, *left.values()]).unique()
        events = (
            self._scan(before - _LONGEST, now)
            .join(entities.lazy(), on="user_id", how="semi")
            .collect()
        )
        own = events.join(dropped, on="user_id", how="semi").sort("user_id", "event_time")
        commands: list[str] = []
        for name in self.names:
            windows, aggregations = FEATURES[name]
            self._write(name, path.name, _rows(own, before, windows, aggregations))
            touched = pl.concat([dropped, *(left[days] for days in windows)]).unique()
            values = _values(events, touched, now, windows, aggregations)
            commands += _commands(name, values)
        self._send(commands)

    def _send(self, commands: Sequence[str]) -> None:
        self.connection.sendall("".join(commands).encode())
        left = len(_OK) * len(commands)
        while left > 0 and (received := self.connection.recv(1 << 16)):
            left -= len(received)

    def _heard(self, notify: RustNotify, path: Path) -> bool:
        changes = notify.watch(1, 1, _WAIT_MS, None)
        assert not isinstance(changes, str), f"no event told of {path}: {changes}"
        return any(changed == str(path) for _, changed in changes)

    def _note(self, path: Path, frame: pl.DataFrame) -> None:
        times = frame["event_time"].to_physical()
        self.files.append(_File(path, int(times.min()), int(times.max())))  # type: ignore[arg-type]

    def _scan(self, first: int, last: int) -> pl.LazyFrame:
        paths = [file.path for file in self.files if file.first <= last and file.last >= first]
        time = pl.col("event_time")
        return pl.scan_parquet(paths).filter(time.is_between(_at(first), _at(last)))

    def _write(self, name: str, drop: str, rows: pl.DataFrame) -> None:
        hidden = self.out / name / f".{drop}"
        rows.write_parquet(hidden)
        _sync(hidden)
        hidden.rename(self.out / name / drop)
        _sync(self.out / name)


def _rows(
    events: pl.DataFrame, before: int, windows: Sequence[int], aggregations: Sequence[str]
) -> pl.DataFrame:
    """A row for each event of the drop, by time and entity."""
    keys = ["user_id", "event_time"]
    rows = events.filter(pl.col("event_time") > _at(before)).select(keys)
    for days in windows:
        rolled = events.rolling(
            "event_time", period=f"{days}d", closed="both", group_by="user_id"
        ).agg(_named(days, aggregations))
        rows = rows.join(rolled, on=keys, how="left")
    return rows.sort("event_time", "user_id")


def _values(
    events: pl.DataFrame,
    among: pl.DataFrame,
    now: int,
    windows: Sequence[int],
    aggregations: Sequence[str],
) -> pl.DataFrame:
    """The values of some entities at an instant; those whose windows are empty have none."""
    times = pl.col("event_time")
    seen = events.filter(times >= _at(now - max(windows) * _DAY))
    seen = seen.join(among, on="user_id", how="semi")
    return seen.group_by("user_id").agg(
        expression
        for days in windows
        for expression in _named(days, aggregations, times >= _at(now - days * _DAY))
    )


def _named(days: int, aggregations: Sequence[str], among: pl.Expr | None = None) -> list[pl.Expr]:
    amount = pl.col("amount") if among is None else pl.col("amount").filter(among)
    return [AGGREGATES[each](amount).alias(f"amount__{each}__{days}d") for each in aggregations]


def _commands(name: str, values: pl.DataFrame) -> Iterator[str]:
    """A SET with a TTL for each row, as it goes over the wire."""
    texts = values.select(pl.struct(pl.exclude("user_id")).struct.json_encode()).to_series()
    life = str(_TTL_S)
    tail = f"$2\r\nEX\r\n${len(life)}\r\n{life}\r\n"
    for user, text in zip(values["user_id"].to_list(), texts.to_list(), strict=True):
        key = f"floor:{name}:{user}"
        yield f"*5\r\n$3\r\nSET\r\n${len(key)}\r\n{key}\r\n${len(text)}\r\n{text}\r\n{tail}"


def _at(micros: int) -> pl.Expr:
    return pl.lit(micros).cast(pl.Datetime("us", "UTC"))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
