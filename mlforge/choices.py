"""The choices of a refresh: pure functions of what was, what is, and the options."""

from __future__ import annotations

from mlforge.intake import Intake
from mlforge.manifest import Manifest
from mlforge.outcomes import Options
from mlforge.partials import Changes
from mlforge.versioning import DataChange


def mode_of(
    latest: Manifest | None,
    candidate: Manifest,
    changes: Changes | None,
    why_whole: str,
    options: Options,
) -> tuple[str, str]:
    """Full or incremental, and why; the rows are the same."""
    if options.full:
        return "full", "asked for"
    if latest is None:
        return "full", "first build"
    if changes is None:
        return "full", "columns, keys or timestamp changed, or old events are lost"
    if (
        latest.spec.columns != candidate.spec.columns
        or latest.spec.interval != candidate.spec.interval
    ):
        return "full", "metrics or interval changed"
    if changes.rows == 0:
        return "incremental", "no event changed"
    if not candidate.rowwise:
        return "full", f"the function is not taken for row-wise: {why_whole}"
    total = sum(partial.rows for partial in candidate.partials)
    if changes.rows > options.cost_share * total:
        return "full", f"{changes.rows} of {total} events changed"
    return "incremental", f"{changes.rows} of {total} events changed"


def data_change(
    latest: Manifest | None, candidate: Manifest, changes: Changes | None
) -> DataChange:
    """How the events differ from the version before, and through which files."""
    before = {record.path: record.hash for record in latest.sources} if latest else {}
    after = {record.path: record.hash for record in candidate.sources}
    return DataChange(
        rows=changes.rows if changes else sum(p.rows for p in candidate.partials),
        entities=changes.entities.height if changes else 0,
        files_added=tuple(path for path in after if path not in before),
        files_removed=tuple(path for path in before if path not in after),
        files_replaced=tuple(
            path for path in after if path in before and before[path] != after[path]
        ),
    )


def too_much_lost(latest: Manifest | None, intake: Intake, options: Options) -> str | None:
    """What an unattended refresh would lose, if that is too much."""
    if latest is None:
        return None
    for what, before, after in (
        ("files", len(latest.sources), len(intake.records)),
        ("events", sum(p.rows for p in latest.partials), sum(p.rows for p in intake.partials)),
    ):
        if before and (before - after) / before > options.hold_above:
            return f"{before - after} of {before} {what} are gone; run 'mlforge approve {latest.name}' or build it"
    return None
