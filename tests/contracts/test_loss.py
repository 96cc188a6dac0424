"""Loss: which events would stop counting, judged by contents and rows, whatever names files have."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
import pytest

from mlforge.build.loss import loss_of
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.manifest import Manifest, Partial, SourceRecord
from mlforge.core.schema import Column
from mlforge.frames.entity_times import EntityTimes
from mlforge.store.changes import EventDiff

SPEC = FeatureSpec("f", ("k",), None, None, ())


def version(files: Mapping[str, tuple[str, int]], dtype: str = "Int64") -> Manifest:
    """A version of files: by path the content and its rows."""
    schema = (Column("k", "Int64"), Column("x", dtype))
    partials = {content: Partial(content, n, None, schema, {}, 0) for content, n in files.values()}
    records = tuple(
        SourceRecord(path, 1, 1, content, n, None, content)
        for path, (content, n) in sorted(files.items())
    )
    used = tuple(partials[record.partial] for record in records)
    return Manifest(SPEC, schema, schema, "c", used, "polars", rowwise=True, sources=records)


BEFORE = version({"a": ("A", 10), "b": ("B", 20), "c": ("C", 30)})


@pytest.mark.parametrize(
    ("files", "set_aside", "lost", "gone", "aside"),
    [
        ({"a": ("A", 10), "b": ("B", 20)}, {}, 30, 30, 0),
        ({"x": ("A", 10), "y": ("B", 20), "z": ("C", 30)}, {}, 0, 0, 0),
        ({"x": ("X", 60)}, {}, 0, 60, 0),
        ({"x": ("X", 45)}, {}, 15, 60, 0),
        ({"a": ("A2", 4), "b": ("B", 20), "c": ("C", 30)}, {}, 6, 0, 0),
        ({"b": ("B", 20), "c": ("C", 30)}, {"a": "A"}, 10, 0, 10),
        ({"b": ("B", 20), "c": ("C", 30)}, {"moved": "A"}, 10, 0, 10),
        ({"b": ("B", 20), "c": ("C", 30)}, {"a": ""}, 10, 0, 10),
        ({"b": ("B", 20), "x": ("X", 99)}, {"a": "A"}, 10, 30, 10),
        ({}, {"a": "A", "b": "B"}, 60, 30, 30),
        ({"a": ("A", 10), "b": ("B", 20), "c": ("C", 30)}, {"bad": "?"}, 0, 0, 0),
        ({"b": ("A", 10), "a": ("B", 20)}, {}, 30, 30, 0),
    ],
)
def test_what_stops_counting_is_told_by_contents(files, set_aside, lost, gone, aside):
    loss = loss_of(BEFORE, version(files), None, set_aside)
    if lost == 0:
        assert loss is None
    else:
        assert loss is not None
        assert (loss.lost, loss.gone.events, loss.set_aside.events) == (lost, gone, aside)


def test_one_of_two_equal_files_that_goes_is_lost():
    twice = version({"a": ("A", 10), "b": ("A", 10)})
    loss = loss_of(twice, version({"b": ("A", 10)}), None, {})
    assert loss is not None
    assert (loss.lost, loss.gone.paths) == (10, ("a",))
    loss = loss_of(twice, version({"x": ("A", 10)}), None, {})
    assert loss is not None
    assert (loss.lost, loss.gone.paths) == (10, ("b",)), "the other one was renamed"


def test_no_more_is_lost_than_events_went():
    """The same rows in other files: a compaction of files that are set aside by now."""
    after = version({"b": ("B", 20), "c": ("C", 30), "x": ("X", 10)})
    nothing = EntityTimes(pl.DataFrame({"k": []}))
    assert loss_of(BEFORE, after, EventDiff(0, 0, nothing), {"a": "A"}) is None
    loss = loss_of(BEFORE, after, EventDiff(8, 4, nothing), {"a": "A"})
    assert loss is not None
    assert loss.lost == 4


def test_a_first_version_loses_nothing():
    assert loss_of(None, BEFORE, None, {"a": "A"}) is None


@pytest.mark.parametrize(
    ("share", "held"), [(0.0, True), (0.16, True), (0.17, False), (0.5, False), (1.0, False)]
)
def test_a_share_decides(share, held):
    loss = loss_of(BEFORE, version({"b": ("B", 20), "c": ("C", 30)}), None, {"a": "A"})
    assert loss is not None
    assert loss.is_above(share) is held


def test_a_change_of_the_dtype_that_wins_is_held_whatever_the_share():
    after = version({"b": ("B2", 20), "c": ("C2", 30), "d": ("D", 9_999)}, "String")
    loss = loss_of(BEFORE, after, None, {"a": "A"}, "x is Int64; most files have String")
    assert loss is not None
    assert loss.lost == 10
    assert loss.is_above(1.0)
    assert "most files have another dtype by now: x is Int64" in loss.sentence("f")
