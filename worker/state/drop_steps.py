"""The steps that a drop waits for between a file's close and its rows' being readable, in milliseconds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mlforge.core.text import plural
from worker.state.event_log import Entry
from worker.state.work_queue import Lease

STEPS: Mapping[str, str] = {
    "event": "until the watcher had seen that the file is whole, and requested a refresh",
    "queue": "until a worker came to it: a free one, or an earlier refresh of the feature had to end",
    "lease": "until the feature's lease was taken",
    "read": "until the files had been listed and read, and the function applied",
    "build": "until events had been compared and rows computed",
    "publish": "until the version was written, synced and visible",
    "push": "until the rows were readable online",
    "other": "for all else: clocks that differ, the worker between two steps",
}
"""Each step in the order of the drop, and how long it lasts."""

_FILES = re.compile(r".* (came|changed|went)")
"""Requests for files, as the watcher words them."""
_KINDS = {"files_added": "came", "files_replaced": "changed", "files_removed": "went"}


@dataclass(frozen=True, slots=True)
class Drop:
    """A drop as one feature took it in: total and steps in milliseconds; `at` is when it was done (UTC microseconds)."""

    feature: str
    at: int
    trigger: str
    version: str | None
    total_ms: float
    steps: Mapping[str, float]


def drop_steps(lease: Lease, work: Mapping[str, float], total_ms: float) -> dict[str, float]:
    """The milliseconds of each step of a drop, which add up to `total_ms`, or to more where clocks differ.

    work: the seconds of the steps that the worker did under the lease.
    """
    steps = dict.fromkeys(STEPS, 0.0)
    if lease.requested_at is not None and lease.closed_at is not None:
        seen_s = (lease.requested_at - lease.closed_at) / 1e6
        waited_s = (lease.taken_at - lease.requested_at) / 1e6 - lease.took_s
        steps |= {"event": seen_s, "queue": waited_s, "lease": lease.took_s}
    steps |= work
    in_ms = {step: round(max(0.0, seconds) * 1000, 1) for step, seconds in steps.items()}
    in_ms["other"] = round(max(0.0, total_ms - sum(in_ms.values())), 1)
    return in_ms


def trigger_of(requested: str, evidence: Mapping[str, Any]) -> str:
    """The trigger of a refresh that published a version: the request, its files as the version took them in.

    requested: the reason of the request. evidence: the version's. Files that arrive while a refresh starts are taken in
    with those that were requested.
    """
    counts = {word: evidence[kind]["count"] for kind, word in _KINDS.items() if kind in evidence}
    if not _FILES.fullmatch(requested) or sum(counts.values()) < 2:
        return requested
    return ", ".join(f"{plural(n, 'file')} {word}" for word, n in counts.items())


def slowest(entries: Iterable[Entry], count: int) -> list[Drop]:
    """The slowest drops among entries of the event log, the slowest first; entries of other kinds are passed over."""
    drops = [drop for entry in entries if (drop := _drop(entry)) is not None]
    return sorted(drops, key=lambda drop: (-drop.total_ms, drop.feature, drop.at))[:count]


def _drop(entry: Entry) -> Drop | None:
    total, steps = entry.details.get("freshness_ms"), entry.details.get("steps")
    if entry.kind != "refreshed" or entry.feature is None or not isinstance(steps, dict):
        return None
    milliseconds = {step: _number(steps.get(step)) for step in STEPS}
    version = entry.details.get("version")
    return Drop(
        entry.feature,
        entry.at,
        str(entry.details.get("trigger", "")),
        None if version is None else str(version),
        _number(total),
        milliseconds,
    )


def _number(value: Any) -> float:
    """A finite number of an entry; 0 for anything else, which no worker wrote."""
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if is_number else 0.0
