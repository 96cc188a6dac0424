"""A seeded stream of events: the same on every machine, cut into files of a day and drops.

Event number `k` lies at its own instant of an even stream, with a jitter; its entity and its amount are
a hash of `k`. History is the events up to N, drops are those that follow, so a drop goes on at the
density of the history.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import polars as pl

START = 1_640_995_200_000_000
"""2022-01-01, UTC microseconds."""
DAY = 86_400_000_000
WINDOW_DAYS = 30
_PRIME = 7_919  # shares no factor with a power of ten: steps of it visit every entity
_LATE = 10
SCHEMA: dict[str, pl.DataType] = {
    "user_id": pl.Int64(),
    "event_time": pl.Datetime("us", "UTC"),
    "amount": pl.Float64(),
}


@dataclass(frozen=True)
class Size:
    """How much of everything. `drop` is events a drop; `online` the rows of a push; `together` features of one source."""

    name: str
    events: int
    entities: int
    days: int = 365
    files: int = 365
    drop: int = 1_000
    many_files: int = 10_000
    big_file: int = 1_000_000
    spines: tuple[int, int] = (100_000, 1_000_000)
    online: int = 1_000_000
    row_of_drops: int = 1_000
    fresh_drops: int = 200
    reads: int = 2_000
    drops_a_round: int = 3
    most_files: int = 100_000
    builds: int = 1_500
    sources: int = 300
    rest_s: float = 60.0
    sets: tuple[int, int] = (1_000_000, 20_000_000)
    together: tuple[int, ...] = (1, 10, 50)

    @property
    def step(self) -> int:
        """Microseconds from one event to the next."""
        return self.days * DAY // self.events

    @property
    def watermark(self) -> int:
        """The end of the history."""
        return START + self.events * self.step


SIZES = {
    size.name: size
    for size in (
        Size("tiny", 20_000, 1_000, 72, 12, 100, 36, 5_000, (500, 5_000), 2_000, 10, 2, 20, 1, 60, 6, 3, 1.0, (1_000, 5_000), (1, 3, 12)),
        Size("small", 1_000_000, 10_000, 365, 365, 1_000, 10_000, 100_000, (10_000, 100_000), 100_000, 300, 50, 500, 3, 10_000, 300, 300, 30.0, (100_000, 1_000_000)),
        Size("default", 10_000_000, 100_000),
        Size("large", 100_000_000, 1_000_000),
    )
}  # fmt: skip


def history(folder: Path, size: Size, files: int) -> list[Path]:
    """The files of the history, in the order of time; made once, then found again."""
    place = folder / f"{size.events}-{size.entities}-{size.days}-{files}"
    if not (place / "complete").exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for number in range(files):
            first = number * size.events // files
            last = (number + 1) * size.events // files
            events(size, first, last).write_parquet(place / f"{number:06d}.parquet")
        (place / "complete").touch()
    return sorted(place.glob("*.parquet"))


def events(size: Size, first: int, last: int) -> pl.DataFrame:
    """Events `first` to `last` of the stream, ascending in time."""
    number = pl.int_range(first, last, dtype=pl.UInt64)
    return _typed(
        pl.select(
            (_hashed(number, 1) % size.entities).alias("user_id"),
            _instants(size, number).alias("event_time"),
            _amounts(number),
        )
    )


def drop(size: Size, number: int, *, late: bool = False, rows: int | None = None) -> pl.DataFrame:
    """The drop of that number, each event of another entity; `late`: a tenth is up to 30 days late."""
    rows = size.drop if rows is None else rows
    first = size.events + number * rows
    at = pl.int_range(first, first + rows, dtype=pl.UInt64)
    moved = pl.when(at % _LATE == 0).then(_hashed(at, 4) % (WINDOW_DAYS * DAY)).otherwise(0)
    instants = _instants(size, at) - (moved.cast(pl.Int64) if late else 0)
    return _typed(
        pl.select(
            ((at * _PRIME) % size.entities).alias("user_id"),
            instants.alias("event_time"),
            _amounts(at),
        ).sort("event_time")
    )


def spine(size: Size, rows: int) -> pl.DataFrame:
    """Questions at random: an entity and an instant of the history each."""
    number = pl.int_range(0, rows, dtype=pl.UInt64)
    time = START + (_hashed(number, 6) % (size.days * DAY)).cast(pl.Int64)
    return pl.select(
        (_hashed(number, 5) % size.entities).cast(pl.Int64).alias("user_id"),
        time.cast(SCHEMA["event_time"]).alias("event_time"),
    )


def profiles(rows: int) -> pl.DataFrame:
    """A row per entity with six values."""
    number = pl.int_range(0, rows, dtype=pl.UInt64)
    values = [
        (_hashed(number, 10 + column) % 1_000_000 / 100).alias(f"value_{column}")
        for column in range(6)
    ]
    return pl.select(number.cast(pl.Int64).alias("user_id"), *values)


def put(frame: pl.DataFrame, path: Path) -> Path:
    """Write a file beside its place, then rename it into it, as a careful producer does."""
    hidden = path.with_name(f".{path.name}.tmp")
    frame.write_parquet(hidden)
    return hidden.rename(path)


def _instants(size: Size, number: pl.Expr) -> pl.Expr:
    jitter = (_hashed(number, 2) % size.step).cast(pl.Int64)
    return START + number.cast(pl.Int64) * size.step + jitter


def _amounts(number: pl.Expr) -> pl.Expr:
    return (_hashed(number, 3) % 100_000 / 100).alias("amount")


def _typed(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())


def _hashed(number: pl.Expr, stream: int) -> pl.Expr:
    """splitmix64, in arithmetic that wraps; the libraries' own hashes change between releases."""
    x = (number + stream * 1_000_000_007) * pl.lit(0x9E3779B97F4A7C15, pl.UInt64)
    x = (x ^ (x // (1 << 30))) * pl.lit(0xBF58476D1CE4E5B9, pl.UInt64)
    x = (x ^ (x // (1 << 27))) * pl.lit(0x94D049BB133111EB, pl.UInt64)
    return x ^ (x // (1 << 31))
