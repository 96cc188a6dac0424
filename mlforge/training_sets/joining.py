"""The join of one slice after the other, over one reading: what is checked and said once is checked and said once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import polars as pl

from mlforge.engines import Engine
from mlforge.errors import RetrievalError
from mlforge.frames import interop
from mlforge.retrieval.join import joined
from mlforge.retrieval.reading import Reading
from mlforge.retrieval.spine import time_column

ROW, HEAP = "__row", "__heap"
"""The columns of a row's number in the spine, and of the heap on which it is put aside."""


@dataclass
class Joining:
    """A reading, joined with slices of a spine.

    needed: the spine's columns that the join reads. time: the one by which slices are cut, None where no
    feature has a time. unknown: for each label the rows so far that are null because their horizon is not over.
    """

    reading: Reading
    timestamp: str | None
    engine: Engine
    needed: tuple[str, ...]
    time: str | None
    _warned: bool = False
    unknown: Counter[str] = field(default_factory=Counter)

    @classmethod
    def checked(
        cls,
        reading: Reading,
        head: pl.DataFrame,
        timestamp: str | None,
        engine: Engine,
        *,
        warns: bool = True,
    ) -> Joining:
        """The joining of a spine with these columns; RetrievalError for columns that do not fit.

        head: a frame without rows that has the spine's columns. warns: whether to log, once, that a spine is made of a
        feature's own events.
        """
        if kept := sorted({ROW, HEAP}.intersection(head.columns)):
            raise RetrievalError(
                f"the spine has a column {kept[0]!r}, a name that training sets keep for themselves; rename it"
            )
        table = interop.taken(head)
        joined(table, reading, timestamp, engine, warns=False)
        timed = [use for use in reading.uses if use.manifest.spec.timestamp is not None]
        times = [time_column(table, use.manifest, timestamp, use.reference) for use in timed]
        times += [
            time_column(table, label.source, timestamp, label.label.reference)
            for label in reading.labels
        ]
        needed = {*table.temporal, *times}
        for label in reading.labels:
            needed.update(label.label.reference.key_names(label.spec.keys).values())
        for use in reading.uses:
            needed.update(use.reference.key_names(use.manifest.spec.keys).values())
        if reading.service is not None:
            needed.update(column.name for column in reading.service.request)
        columns = tuple(name for name in head.columns if name in needed)
        return cls(reading, timestamp, engine, columns, times[0] if times else None, not warns)

    def values(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The features' columns for some rows of the spine, in their order."""
        warns, self._warned = not self._warned, True
        table = interop.taken(rows)
        for label in self.reading.labels:
            points = label.points(table, self.timestamp)
            self.unknown[label.name] += int(label.is_open(points).sum())
        return pl.DataFrame(joined(table, self.reading, self.timestamp, self.engine, warns=warns))
