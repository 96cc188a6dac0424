"""Parts that were written last are in memory for the next version, few of them, and none that no version has any more."""

from __future__ import annotations

import polars as pl
import pytest

from mlforge.core.manifest import Part
from mlforge.store.local import recent_parts
from mlforge.store.local.recent_parts import RecentParts


def part(hash_: str) -> Part:
    return Part("", 3, None, hash_)


def frame(first: int, many: int = 3) -> pl.DataFrame:
    return pl.DataFrame({"a": range(first, first + many)})


def test_rows_are_those_of_the_parts_in_their_order() -> None:
    recent = RecentParts()
    recent.add(part("x"), frame(0))
    recent.add(part("y"), frame(3))
    found = recent.rows_of([part("y"), part("x")])
    assert found is not None
    assert found.equals(pl.concat([frame(3), frame(0)]))
    assert recent.rows_of([part("x"), part("z")]) is None


def test_parts_that_a_version_has_not_are_let_go() -> None:
    recent = RecentParts()
    recent.add(part("x"), frame(0))
    recent.add(part("y"), frame(3))
    recent.retain([part("y"), part("z")])
    assert recent.rows_of([part("x")]) is None
    assert recent.rows_of([part("y")]) is not None


def test_those_written_longest_ago_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_parts, "MOST_BYTES", 2 * frame(0).estimated_size())
    recent = RecentParts()
    for name in "xyz":
        recent.add(part(name), frame(0))
    recent.add(part("large"), frame(0, 100))
    held = [name for name in ("x", "y", "z", "large") if recent.rows_of([part(name)]) is not None]
    assert held == ["y", "z"]


def test_rows_do_not_keep_the_frame_that_they_are_a_slice_of() -> None:
    recent, whole = RecentParts(), frame(0, 1_000)
    recent.add(part("x"), whole.slice(10, 3))
    held = recent.rows_of([part("x")])
    assert held is not None
    assert held.equals(frame(10))
    assert address(held) != address(whole.slice(10, 3))


def address(rows: pl.DataFrame) -> int:
    return int(rows["a"].to_arrow().buffers()[1].address)
