"""Results that several features of one job ask for alike: computed for the first of them, handed to the others.

Features of one source mostly read the same columns, over the same windows, of the same entities: then their events, how these
differ, which entities they concern and which rows windows see are the same. A computation is known by its name, by a key and by the
frames that it is of; its result must follow from these alone, whoever asks. Nothing is kept beyond the job.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any, Self, TypeVar

import polars as pl

T = TypeVar("T")
KEPT, KEPT_BYTES = 32, 32_000_000
"""So many results of one name are kept at most, with the frames that they are of: those that were asked for last."""
MOST_ROWS, MOST_BYTES = 200_000, 16_000_000
"""Frames of more rows are not compared, and larger results not kept: that may cost more than it saves."""
_ROUNDED = (pl.Float32, pl.Float64)


class ByIdentity:
    """An object as a key, or a part of one: equal to no other object, whatever that holds."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByIdentity) and self._value is other._value

    def __hash__(self) -> int:
        return id(self._value)


@dataclass(frozen=True)
class _Frame:
    """A frame that a computation is of, whose schema is made once: it is compared with those of many results."""

    frame: pl.DataFrame

    @cached_property
    def schema(self) -> pl.Schema:
        """The names and dtypes of its columns."""
        return self.frame.schema

    @cached_property
    def is_rounded(self) -> bool:
        """Whether a column is of floats, or may hold some within: 0.0 equals -0.0."""
        return any(dtype in _ROUNDED or dtype.is_nested() for dtype in self.schema.dtypes())

    def is_same(self, other: _Frame) -> bool:
        """Whether two frames are the same to the bit: those with floats only if they are one."""
        one, two = self.frame, other.frame
        if one is two:
            return True
        if one.height != two.height or self.schema != other.schema:
            return False
        return not self.is_rounded and one.equals(two)


@dataclass(frozen=True, slots=True)
class _Result:
    key: Hashable
    frames: tuple[_Frame, ...]
    value: Any
    bytes_at_first: int
    may_grow: bool
    """Whether it is no frame, and tells its size itself."""

    @classmethod
    def of(cls, key: Hashable, frames: tuple[_Frame, ...], value: Any, size: int) -> Self:
        """A result that was just computed. size: the bytes of its value."""
        may_grow = hasattr(value, "estimated_size") and not isinstance(value, pl.DataFrame)
        return cls(key, frames, value, size + _bytes_of(frames), may_grow)

    @property
    def bytes(self) -> int:
        """Its bytes by now."""
        if not self.may_grow:
            return self.bytes_at_first
        return _bytes_of(self.value) + _bytes_of(self.frames)


class SharedResults:
    """The results of one job, by the names of computations; a thread that works ahead of the job may ask, too."""

    def __init__(self) -> None:
        self._by_name: dict[str, list[_Result]] = {}
        self._lock = Lock()  # held for no computation and no comparison
        self.computed = self.handed_on = 0

    def of(
        self,
        name: str,
        key: Hashable,
        frames: tuple[pl.DataFrame, ...],
        compute: Callable[[], T],
    ) -> T:
        """The result of a computation, as `once` gives it."""
        if not _are_few(frames):
            return compute()
        asked = tuple(map(_Frame, frames))
        for result in reversed(self._by_name.get(name, [])):
            if result.key == key and _are_same(result.frames, asked):
                self.handed_on += 1
                self._keep(name, result, as_before=not result.may_grow)
                value: T = result.value
                return value
        value = compute()
        self.computed += 1
        size = _bytes_of(value)
        if size <= MOST_BYTES:
            self._keep(name, _Result.of(key, asked, value, size))
        return value

    def _keep(self, name: str, last: _Result, *, as_before: bool = False) -> None:
        """Have a result be the one that was asked for last. The list that others may be going through stays as it is.

        as_before: whether it is among those that are kept, and no larger.
        """
        with self._lock:
            others = (each for each in self._by_name.get(name, ()) if each is not last)
            known = [*others, last]
            self._by_name[name] = known if as_before else _newest(known)


_of_job: ContextVar[SharedResults | None] = ContextVar("shared_results", default=None)


@contextmanager
def shared_results() -> Iterator[SharedResults]:
    """Share results within the block, in this thread; they are forgotten at its end."""
    shared = SharedResults()
    token = _of_job.set(shared)
    try:
        yield shared
    finally:
        _of_job.reset(token)


def once(
    name: str, key: Callable[[], Hashable], compute: Callable[[], T], *frames: pl.DataFrame
) -> T:
    """The result of `compute`, or what it gave before for this name, an equal key and the same frames; nobody may change it.

    Outside of `shared_results` it is computed each time, and no key made. An error is not kept.
    """
    shared = _of_job.get()
    return compute() if shared is None else shared.of(name, key(), frames, compute)


def are_shared(*frames: pl.DataFrame) -> bool:
    """Whether results of these frames are kept for others that ask for them."""
    return _of_job.get() is not None and _are_few(frames)


def _are_few(frames: Sequence[pl.DataFrame]) -> bool:
    return sum(frame.height for frame in frames) <= MOST_ROWS


def _newest(known: list[_Result]) -> list[_Result]:
    """Few results that take little memory, without those that were asked for longest ago."""
    room, kept = KEPT_BYTES, 0
    for result in reversed(known[-KEPT:]):
        room -= result.bytes
        if room < 0:
            break
        kept += 1
    return known[-max(kept, 1) :]


def _bytes_of(value: object) -> int:
    """The bytes of a result: of the frame that it is, of all in a list or tuple, or as it tells itself."""
    if isinstance(value, list | tuple):
        return sum(map(_bytes_of, value))
    if isinstance(value, _Frame):
        value = value.frame
    size = getattr(value, "estimated_size", None)
    return 0 if size is None else int(size())


def _are_same(known: Sequence[_Frame], frames: Sequence[_Frame]) -> bool:
    return len(known) == len(frames) and all(map(_Frame.is_same, known, frames))
