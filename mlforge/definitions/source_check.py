"""The check of a feature's source: what its files would give a build, without making a version."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mlforge.definitions.registry import Definitions
from mlforge.errors import MlforgeError
from mlforge.ingest.function_process import FunctionProcess, command
from mlforge.ingest.intake import Intake
from mlforge.ingest.pipeline import ingest
from mlforge.sources.source_reading import SourceReading


@dataclass(frozen=True, slots=True)
class Problem:
    """An error of one file, or of a feature as a whole (`path` is None)."""

    path: str | None
    error: str
    message: str


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one feature: what its source would give a build. unproven: why its function is not taken for row-wise."""

    feature: str
    exists: bool
    files: int = 0
    rows: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    ignored: tuple[tuple[str, str], ...] = ()
    unproven: str | None = None

    @property
    def state(self) -> str:
        """ok, failed, or missing: there is no such source."""
        if not self.exists:
            return "missing"
        return "failed" if self.problems else "ok"


def check_source(definitions: Definitions, name: str) -> Check:
    """The check of a feature's source, read as a build reads it; nothing of the store is written or locked."""
    feature = definitions.features[name]
    try:
        source = definitions.source(name)
        most, origin = definitions.settings.max_file_memory, definitions.loaded_from
        with (
            source.reading() as listing,
            definitions.store.draft() as draft,
            draft.lock(name),
            FunctionProcess.opened(
                command(*origin, name) if origin else (), at_once=True
            ) as process,
        ):
            reading = SourceReading(most, keep_bytes=0)
            intake = ingest(feature, listing, draft, draft.latest(name), reading, process=process)
        if intake.schema is not None:
            feature.spec.output(intake.schema)
    except MlforgeError as error:
        return Check(name, True, problems=(Problem(None, type(error).__name__, str(error)),))
    dropped: dict[str, int] = {}
    for partial in intake.partials:
        for reason, count in partial.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    dropped = {reason: count for reason, count in dropped.items() if count}
    nothing = source.why_nothing(listing)
    lacking = [] if nothing is None else [Problem(None, "SourceError", f"{name}: {nothing}")]
    warnings = (*listing.notes, *intake.warnings)
    if nothing is None and not listing.exists:
        warnings = (source.absence(listing),)
    elif nothing is None and not listing.stats:
        warnings = (*warnings, f"{source.text} holds no parquet file yet")
    return Check(
        feature=name,
        exists=listing.exists,
        files=len(listing.stats),
        rows=sum(partial.rows for partial in intake.partials),
        dropped=dropped,
        problems=(*lacking, *_problems(intake)),
        warnings=warnings,
        ignored=tuple((entry.path, entry.reason) for entry in listing.ignored),
        unproven=None if intake.rowwise or feature.incremental is not None else intake.why,
    )


def _problems(intake: Intake) -> tuple[Problem, ...]:
    by_text = {str(error): type(error).__name__ for error in intake.errors}
    files = [
        Problem(path, by_text.get(bad.reason, "SourceError"), bad.reason)
        for path, bad in sorted(intake.quarantine.items())
    ]
    said = {problem.message for problem in files}
    whole = [
        Problem(None, type(error).__name__, str(error))
        for error in intake.errors
        if str(error) not in said
    ]
    return (*files, *whole)


def as_json(check: Check) -> dict[str, Any]:
    """The entry of one feature in `validate --json`."""
    return {
        "feature": check.feature,
        "state": check.state,
        "files": check.files,
        "rows": check.rows,
        "rows_dropped": check.dropped,
        "problems": [
            {"path": problem.path, "error": problem.error, "message": problem.message}
            for problem in check.problems
        ],
        "warnings": list(check.warnings),
        "ignored": [{"path": path, "reason": reason} for path, reason in check.ignored],
        "unproven": check.unproven,
    }
