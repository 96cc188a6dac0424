"""`mlforge validate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlforge.cli.command import Command
from mlforge.cli.options import definitions_of, definitions_option, json_option, selection_options
from mlforge.cli.output import fail, note, number, print_json, stdout_is_ours, warn
from mlforge.cli.progress import Progress
from mlforge.cli.style import Styled
from mlforge.cli.table import table
from mlforge.errors import MlforgeError

if TYPE_CHECKING:
    from mlforge.definitions.registry import Definitions

STATES = {"ok": "green", "failed": "red", "missing": "red"}


@dataclass(frozen=True, slots=True)
class Problem:
    """An error of one file, or of a feature as a whole (`path` is None)."""

    path: str | None
    error: str
    message: str


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one feature: what its source would give a build."""

    feature: str
    exists: bool
    files: int = 0
    rows: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    ignored: tuple[tuple[str, str], ...] = ()

    @property
    def state(self) -> str:
        """ok, failed, or missing: there is no such source."""
        if not self.exists:
            return "missing"
        return "failed" if self.problems else "ok"


def _configure(parser: argparse.ArgumentParser) -> None:
    definitions_option(parser)
    selection_options(parser)
    json_option(parser)


def validate(args: argparse.Namespace) -> int:
    """Read, compute and check what a build would, without making a version.

    Exit code 1 if a file or a feature fails. JSON: `{"features": [{"feature", "state", "files",
    "rows", "rows_dropped": {reason: rows}, "problems": [{"path", "error", "message"}],
    "warnings": [text], "ignored": [{"path", "reason"}]}, ...], "notes": [text]}`; state is ok, failed or missing (there is no such source).
    """
    definitions = definitions_of(args)
    chosen = definitions.selected(args.features, args.tags)
    checks = []
    with Progress("", total=len(chosen)) as progress, stdout_is_ours():
        for name in chosen:
            progress.name(name)
            checks.append(check_source(definitions, name))
            progress.step()
    notes = list(_notes(definitions, chosen))
    if args.json:
        print_json({"features": [as_json(check) for check in checks], "notes": notes})
    else:
        rows = [
            (
                check.feature,
                Styled(check.state, STATES[check.state]),
                number(check.files),
                number(check.rows),
                number(sum(check.dropped.values())),
                number(len(check.problems)),
            )
            for check in checks
        ]
        headers = ("feature", "state", "files", "rows", "left out", "problems")
        print(table(headers, rows, right=headers[2:]))
        for text in notes:
            note(text, "dim")
    sys.stdout.flush()
    for check in checks:
        warn(*check.warnings, about=check.feature)
        warn(*(f"ignored {path}: {reason}" for path, reason in check.ignored), about=check.feature)
        fail(*(problem.message for problem in check.problems), about=check.feature)
    return 1 if any(check.problems for check in checks) else 0


def _notes(definitions: Definitions, names: Sequence[str]) -> Iterator[str]:
    """Sentences on features whose windows count the present event, on windows that are always empty, and on services refused by the hour.

    The first is for features whose author wrote no `closed`, and without an interval: with one, windows end at a boundary.
    """
    features = [definitions.features[name] for name in names]
    counting = [f.name for f in features if f.leaves_closed_out and f.spec.interval is None]
    if counting:
        yield (
            f"windows of {', '.join(counting)} count an event at the very instant that is asked about "
            '(closed="both", the default); a request at that instant cannot have seen it: where training spines are '
            'made of the same events, write Rolling(..., closed="left"), or closed="both" if it is meant'
        )
    for name in names:
        spec = definitions.features[name].spec
        if spec.always_empty:
            yield (
                f"{name}: {', '.join(spec.always_empty)} are always empty: values are those of boundaries of the interval "
                f"{spec.interval}, and at each of them the period has just begun; take a shorter interval, or none"
            )
    for service in definitions.services.values():
        slower = [
            f"{name} ({interval})"
            for name in service.feature_names
            if name in names
            and (interval := definitions.features[name].spec.interval) is not None
            and service.max_age is not None
            and interval.us > service.max_age.us
        ]
        if slower:
            yield (
                f"{service.name}: max_age {service.max_age} is shorter than the interval of {', '.join(slower)}: online values "
                "are those of the newest boundary, and are refused from then on until the next; allow more"
            )


def check_source(definitions: Definitions, name: str) -> Check:
    """The check of a feature's source, read as a build reads it; nothing of the store is written or locked."""
    from mlforge.ingest.function_process import command
    from mlforge.ingest.pipeline import ingest
    from mlforge.ingest.transform import Apart

    feature = definitions.features[name]
    try:
        source = definitions.source(name)
        most, origin = definitions.settings.max_file_memory, definitions.loaded_from
        with (
            source.reading() as listing,
            definitions.store.draft() as draft,
            draft.lock(name),
            Apart.opened(command(*origin, name) if origin else (), at_once=True) as apart,
        ):
            intake = ingest(feature, listing, draft, draft.latest(name), most, apart=apart)
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
    warnings = intake.warnings
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
    )


def _problems(intake: Any) -> tuple[Problem, ...]:
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
    }


COMMANDS = (
    Command(
        "validate",
        "check sources and functions without making a version",
        _configure,
        validate,
        "mlforge validate\nmlforge validate --features user_spend --json",
    ),
)
