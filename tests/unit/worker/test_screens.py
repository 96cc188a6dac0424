"""Text from outside is escaped on every screen of the worker: a name must not forge a line."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from mlforge.core import clock
from mlforge.core.logs import get_logger
from mlforge.core.text import printable
from mlforge.core.values import to_iso
from mlforge.registry import deeds
from worker import logs
from worker.monitor import slow
from worker.monitor.feature_status import AuditStatus, FeatureStatus
from worker.monitor.screen import render
from worker.monitor.status import Status
from worker.service import telling
from worker.service.wait import Arrival, place_of
from worker.state.drop_steps import STEPS, Drop
from worker.state.event_log import Entry

NAMES = [
    "a\x1b[2J.parquet",
    "a\n12:00:00 spend 9.9.9 refreshed.parquet",
    "a\r12:00:00 all is well",
    "a\x9b31m.parquet",
    "a\u2028b\u202egpj.parquet",
    "a\x7f\x00\x08.parquet",
    "a\udcff.parquet",
]


def feature(name: str) -> FeatureStatus:
    texts: dict[str, Any] = {field.name: None for field in fields(FeatureStatus)}
    return FeatureStatus(
        **texts
        | {
            "feature": name,
            "state": "parked",
            "lag_seconds": 0.0,
            "held": f"held for {name}",
            "held_now": name,
            "error": f"error of {name}",
            "quarantine": {name: f"{name}: reason with {name}"},
            "ignored": {name: name},
            "source_missing": True,
            "unreadable": (f"its ticket cannot be read: {name}",),
        }
    )


def line_of(quarantined: dict[str, str]) -> str:
    """What is told of a refresh that did nothing but set files aside."""
    details = {
        "version": "1.0.0",
        "bump": None,
        "reason": "unchanged",
        "changed": False,
        "entities_pushed": 0,
        "entities_deleted": 0,
        "freshness_ms": None,
        "trigger": None,
        "quarantined": quarantined,
    }
    return telling.describe(Entry("1-0", "refreshed", "spend", details))


def is_one_clean_line(text: str) -> bool:
    return text.isprintable()


@pytest.mark.parametrize("name", NAMES)
def test_status_prints_no_control_character(name: str) -> None:
    status = Status("shop", "now", name, (feature(name),), 0, None, (), (), (f"warning of {name}",))
    assert all(map(is_one_clean_line, render(status).split("\n")))
    assert len(render(status).split("\n")) == len(render(status).splitlines())


@pytest.mark.parametrize(
    ("error", "retry_at", "told"),
    [
        ("no bucket", "16:31", "spend: no bucket; so since 16:30; again at 16:31"),
        ("no bucket", None, "spend: no bucket; so since 16:30; tried again now"),
        (None, None, "spend: no refresh has gone well since 16:30; tried again now"),
    ],
)
def test_status_says_since_when_no_refresh_of_a_feature_goes_well(
    error: str | None, retry_at: str | None, told: str
) -> None:
    times = {"failing_since": "16:30", "retry_at": retry_at}
    spend = replace(feature("spend"), state="failing", error=error, **times)
    assert told in render(Status("shop", "now", "", (spend,), 0, None, (), (), ())).splitlines()


def test_a_file_that_is_set_aside_is_told_once_with_its_name_and_its_features() -> None:
    path, why = "b/2026.parquet", "column 'amount': sum of String is not possible"
    features = []
    for name, reason in {
        "orders": f"{path}: orders: {why}",
        "spend": f"spend: {path}: {why}",
        "users": f"{path}: {why}",
    }.items():
        features.append(replace(feature(name), quarantine={path: reason}, ignored={}))
    status = Status("shop", "now", None, tuple(features), 0, None, (), (), ())
    assert render(status).splitlines()[-1] == f"orders, spend, users: quarantined {path}: {why}"
    line = line_of({path: f"spend: {path}: {why}"})
    assert line.endswith(f" · quarantined {path}: {why}")


def test_of_files_that_are_set_aside_for_a_thousand_reasons_some_are_told_and_the_rest_is_counted() -> (
    None
):
    aside = {f"{n}.parquet": f"{n} rows are wrong" for n in range(1_000)}
    spend = replace(feature("spend"), quarantine=aside, ignored={})
    lines = render(Status("shop", "now", "", (spend,), 0, None, (), (), ())).splitlines()
    assert sum("quarantined" in line for line in lines) == 11
    assert "spend: quarantined files for 990 more reasons; --json has them all" in lines
    line = line_of(aside)
    assert "2.parquet: 2 rows are wrong · quarantined files for 997 more reasons" in line
    assert "3.parquet" not in line


DEEDS: dict[str, tuple[dict[str, Any], str]] = {
    "built": (
        {"version": "1.0.1", "reason": "data_refresh", "keys_written": 1},
        "built by hand: 1.0.1 is served: data refresh, 1 key written online",
    ),
    "scheduled": (
        {"version": "1.0.1", "reason": "data_refresh", "keys_written": None},
        "built by a schedule: 1.0.1 is served: data refresh",
    ),
    "forgotten": (
        {"version": "1.0.2", "rows": 3, "keys_deleted": 2},
        "forgotten: 1.0.2 is served, without 3 rows of entities that are forgotten, 2 keys deleted online",
    ),
    "retired": (
        {"versions": 1, "rows": 2},
        "retired: 1 version deleted in the store, and 2 rows online",
    ),
    "renamed": ({"before": "spent"}, "renamed: it was spent until now"),
    "adopted": (
        {"kept_by": "bank", "from": None},
        "adopted: it was kept by the definitions 'bank'",
    ),
    "rolled_back": (
        {"version": "1.0.0", "from": "1.0.1"},
        "rolled back: 1.0.0 is served in place of 1.0.1, and held until somebody approves it",
    ),
    "approved": ({"version": "1.0.2", "changed": True}, "approved: 1.0.2 was published"),
}


@pytest.mark.parametrize("kind", deeds.DEEDS)
def test_up_tells_what_people_did(kind: str) -> None:
    details, told = DEEDS[kind]
    assert telling.describe(Entry("1-0", kind, "spend", details)) == f"{'spend':<20} {told}"


@pytest.mark.parametrize("name", NAMES)
def test_slow_drops_print_no_control_character(name: str) -> None:
    drop = Drop(name, 1, f"{name} came", name, 5.0, dict.fromkeys(STEPS, 2.0))
    assert all(map(is_one_clean_line, slow.render([drop]).split("\n")))
    assert len(slow.render([drop]).split("\n")) == len(slow.render([drop]).splitlines())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "kind",
    [
        "failed",
        "held",
        "mismatch",
        "definitions_broken",
        "new",
        "refreshed",
        "rolled_back",
        "approved",
    ],
)
def test_up_prints_one_line_for_an_entry(
    name: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    details: dict[str, Any] = {
        "error": name,
        "reason": name,
        "mismatches": 1,
        "first": [name],
        "features": [name],
        "version": "1.0.0",
        "from": name,
        "bump": None,
        "changed": False,
        "entities_pushed": 0,
        "entities_deleted": 0,
        "freshness_ms": None,
        "quarantined": {name: name},
        "trigger": f"{name} came",
    }
    telling.tell_person(telling.describe(Entry("1-0", kind, name, details)))
    [line] = capsys.readouterr().out.removesuffix("\n").split("\n")
    assert is_one_clean_line(line)


@pytest.mark.parametrize("name", NAMES)
def test_up_prints_one_line_for_what_a_process_says(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    telling.tell_person(f"watcher: {name}")
    assert is_one_clean_line(capsys.readouterr().out.removesuffix("\n"))


@pytest.mark.parametrize("name", NAMES)
def test_wait_prints_one_line_for_a_feature(name: str) -> None:
    assert is_one_clean_line(printable(Arrival(name, None, f"quarantined: {name}", None)))


@pytest.mark.parametrize("name", NAMES)
def test_readable_logs_hold_one_line_for_a_record(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    logs.configure("watcher")
    try:
        get_logger("worker.test").warning(
            f"event {name}", error=name, files=[name], by={name: name}
        )
        logging.getLogger("rq.worker").warning("rq says %s", name)
        try:
            raise ValueError(name)
        except ValueError as error:
            get_logger("worker.test").error("failed", exc_info=error)
    finally:
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)
    text = screen.getvalue()
    for style in ("\x1b[0m", "\x1b[1m", "\x1b[2m", *(f"\x1b[{n}m" for n in range(30, 38))):
        text = text.replace(style, "")
    assert all(map(is_one_clean_line, text.removesuffix("\n").split("\n")))
    assert text.count("rq says") == 1


@pytest.mark.parametrize(
    ("proven_version", "ago", "shown"),
    [("1.0.0", 42, "42 s"), ("1.0.0", 3_000, "50 min"), ("0.9.0", 42, "0.9.0, 42 s")],
)
def test_status_says_once_how_long_ago_a_version_was_proven(
    proven_version: str, ago: int, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(clock, "now", lambda: 3_600_000_000)
    proven_at = to_iso(3_600_000_000 - ago * 1_000_000)
    audit = AuditStatus("1.0.0", proven_at, 62, 0, 0, (), proven_version, proven_at, 62)
    texts: dict[str, Any] = {field.name: None for field in fields(FeatureStatus)}
    known = {"state": "ready", "version": "1.0.0", "rows": 13_247, "online_version": "1.0.0"}
    rest = {"quarantine": {}, "ignored": {}, "unreadable": (), "audit": audit, "lag_seconds": 0.0}
    spend = FeatureStatus(
        **texts | known | rest | {"feature": "user_spend", "as_of": "2026-11-28T03:47:26.000000Z"}
    )
    lines = render(Status("shop", "now", "", (spend,), 0, None, (), (), ())).splitlines()
    column = lines[0].index("proven")
    assert " ".join(line[column:].strip() for line in lines[1:3]).strip() == shown
    assert max(map(len, lines)) <= 80
    assert "proven" not in "".join(lines[2:])


@pytest.mark.parametrize(
    ("online", "shown"),
    [("1.0.0", "1.0.0"), ("0.9.0", "1.0.0, online 0.9.0"), (None, "1.0.0, online none")],
)
def test_status_names_the_version_that_is_online_where_it_is_another(
    online: str | None, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    spend = replace(feature("spend"), version="1.0.0", online_version=online)
    line = render(Status("shop", "now", "", (spend,), 0, None, (), (), ())).splitlines()[1]
    assert line.split("parked")[1].split("  ")[1].strip() == shown


def test_a_warning_of_a_process_begins_with_its_feature() -> None:
    record = {"event": "a.parquet: dates lie ahead", "level": "warning", "feature": "spend"}
    assert telling.worth_showing(record, "") == "spend: a.parquet: dates lie ahead"
    failed = {"event": "cannot look", "level": "error", "error": "no disk"}
    assert telling.worth_showing(failed, "") == "cannot look: no disk"


def test_files_that_are_set_aside_for_one_reason_are_one_line() -> None:
    many = {f"{n}.parquet": f"spend: its function failed on {n}.parquet: no luck" for n in range(5)}
    spend = replace(feature("spend"), quarantine=many, ignored={})
    [line] = [
        line
        for line in render(Status("shop", "now", "", (spend,), 0, None, (), (), ())).splitlines()
        if "quarantined" in line
    ]
    told = "0.parquet, 1.parquet, 2.parquet and 2 more"
    assert line == f"spend: quarantined {told}: its function failed: no luck"


def test_each_line_of_a_log_begins_alike_also_of_other_threads(
    capsys: pytest.CaptureFixture[str],
) -> None:
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    logs.configure("watcher")
    try:
        told = get_logger("worker.test").warning
        thread = threading.Thread(
            target=told, args=("held",), kwargs={"reason": "x", "feature": "f"}
        )
        thread.start()
        thread.join()
        logging.getLogger("rq.worker").warning("rq says so")
        logging.getLogger("rq.worker").error("Worker %s: could not connect to Redis instance", 7)
    finally:
        structlog.reset_defaults()
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)
    ours, theirs = map(json.loads, capsys.readouterr().err.splitlines())
    assert [*ours] == ["timestamp", "level", "process", "event", "feature", "reason"]
    assert [*theirs] == ["timestamp", "level", "process", "event"]
    assert {ours["process"], theirs["process"]} == {"watcher"}


def test_a_file_that_is_waited_for_may_begin_with_a_tilde_that_is_nobodys_home():
    assert place_of("~nobody-by-this-name.parquet") == Path.cwd() / "~nobody-by-this-name.parquet"
    assert place_of("~/drops/a.parquet") == Path.home() / "drops/a.parquet"


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "no feature yet"),
        (2, "f0, f1"),
        (300, "f0, f1, f2, f3, f4, f5, f6, f7, f8, f9 and 290 more"),
    ],
)
def test_of_very_many_features_that_are_taken_up_some_are_named(count: int, told: str) -> None:
    features = [f"f{number}" for number in range(count)]
    line = telling.describe(Entry("1-0", "definitions", "", {"features": features}))
    assert line == f"definitions taken up: {told}"
