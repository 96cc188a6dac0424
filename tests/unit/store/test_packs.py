"""How partials are cut into packs, and what a pack's rows are."""

from __future__ import annotations

import polars as pl
import pytest

from mlforge.core.manifest import Partial
from mlforge.core.values import TimeRange
from mlforge.store.file_tasks import NUMBER
from mlforge.store.local import packs


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([12], [[12]]),
        ([4, 4, 2], [[4, 4, 2]]),
        ([4, 4, 3, 2], [[4, 4, 3, 2]]),  # a rest of at most half as many is no pack of its own
        ([4, 4, 3, 3], [[4, 4], [3, 3]]),
        ([9, 9, 9, 1], [[9], [9], [9, 1]]),
    ],
)
def test_partials_are_cut_into_runs_of_about_so_many_rows(
    sizes: list[int], expected: list[list[int]]
) -> None:
    partials = [
        Partial(f"{number:064}", rows, TimeRange(number, number), (), {}, 0)
        for number, rows in enumerate(sizes)
    ]
    cut = packs.runs(reversed(partials), most=10)
    assert [[partial.rows for partial in run] for run in cut] == expected


@pytest.mark.parametrize("long_rows", [packs._LONG_ROWS, 0])
def test_rows_of_a_pack_are_numbered_by_their_partials(
    monkeypatch: pytest.MonkeyPatch, long_rows: int
) -> None:
    monkeypatch.setattr(packs, "_LONG_ROWS", long_rows)
    frames = [pl.DataFrame({"at": [*range(height)]}, {"at": pl.Int64}) for height in (2, 0, 3)]
    rows = packs._joined(frames)
    assert rows.rows() == [(0, 0), (1, 0), (0, 2), (1, 2), (2, 2)]
    assert rows.schema == {"at": pl.Int64, NUMBER: pl.UInt32}
