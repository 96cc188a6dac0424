"""Windows of points: those of several points that hold the same rows are aggregated once."""

from __future__ import annotations

import polars as pl

from mlforge.compilers.base import ENTITY, ROW, TIME
from mlforge.core.time_model import ALL, Window
from mlforge.core.values import Duration
from mlforge.engines.kernels.point_windows import DistinctPoints, PointWindows, TimelineIndex

WINDOWS = (Window(ALL), Window(Duration(10, "10us")))
LINE = pl.DataFrame(
    {ENTITY: [0, 0, 0, 2], TIME: [1, 5, 20, 5], "value": [1.0, 2.0, 4.0, 8.0]},
    schema={ENTITY: pl.UInt32, TIME: pl.Int64, "value": pl.Float64},
)


def points(*places: tuple[int, int]) -> pl.DataFrame:
    rows = [(entity, time, row) for row, (entity, time) in enumerate(places)]
    return pl.DataFrame(
        rows, schema={ENTITY: pl.UInt32, TIME: pl.Int64, ROW: pl.UInt32}, orient="row"
    )


def sums(numbers: pl.Series, windows: dict[str, PointWindows]) -> pl.DataFrame:
    results = (window.aggregated({name: pl.col("value").sum()}) for name, window in windows.items())
    return pl.concat([numbers.to_frame(), *results], how="horizontal")


def test_points_that_see_the_same_rows_as_the_one_before_have_its_results() -> None:
    # The third point sees one row less through the short window; entity 1 has no row at all.
    asked = points((0, 5), (0, 8), (0, 14), (0, 20), (0, 25), (1, 7), (1, 9), (2, 5), (2, 6))
    windows = TimelineIndex.of(LINE, asked).windows(asked, WINDOWS)
    chosen = DistinctPoints.of(asked, windows, all_windows=True)
    assert chosen.points[ROW].to_list() == [0, 2, 3, 5, 7]
    of_all = sums(asked[ROW], {window.name: windows[window] for window in WINDOWS})
    of_some = sums(chosen.points[ROW], {w.name: chosen.windows[w] for w in WINDOWS})
    assert chosen.spread(of_some).equals(of_all)


def test_all_points_are_distinct_where_they_have_other_windows_or_see_other_rows() -> None:
    asked = points((0, 5), (0, 20), (2, 5))
    windows = TimelineIndex.of(LINE, asked).windows(asked, WINDOWS)
    for is_all in (True, False):
        chosen = DistinctPoints.of(asked, windows, all_windows=is_all)
        assert chosen.points is asked
        assert chosen.spread(asked) is asked
