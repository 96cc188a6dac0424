"""Ranges of time of entities: which rows events touch, also where windows follow the calendar."""

from __future__ import annotations

import time

import polars as pl

from mlforge.core import time_model
from mlforge.core.calendar_units import PERIODS
from mlforge.core.time_model import Window
from mlforge.core.values import DAY_US, Duration
from mlforge.frames.entity_times import FIRST, LAST, EntityTimes

INSTANTS = [day * DAY_US + 7 for day in (-719_000, -1, 0, 58, 59, 364, 19_782, 19_783, 2_900_000)]
WINDOWS = [
    Window(length, offset, closed)
    for length in (*PERIODS.values(), Duration.parse("3h"))
    for offset in (None, Duration.parse("5d"))
    for closed in ("both", "left")
]


def test_rows_that_calendar_windows_touch_are_found_entity_by_entity_at_once() -> None:
    frame = pl.DataFrame({"k": range(len(INSTANTS)), FIRST: INSTANTS, LAST: INSTANTS})
    for interval in (None, Duration.parse("1h")):
        began = time.process_time()
        ends = time_model.touched_ends(frame[FIRST], frame[LAST], WINDOWS, interval)
        moved = EntityTimes(frame).moved(*ends).frame
        assert time.process_time() - began < 2, "as expressions, ends of years take ten seconds"
        for entity, instant in enumerate(INSTANTS):
            first, last = time_model.touched_ends(instant, instant, WINDOWS, interval)
            assert moved.row(entity) == (entity, min(first), max(last))
