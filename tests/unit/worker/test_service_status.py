"""What `status` says of services follows from what is online of their features."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from mlforge import Service
from mlforge.core.values import from_iso
from mlforge.store import DriftNote
from worker.monitor.feature_status import FeatureStatus
from worker.monitor.metrics import _drift
from worker.monitor.screen import render
from worker.monitor.service_status import ServiceStatus, service_status
from worker.monitor.status import Status, _drifts

AS_OF = "2026-11-28T03:00:00.000000Z"
HOUR = 3_600_000_000


def feature(name: str, online_version: str | None, as_of: str | None = AS_OF) -> FeatureStatus:
    texts: dict[str, Any] = {field.name: None for field in fields(FeatureStatus)}
    known = {"feature": name, "state": "ready", "online_version": online_version, "as_of": as_of}
    lists = {"quarantine": {}, "ignored": {}, "unreadable": (), "lag_seconds": 0.0}
    return FeatureStatus(**texts | known | lists)


def status(service: Service, *features: FeatureStatus, hours: float = 1) -> ServiceStatus:
    now = (from_iso(AS_OF) or 0) + int(hours * HOUR)
    return service_status(service, {one.feature: one for one in features}, now)


def test_a_service_is_ready_once_all_its_features_are_online() -> None:
    service = Service("checkout", ["spend", ("days", "1.0.0")], owner="risk")
    spend, days = feature("spend", "1.0.1"), feature("days", "1.0.0", None)
    ready = status(service, spend, days)
    assert (ready.state, ready.why, ready.owner) == ("ready", None, "risk")
    assert ready.served == {"spend": "1.0.1", "days": "1.0.0"}
    waiting = status(service, feature("spend", None, None), days)
    assert (waiting.state, waiting.why) == ("waiting", "spend is not online")
    other = status(service, spend, feature("days", "1.0.1"))
    assert (other.state, other.why) == ("waiting", "it takes days 1.0.0, 1.0.1 is online")


def test_a_service_is_stale_once_a_feature_is_older_than_its_max_age() -> None:
    spend, untimed = feature("spend", "1.0.0"), feature("profile", "1.0.0", None)
    service = Service("checkout", ["profile", "spend"], max_age="6h")
    assert status(service, spend, untimed, hours=6).state == "ready"
    stale = status(service, spend, untimed, hours=6.01)
    assert (stale.state, stale.why) == ("stale", f"spend is as of {AS_OF}, max_age is 6h")
    assert status(Service("checkout", ["spend"]), spend, hours=1000).state == "ready"
    pushed = replace(untimed, pushed_at=AS_OF)
    assert status(service, replace(spend, as_of=None), pushed, hours=6).state == "ready"
    stale = status(service, replace(spend, as_of=None), pushed, hours=6.01)
    assert (stale.state, stale.why) == ("stale", f"profile was pushed at {AS_OF}, max_age is 6h")
    ahead = status(service, spend, untimed, hours=-6.01)
    assert (ahead.state, "clock that was ahead" in str(ahead.why)) == ("stale", True)


@pytest.mark.parametrize("width", [80, 60])
def test_the_screen_shows_services_below_features(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    spend = feature("spend", "1.0.0")
    services = (
        status(Service("checkout", ["spend"], max_age="6h"), spend, hours=7),
        status(Service("refunds", ["spend"]), spend),
    )
    project = Status("shop", "now", "", (spend,), 0, None, (), (), (), services)
    text = render(project)
    assert max(map(len, text.splitlines())) <= width
    assert "max_age is 6h" in " ".join(text.split()) or width == 60
    assert project.to_json()["services"][0]["state"] == "stale"
    without = render(Status("shop", "now", "", (spend,), 0, None, (), (), ()))
    assert "service" not in without


def test_drift_is_warned_of_and_told_as_a_metric_by_feature_and_column() -> None:
    notes = {"a": DriftNote(0.5, 0.2, "1.0.1"), "b": DriftNote(0.1, 0.3, "1.0.1")}
    spend = replace(feature("spend", "1.0.1"), drift=notes)
    days = replace(feature("days", "1.0.0"), drift={})
    [warning] = _drifts([spend, days])
    assert warning.startswith(
        "spend: a has drifted in the rows that came with 1.0.1: its index is 0.50"
    )
    index, limit = _drift([spend, days])
    assert (index.name, limit.name) == ("mlforge_drift_psi", "mlforge_drift_psi_limit")
    told = [
        (labels["column"], sample.value, above.value)
        for sample, above in zip(index.samples, limit.samples, strict=True)
        if (labels := sample.labels) == above.labels and labels["feature"] == "spend"
    ]
    assert told == [("a", 0.5, 0.2), ("b", 0.1, 0.3)]
