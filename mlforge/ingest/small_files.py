"""Small files of one schema, whose events are made as one frame: a plan of polars costs more than their few rows do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, MutableMapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import polars as pl

from mlforge.core.manifest import Partial
from mlforge.core.side_by_side import begin
from mlforge.errors import MlforgeError
from mlforge.ingest.intake import FAULTS
from mlforge.ingest.session import Session
from mlforge.ingest.transform import FileRows, Transformed
from mlforge.ingest.unchanged import FilePartial
from mlforge.sources.parquet_reader import Content
from mlforge.sources.source_file import SourceFile

_SMALL_ROWS, _MOST_ROWS, _MOST_FILES, _FEW_FILES = 65_536, 262_144, 256, 4
_SMALL_BYTES, _MOST_BYTES = 16_000_000, 64_000_000
_GROUPS = 2  # whose events threads make at a time


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A file, the plain memo key of its content, the one in use, and its rows."""

    file: SourceFile
    plain_key: str
    key: str
    rows: FileRows


_Columns = tuple[list[str], list[pl.DataType]]
_Returned = tuple[_Waiting, pl.DataFrame | MlforgeError]
_Described = tuple[list[Partial], pl.DataFrame]


class SmallFiles:
    """Files that wait to be ingested together, in the order of the listing; results are those of one file at a time.

    Where anything in one of them is to be refused, left out or warned of, it and its neighbours are finished alone.
    pairs: takes the record and the partial of each finished file, by path.
    """

    def __init__(self, session: Session, pairs: MutableMapping[str, FilePartial]) -> None:
        self._session, self._pairs = session, pairs
        self._waiting: list[_Waiting] = []
        self._rows = self._bytes = 0
        self._columns: _Columns | None = None
        self._contents: set[str] = set()
        self._begun: deque[tuple[Sequence[_Returned], Future[_Described | None]]] = deque()

    def __contains__(self, key: str) -> bool:
        """Whether a file of the content with this memo key waits."""
        return key in self._contents

    def take(self, file: SourceFile, content: Content) -> bool:
        """Let a file wait if it is small, has a row, and its events are not stored. Raises NotProvenError."""
        session, frame = self._session, content.frame
        key, size = session.key(file.path), int(frame.estimated_size())
        is_small = 0 < frame.height <= _SMALL_ROWS and size <= _SMALL_BYTES
        if not is_small or session.cache.find(key) is not None:
            return False
        if not self._has_room(frame, size):
            self._begin()
        plain_key, rows = (
            session.cache.key(content.hash),
            FileRows(frame, file.path, content.left_out),
        )
        self._waiting.append(_Waiting(file, plain_key, key, rows))
        self._rows, self._bytes = self._rows + frame.height, self._bytes + size
        self._columns = self._columns or _columns_of(frame)
        self._contents.add(plain_key)
        return True

    def finish(self) -> None:
        """Store the events of all files that wait; a bad one is set aside. Raises NotProvenError."""
        self._begin()
        self._store_begun()

    def _begin(self) -> None:
        """Call the function with the files that wait; threads make events of what it returns. Raises NotProvenError."""
        waiting, self._waiting, self._rows, self._bytes = self._waiting, [], 0, 0
        self._columns = None
        if len(waiting) == 1:
            [only] = waiting
            self._store_begun()
            self._finish_alone(only, partial(self._session.transform.run, only.rows, alone=True))
            self._contents.discard(only.plain_key)
            return
        returned = self._session.transform.apply_each([each.rows for each in waiting])
        group: list[_Returned] = []
        rows, columns = 0, None
        for one in zip(waiting, returned, strict=True):
            rows += _height(one)
            own = _columns_of(one[1]) if _height(one) else None
            if group and (rows > _MOST_ROWS or own is None or own != columns):
                self._describe(group)
                group, rows = [], _height(one)
            columns = own
            group.append(one)
        self._describe(group)

    def _describe(self, group: Sequence[_Returned]) -> None:
        """Begin to make the events of files, together where that can be."""
        if len(group) < 2:
            self._store_begun()
            self._finish(group)
            self._contents.difference_update(each.plain_key for each, _ in group)
            return
        self._store_begun(but=_GROUPS - 1)
        self._begun.append((group, begin(self._described, group)))

    def _store_begun(self, but: int = 0) -> None:
        """Store the events of files that were begun with, in their order, but for the last few groups."""
        while len(self._begun) > but:
            group, described = self._begun.popleft()
            if not self._stored(group, described.result()):
                self._halve(group)
            self._contents.difference_update(each.plain_key for each, _ in group)

    def _has_room(self, frame: pl.DataFrame, size: int) -> bool:
        """Whether there is room for a file's rows, and their columns are those of the others."""
        if not self._waiting:
            return True
        is_room = (
            len(self._waiting) < _MOST_FILES
            and self._rows + frame.height <= _MOST_ROWS
            and self._bytes + size <= _MOST_BYTES
        )
        return is_room and _columns_of(frame) == self._columns

    def _finish(self, group: Sequence[_Returned]) -> None:
        """Store the events of files together where that can be; else of each half, down to few."""
        if len(group) < 2 or not self._stored(group, self._described(group)):
            self._halve(group)

    def _halve(self, group: Sequence[_Returned]) -> None:
        """Store the events of each half of the files, or of each file where they are few."""
        half = len(group) // 2
        if half >= _FEW_FILES:
            self._finish(group[:half])
            self._finish(group[half:])
        else:
            for each, returned in group:
                self._finish_alone(each, partial(self._finished, each, returned))

    def _described(self, group: Sequence[_Returned]) -> _Described | None:
        """The partials and events of files as one frame, if they can be had so."""
        keys = [each.key for each, _ in group]
        frames = [frame for _, frame in group if isinstance(frame, pl.DataFrame)]
        return self._session.described_together(keys, frames)

    def _stored(self, group: Sequence[_Returned], described: _Described | None) -> bool:
        """Whether there are partials, which are then stored."""
        if described is None:
            return False
        session, (partials, events) = self._session, described
        session.cache.add_each(partials, events)
        for (each, _), own in zip(group, partials, strict=True):
            record = session.record(each.file, own.rows, own, alone=True)
            self._pairs[each.file.path] = record, own
        return True

    def _finished(self, waiting: _Waiting, returned: pl.DataFrame | MlforgeError) -> Transformed:
        if isinstance(returned, MlforgeError):
            raise returned
        return self._session.transform.finish(waiting.rows, returned)

    def _finish_alone(self, waiting: _Waiting, transformed: Callable[[], Transformed]) -> None:
        session, file = self._session, waiting.file
        try:
            kept = session.keep(waiting.key, waiting.rows.where, transformed, alone=True)
        except FAULTS as error:
            session.reject(file, error)
        else:
            self._pairs[file.path] = session.record(file, kept.rows, kept, alone=True), kept


def _height(one: _Returned) -> int:
    """The rows that the function returned for a file."""
    return one[1].height if isinstance(one[1], pl.DataFrame) else 0


def _columns_of(frame: pl.DataFrame | MlforgeError) -> _Columns | None:
    """A frame's schema; comparing the lists takes a third of the time."""
    return (frame.columns, frame.dtypes) if isinstance(frame, pl.DataFrame) else None
