"""Small files of one schema, whose events are made as one frame: a plan of polars costs more than their few rows do."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial

import polars as pl

from mlforge.errors import MlforgeError
from mlforge.ingest.intake import FAULTS
from mlforge.ingest.session import Session
from mlforge.ingest.transform import FileRows, Transformed
from mlforge.ingest.unchanged import FilePartial
from mlforge.sources.parquet_reader import Content
from mlforge.sources.source import SourceFile

_SMALL_ROWS, _MOST_ROWS, _MOST_FILES, _FEW_FILES = 65_536, 262_144, 256, 4
_SMALL_BYTES, _MOST_BYTES = 16_000_000, 64_000_000


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A file, its memo key, and its rows."""

    file: SourceFile
    key: str
    rows: FileRows


_Columns = tuple[list[str], list[pl.DataType]]
_Returned = tuple[_Waiting, pl.DataFrame | MlforgeError]


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
            self.finish()
        self._waiting.append(_Waiting(file, key, FileRows(frame, file.path, content.left_out)))
        self._rows, self._bytes = self._rows + frame.height, self._bytes + size
        self._columns = self._columns or _columns_of(frame)
        self._contents.add(session.cache.key(content.hash))
        return True

    def finish(self) -> None:
        """Store the events of all files that wait; a bad one is set aside. Raises NotProvenError."""
        waiting, self._waiting, self._rows, self._bytes = self._waiting, [], 0, 0
        self._columns = None
        self._contents.clear()
        if len(waiting) == 1:
            [only] = waiting
            self._finish_alone(only, partial(self._session.transform.run, only.rows, alone=True))
            return
        returned = self._session.transform.apply_each([each.rows for each in waiting])
        group: list[_Returned] = []
        rows, columns = 0, None
        for one in zip(waiting, returned, strict=True):
            rows += _height(one)
            own = _columns_of(one[1]) if _height(one) else None
            if group and (rows > _MOST_ROWS or own is None or own != columns):
                self._finish(group)
                group, rows = [], _height(one)
            columns = own
            group.append(one)
        self._finish(group)

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
        if len(group) < 2 or not self._finished_together(group):
            half = len(group) // 2
            if half >= _FEW_FILES:
                self._finish(group[:half])
                self._finish(group[half:])
            else:
                for each, returned in group:
                    self._finish_alone(each, partial(self._finished, each, returned))

    def _finished_together(self, group: Sequence[_Returned]) -> bool:
        """Whether all were finished as one frame."""
        session = self._session
        frames = [frame for _, frame in group if isinstance(frame, pl.DataFrame)]
        events = session.transform.finish_together(frames)
        if events is None:
            return False
        waiting, heights = [each for each, _ in group], [frame.height for frame in frames]
        kept = session.keep_each([each.key for each in waiting], events, heights)
        for each, own in zip(waiting, kept, strict=True):
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
