"""Small files of one schema, whose events are made as one frame: a plan of polars costs more than their few rows do."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass

import polars as pl

from mlforge.ingest.intake import FAULTS
from mlforge.ingest.session import Session
from mlforge.ingest.transform import FileRows
from mlforge.ingest.unchanged import FilePartial
from mlforge.sources.parquet_reader import Content
from mlforge.sources.source import SourceFile

_SMALL_ROWS, _MOST_ROWS, _MOST_FILES, _FEW_FILES = 4_096, 65_536, 256, 4


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A file, its memo key, its rows, and what the function returned for them."""

    file: SourceFile
    key: str
    rows: FileRows
    returned: pl.DataFrame


class SmallFiles:
    """Files that wait to be finished together, in the order of the listing; results are those of one file at a time.

    Where anything in one of them is to be refused, left out or warned of, it and its neighbours are finished alone.
    pairs: takes the record and the partial of each finished file, by path.
    """

    def __init__(self, session: Session, pairs: MutableMapping[str, FilePartial]) -> None:
        self._session, self._pairs = session, pairs
        self._waiting: list[_Waiting] = []
        self._rows = 0
        self._contents: set[str] = set()

    def __contains__(self, key: str) -> bool:
        """Whether a file of the content with this memo key waits."""
        return key in self._contents

    def take(self, file: SourceFile, content: Content) -> bool:
        """Let a file wait if it is small, has values in each column, and its events are not stored.

        Raises one of FAULTS, or NotProvenError.
        """
        session, frame = self._session, content.frame
        key = session.key(file.path)
        if not 0 < frame.height <= _SMALL_ROWS or session.cache.find(key) is not None:
            return False
        rows = FileRows(frame, file.path, content.left_out)
        returned = session.transform.apply(rows, alone=True)
        waiting = _Waiting(file, key, rows, returned)
        if not self._goes_with(returned):
            self.finish()
        self._waiting.append(waiting)
        self._rows += returned.height
        self._contents.add(session.cache.key(content.hash))
        if not 0 < returned.height <= _SMALL_ROWS:
            self.finish()
        return True

    def finish(self) -> None:
        """Store the events of all files that wait; a bad one is set aside."""
        waiting, self._waiting, self._rows = self._waiting, [], 0
        self._contents.clear()
        self._finish(waiting)

    def _finish(self, waiting: Sequence[_Waiting]) -> None:
        """Store the events of files together where that can be; else of each half, down to few."""
        if len(waiting) < 2 or not self._finished_together(waiting):
            half = len(waiting) // 2
            if half >= _FEW_FILES:
                self._finish(waiting[:half])
                self._finish(waiting[half:])
            else:
                for each in waiting:
                    self._finish_alone(each)

    def _goes_with(self, returned: pl.DataFrame) -> bool:
        """Whether there is room for a file's rows, and their columns are those of the others."""
        if not self._waiting:
            return True
        is_room = len(self._waiting) < _MOST_FILES and self._rows + returned.height <= _MOST_ROWS
        same = self._waiting[0].returned.schema == returned.schema
        return is_room and same and 0 < returned.height <= _SMALL_ROWS

    def _finished_together(self, waiting: Sequence[_Waiting]) -> bool:
        """Whether all were finished as one frame."""
        session = self._session
        returned = [each.returned for each in waiting]
        events = session.transform.finish_together(returned)
        if events is None:
            return False
        keys, heights = [each.key for each in waiting], [frame.height for frame in returned]
        for each, partial in zip(waiting, session.keep_each(keys, events, heights), strict=True):
            record = session.record(each.file, partial.rows, partial, alone=True)
            self._pairs[each.file.path] = record, partial
        return True

    def _finish_alone(self, waiting: _Waiting) -> None:
        session, file = self._session, waiting.file
        try:
            partial = session.keep(
                waiting.key, session.transform.finish(waiting.rows, waiting.returned)
            )
        except FAULTS as error:
            session.reject(file, error)
        else:
            record = session.record(file, partial.rows, partial, alone=True)
            self._pairs[file.path] = record, partial
