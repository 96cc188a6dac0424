"""The policy of a refresh: pure functions of the served version, the candidate and the options."""

from __future__ import annotations

from mlforge.build.categorizer import DataChange
from mlforge.build.result import Options
from mlforge.core.list_diff import differing
from mlforge.core.manifest import Manifest
from mlforge.ingest.intake import AS_DECLARED
from mlforge.store.changes import EventDiff


def mode_of(
    latest: Manifest | None,
    candidate: Manifest,
    changes: EventDiff | None,
    options: Options,
) -> tuple[str, str]:
    """The mode, full or incremental, and the reason for it; both give the same rows.

    The reason says, too, once a function is found not to treat each row alone, as each drop costs a full build from then on.
    """
    mode, reason = _mode_of(latest, candidate, changes, options)
    is_told = latest is not None and not latest.rowwise
    if candidate.rowwise or candidate.why == AS_DECLARED or is_told:
        return mode, reason
    told = _not_row_wise(candidate)
    if told in reason:
        return mode, reason
    return mode, f"{reason}; each drop will go through the whole source: {told}"


def _not_row_wise(candidate: Manifest) -> str:
    return f"the function is not taken for row-wise: {candidate.why}"


def _mode_of(
    latest: Manifest | None,
    candidate: Manifest,
    changes: EventDiff | None,
    options: Options,
) -> tuple[str, str]:
    if options.full:
        return "full", "asked for"
    if latest is None:
        return "full", "first build"
    if changes is None:
        return "full", "columns, keys or timestamp changed, or old events are lost"
    if (latest.columns, latest.spec.columns) != (candidate.columns, candidate.spec.columns):
        return "full", "metrics changed"
    if latest.spec.derived != candidate.spec.derived:
        return "full", "derived columns changed"
    if latest.spec.interval != candidate.spec.interval:
        return "full", "the interval changed"
    if changes.rows == 0:
        return "incremental", "no event changed"
    if not candidate.rowwise:
        return "full", _not_row_wise(candidate)
    total = candidate.sums.rows
    if changes.rows > options.cost_share * total:
        return "full", f"{changes.rows:,} of {total:,} events changed"
    return "incremental", f"{changes.rows:,} of {total:,} events changed"


def data_change(
    latest: Manifest | None, candidate: Manifest, changes: EventDiff | None
) -> DataChange:
    """How the events differ from the version before, and through which files."""
    old, new = differing(latest.sources if latest else (), candidate.sources)
    before = {record.path: record.hash for record in old}
    after = {record.path: record.hash for record in new}
    return DataChange(
        rows=changes.rows if changes else sum(p.rows for p in candidate.partials),
        entities=changes.entities.height if changes else None,
        files_added=tuple(path for path in after if path not in before),
        files_removed=tuple(path for path in before if path not in after),
        files_replaced=tuple(
            path for path in after if path in before and before[path] != after[path]
        ),
    )
