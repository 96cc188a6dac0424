"""Whether values are the same to the bit whatever is evaluated beside them."""

from __future__ import annotations

import polars as pl

from mlforge.core.schema import FLOATS
from mlforge.engines.base import Engine
from mlforge.engines.kernels.fixed_point import Extent, Scale
from mlforge.engines.tiles.build import is_rounded, parts
from mlforge.engines.views import HeldEvents
from mlforge.frames.shared_results import once


def are_rounded(engine: Engine, events: HeldEvents) -> bool:
    """Whether the last bits of some value may tell with which others it was evaluated.

    Sums of floats are exact where one scale holds all that are held, added up: then one holds any of them.
    """
    spec, dtype_of = events.spec, events.spec.value_dtypes(events.schema)
    if is_rounded(spec):
        return True
    of = parts(spec.columns)
    summed = {
        metric.column
        for metric in spec.columns
        if "sum" in of[metric.value] and dtype_of[metric.value] in FLOATS
    }
    if not summed:
        return False
    if not engine.adds_up_exactly or events.totals is not None:
        return True
    columns, held = tuple(sorted(summed)), events.frame
    return not once(
        "sums are exact",
        lambda: columns,
        lambda: all(_adds_up(held, each) for each in columns),
        held,
    )


def _adds_up(held: pl.DataFrame, column: str) -> bool:
    """Whether one scale holds any sum of a column's values."""
    return Scale.exactly(Extent.of(held[column]), held.height) is not None
