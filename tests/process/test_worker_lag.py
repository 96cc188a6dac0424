"""When rows online are behind: the version, the clock, their life."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.manifest import Manifest, Partial
from mlforge.core.values import TimeRange, Version
from mlforge.metrics import Rolling
from mlforge.online import OnlineBooks, Target
from mlforge.online.staleness import WALL_TICK_US, lag
from mlforge.store import Pointer

DAY = 86_400_000_000
NOW = 100 * DAY + DAY // 2
POINTER = Pointer(Version(1, 0, 1), 4)


def manifest(watermark: int, **spec: object) -> Manifest:
    partial = Partial("hash", 1, TimeRange(0, watermark), (), {}, 0)
    described = FeatureSpec("spend", ("user",), timestamp="at", **spec)
    return Manifest(described, (), (), "code", (partial,), "polars", True)


def books(as_of: int, of: Manifest | None = None, **changed: object) -> OnlineBooks:
    target = Target("1.0.1", 4, as_of, (of or manifest(NOW)).rows_hash)
    return replace(OnlineBooks(target, renewed_at=NOW), **changed)


def test_nothing_is_due_when_version_and_instant_are_online():
    assert lag(books(NOW - DAY), POINTER, manifest(NOW - DAY), None, NOW) is None


@pytest.mark.parametrize(
    ("shown", "says"),
    [
        (None, "version 1.0.1 is not online"),
        (OnlineBooks(None), "version 1.0.1 is not online"),
        (books(NOW, target=Target("1.0.0", 3, NOW)), "version 1.0.1 is not online, 1.0.0 is"),
        (books(NOW, target=Target("1.0.1", 3, NOW)), "version 1.0.1 is not online, 1.0.1 is"),
        (books(NOW, pending=(Target("1.0.1", 4, NOW),)), "a push was not finished"),
    ],
)
def test_another_version_or_an_unfinished_push_is_due(shown, says):
    assert lag(shown, POINTER, manifest(NOW), None, NOW) == says


def test_a_version_of_the_same_name_with_other_rows_is_due():
    """So it is when the store was deleted and made anew."""
    other = replace(manifest(NOW), partials=(Partial("other", 1, None, (), {}, 99),))
    assert lag(books(NOW, other), POINTER, manifest(NOW), None, NOW) == (
        "version 1.0.1 is online with other rows than it has now"
    )


def test_rows_that_follow_the_data_are_due_once_the_data_is_no_longer_ahead_of_the_clock():
    ahead = manifest(NOW + 1_000)
    assert lag(books(NOW - 1), POINTER, ahead, None, NOW) is None, "not with every microsecond"
    assert lag(books(NOW), POINTER, ahead, None, NOW + 1_000) is not None
    assert lag(books(NOW + 1_000), POINTER, ahead, None, NOW + DAY) is None


def test_rows_of_an_instant_that_has_not_come_are_due_when_a_clock_was_set_back():
    for shown in (manifest(NOW + DAY), manifest(NOW - DAY, online_clock="wall")):
        ahead = books(NOW + DAY // 24, shown)
        assert "has not come" in lag(ahead, POINTER, shown, None, NOW)
        assert lag(books(NOW + 1_000_000, shown), POINTER, shown, None, NOW) is None


def test_an_aligned_feature_is_due_when_its_boundary_passes():
    metrics = [Rolling(["1d"], {"amount": ["sum"]})]
    spec = FeatureSpec.of(
        "spend", keys=["user"], timestamp="at", interval="1d", metrics=metrics, online_clock="data"
    )
    daily = replace(manifest(NOW), spec=spec)
    shown, later = books(100 * DAY, daily), books(101 * DAY, daily)
    assert lag(shown, POINTER, daily, None, NOW) is None, "today's interval is not over"
    assert lag(shown, POINTER, daily, None, 101 * DAY) is not None
    assert lag(later, POINTER, daily, None, 105 * DAY) is None, "no data since"


def test_rows_that_follow_the_wall_clock_are_due_each_tick():
    wall = manifest(NOW - DAY, online_clock="wall")
    assert lag(books(NOW - WALL_TICK_US + 1), POINTER, wall, None, NOW) is None
    assert lag(books(NOW - WALL_TICK_US), POINTER, wall, None, NOW) is not None


def test_rows_are_due_for_renewal_at_a_quarter_of_their_life():
    def aged(ttl: int | None) -> OnlineBooks:
        return books(NOW, renewed_at=NOW - 25_000_000, ttl=ttl)

    assert lag(aged(None), POINTER, manifest(NOW), None, NOW) is None
    assert lag(aged(101), POINTER, manifest(NOW), 101, NOW) is None
    assert lag(aged(100), POINTER, manifest(NOW), 100, NOW) is not None
    assert lag(aged(1_000), POINTER, manifest(NOW), 2_000, NOW) is not None, (
        "another TTL is given at once"
    )
