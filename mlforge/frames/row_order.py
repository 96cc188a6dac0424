"""Whether rows lie in an order already: most files are written as time goes by, and a look costs a fraction of a sort."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import polars as pl


def is_sorted(rows: pl.DataFrame, order: Sequence[str], heights: Sequence[int] = ()) -> bool:
    """Whether rows ascend by some columns, of which none has a null, or by none; each of several runs for itself.

    heights: the number of rows of each run of which the frame consists; by default it is one run.
    """
    if rows.height < 2 or not order:
        return True
    earlier, later = _neighbours(rows[order[0]])
    stays = later <= earlier
    if not stays.any():
        return True
    tied = stays.arg_true()
    if heights and len(tied):
        ends = [end - 1 for end in accumulate(heights) if end]
        tied = tied.filter(~tied.is_in(pl.Series(ends, dtype=tied.dtype).implode()))
    for name in order:
        if not len(tied):
            break
        earlier, later = (values.gather(tied) for values in _neighbours(rows[name]))
        if (later < earlier).any():
            return False
        tied = tied.filter(later == earlier)
    return True


def _neighbours(values: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Each value but the last, and the value that follows each."""
    return values.head(-1), values.slice(1)
