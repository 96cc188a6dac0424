"""What measures share: the run's folder and server, timing by turns, and rows of the table."""

from __future__ import annotations

import copy
import itertools
import math
import os
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from redis import Redis

from benchmarks import data
from benchmarks.data import Size
from benchmarks.timing import seconds
from worker.service.embedded_redis import EmbeddedServer

MB = 1_000_000


class WrongResult(AssertionError):
    """The two sides of a measure do not compute the same: their times mean nothing."""


@dataclass(frozen=True)
class Unit:
    """How figures of a row are written."""

    factor: float
    text: str
    digits: int = 2

    def of(self, value: float) -> str:
        """The figure as the table shows it."""
        return f"{value * self.factor:.{self.digits}f}{self.text}"


RATIO, PERCENT = Unit(1, "x"), Unit(100, "%")
SECONDS, MILLISECONDS, MORE_MS = Unit(1, " s"), Unit(1000, " ms", 1), Unit(1000, " ms more", 0)
MEGABYTES, ROWS_PER_S = Unit(1 / MB, " MB", 0), Unit(1 / 1000, "k rows/s", 0)


@dataclass(frozen=True)
class Target:
    """What is to be reached: at most so much, or at least."""

    value: float
    unit: Unit = RATIO
    at_least: bool = False

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.unit.of(self.value)}"

    def is_met(self, value: float) -> bool:
        """Whether the figure reaches it."""
        return value >= self.value if self.at_least else value <= self.value


@dataclass(frozen=True)
class Row:
    """A line of the table: the median of `values` is held against the target, where there is one."""

    number: str
    what: str
    ours: str
    reference: str
    values: Sequence[float]
    target: Target | None = None
    unit: Unit = RATIO

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def cells(self) -> list[str]:
        """The line's texts."""
        unit = self.target.unit if self.target else self.unit
        spread = f"{unit.of(min(self.values))} - {unit.of(max(self.values))}"
        verdict = "" if self.target is None else "ok" if self.target.is_met(self.value) else "no"
        return [
            self.number,
            self.what,
            self.ours,
            self.reference,
            unit.of(self.value),
            spread if len(self.values) > 1 else "",
            str(self.target or ""),
            verdict,
        ]


HEAD = ["#", "what", "ours", "reference", "ratio", "spread", "target", ""]


@dataclass(frozen=True)
class Measure:
    """A measure: its number, what it compares, what is to be reached, and how it is run."""

    number: str
    name: str
    target: str
    run: Callable[[Bench], list[Row]]


@dataclass
class Bench:
    """One run: its size, its folder, its server. feast: the Python of an environment with Feast, None for none."""

    size: Size
    folder: Path
    repeat: int = 3
    engine: str = "polars"
    feast: str | None = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _numbers: Any = field(default_factory=itertools.count)

    def __enter__(self) -> Self:
        self.work.mkdir(parents=True)
        self._stack.callback(shutil.rmtree, self.work, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def work(self) -> Path:
        """The run's own folder, gone afterwards; on one disk with the data, for hard links."""
        return self.folder / f"run-{os.getpid()}"

    @cached_property
    def url(self) -> str:
        """A server of the run's own."""
        server = self._stack.enter_context(EmbeddedServer(self.work / "redis"))
        return server.url

    @cached_property
    def client(self) -> Any:  # redis-py types answers as bytes, texts or both
        """A client of that server, which gives texts."""
        client = Redis.from_url(self.url, decode_responses=True, protocol=2)
        self._stack.callback(client.close)
        return client

    def of_size(self, size: Size) -> Bench:
        """The same run, on the same server, with other data."""
        _ = self.client  # both are to share it, and the server behind it
        other = copy.copy(self)
        other.size = size
        return other

    def history(self, files: int | None = None) -> list[Path]:
        """Files of the history."""
        count = self.size.files if files is None else files
        return data.history(self.folder / "data", self.size, count)

    def new_folder(self, name: str) -> Path:
        """An empty folder of the run."""
        folder = self.work / f"{name}-{next(self._numbers)}"
        folder.mkdir(parents=True)
        return folder

    def clear(self) -> None:
        """Leave nothing of a measure behind on the server and the disk."""
        self.client.flushall()
        for entry in self.work.iterdir():
            if entry.name != "redis":
                shutil.rmtree(entry)


def by_turns(rounds: int, *actions: Callable[[], object]) -> list[list[float]]:
    """Each action's seconds, a list an action; in every round each has its turn."""
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(rounds):
        for action, own in zip(actions, times, strict=True):
            own.append(seconds(action))
    return times


def ratios(ours: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Each of ours over the reference of its round."""
    return [a / b for a, b in zip(ours, reference, strict=True)]


def median_of(values: Sequence[float], unit: Unit) -> str:
    """The median, written out."""
    return unit.of(statistics.median(values))


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, math.ceil(share * len(ranked)) - 1)]


def check(holds: bool, what: str) -> None:
    """Raise WrongResult unless it holds."""
    if not holds:
        raise WrongResult(what)


def check_same(ours: Mapping[str, float], other: Mapping[str, float], what: str) -> None:
    """Raise WrongResult unless two sets of figures agree; of sliding deviations the last digits differ."""
    check(list(ours) == list(other), f"{what}: columns {list(ours)} and {list(other)}")
    for name, value in ours.items():
        close = math.isclose(value, other[name], rel_tol=1e-6 if "__std__" in name else 1e-9)
        check(close, f"{what}: {name} is {value} and {other[name]}")
