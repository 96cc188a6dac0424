"""The slowest recent drops, and what each of them waited for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mlforge.cli.output import lines_for, second
from mlforge.cli.table import table
from mlforge.core.values import to_iso
from worker.project import Project
from worker.state.drop_steps import STEPS, Drop, slowest

_SHOWN = 10


def slow_drops(project: Project) -> list[Drop]:
    """The slowest of the drops that the event log still holds, the slowest first."""
    return slowest(project.event_log.recent(), _SHOWN)


def to_json(drops: Sequence[Drop]) -> dict[str, Any]:
    """The document that `--json` prints."""
    return {"drops": [{**asdict(drop), "at": to_iso(drop.at)} for drop in drops]}


def render(drops: Sequence[Drop]) -> str:
    """The drops as text for people: a line a drop, then a line for each step that some drop waited for."""
    if not drops:
        return "no drop yet: the event log holds none that a worker has made readable"
    steps = [step for step in STEPS if any(drop.steps[step] >= 1 for drop in drops)]
    rows = [
        (
            drop.feature,
            second(to_iso(drop.at)),
            drop.trigger,
            drop.version,
            _ms(drop.total_ms),
            *(_ms(drop.steps[step]) for step in steps),
        )
        for drop in drops
    ]
    headers = ("feature", "readable at (UTC)", "trigger", "version", "ms", *steps)
    notes = [f"{step}: {STEPS[step]}" for step in steps]
    lines = (line for note in notes for line in lines_for(sys.stdout, note))
    return "\n".join([table(headers, rows, right=("ms", *steps)), "", *lines])


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:,.0f}"
