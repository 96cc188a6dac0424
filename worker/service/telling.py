"""Lines for a person: of the event log, and of what the processes of `mlforge up` say."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from mlforge.cli.output import lines_for
from mlforge.core.text import bump_word, by_reason, plural, printable, some_of
from mlforge.definitions.environment import REDIS_URL
from mlforge.errors import without_owners
from mlforge.registry.deeds import DEEDS
from worker.state.event_log import Entry

_REASONS = 3
"""How many reasons a line tells of files that are set aside."""
_NAMED = 10
"""How many features a line names of definitions that are taken up."""
_TOLD = ("refresh failed", "held", "quarantined", "edited definitions do not import", "audit:")
"""Log records of the children that the event log holds too."""


def tell_person(line: str) -> None:
    """Print a line on stdout, control characters escaped, its words whole in a terminal.

    The time precedes each line but REDIS_URL, which is there to be pasted.
    """
    if line.startswith(REDIS_URL):
        lines = [printable(line)]
    else:
        lines = lines_for(sys.stdout, printable(f"{time.strftime('%H:%M:%S')} {line}"))
    sys.stdout.write("".join(f"{text}\n" for text in lines))
    sys.stdout.flush()


def describe(entry: Entry) -> str:
    """An entry of the event log as one line for people."""
    details = entry.details
    feature = entry.feature or ""
    if entry.kind == "refreshed":
        return f"{feature:<20} {_refreshed(feature, details)}"
    if entry.kind == "failed":
        return f"{feature:<20} failed: {without_owners(str(details['error']), feature)}"
    if entry.kind == "held":
        return f"{feature:<20} held: {details['reason']}"
    if deed := DEEDS.get(entry.kind):
        return f"{feature:<20} {deed.title.lower()}: {deed.sentence(details)}"
    if entry.kind == "mismatch":
        return f"{feature:<20} WRONG: {details['mismatches']} values are not what the files give: {details['first'][0]}"
    if entry.kind == "dropped":
        return f"{feature:<20} is gone from the definitions; its rows are no longer online"
    if entry.kind == "watching":
        return "watching: drop parquet files into the sources; Ctrl-C stops everything"
    if entry.kind == "definitions":
        return f"definitions taken up: {some_of(details['features'], _NAMED) or 'no feature yet'}"
    if entry.kind == "late":
        return f"{feature:<20} {details['path']} changed in a sealed partition: all is listed once more"
    if entry.kind == "definitions_broken":
        return f"edited definitions do not import, the old ones stay: {details['error']}"
    if entry.kind == "definitions_unsteady":
        return f"nothing is done: {details['error']}"
    return f"{feature} {entry.kind} {dict(details)}".strip()


def _refreshed(feature: str, details: Mapping[str, Any]) -> str:
    version = details["version"] or "no version yet"
    word = bump_word(details["bump"], details["reason"])
    bump = f" {word}" if word else ""
    parts = [f"{version}{bump}", details["reason"]]
    if details["changed"]:
        parts.append(f"{plural(details['rows_recomputed'], 'row')} recomputed")
    if details["entities_pushed"] or details["entities_deleted"]:
        pushed = details["entities_pushed"] + details["entities_deleted"]
        parts.append(f"{plural(pushed, 'entity', 'entities')} pushed")
    if details["freshness_ms"] is not None:
        what = "from close to readable" if details["changed"] else "after close"
        parts.append(f"{details['freshness_ms']:,.0f} ms {what}")
    reasons = by_reason(
        (path, without_owners(why, feature, path)) for path, why in details["quarantined"].items()
    )
    parts += [f"quarantined {line}" for line in reasons[:_REASONS]]
    if len(reasons) > _REASONS:
        parts.append(f"quarantined files for {plural(len(reasons) - _REASONS, 'more reason')}")
    trigger = f" [{details['trigger']}]" if details["trigger"] else ""
    return " · ".join(parts) + trigger


def described(entry: Entry) -> str:
    """The line of `describe`; for an entry of another form, its kind."""
    try:
        return describe(entry)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return f"an entry of the event log cannot be read: {entry.kind}"


def record_of(line: str) -> Mapping[str, Any]:
    """The log record that a line holds; empty where it holds something else."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def worth_showing(record: Mapping[str, Any], line: str) -> str | None:
    """The text to show of a child's line; None for records below a warning, and for those in the event log."""
    if not record:
        return line or None
    if record.get("level") not in ("warning", "error", "critical"):
        return None
    if str(record.get("event")).startswith(_TOLD):
        return None
    feature = f"{record['feature']}: " if "feature" in record else ""
    why = "; ".join(str(record[key]) for key in ("error", "reason") if key in record)
    return f"{feature}{record.get('event')}{f': {why}' if why else ''}"
