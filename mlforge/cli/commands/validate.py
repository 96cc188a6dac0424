"""`mlforge validate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mlforge.cli.command import Command
from mlforge.cli.options import definitions_of, definitions_option, json_option, selection_options
from mlforge.cli.output import fail, note, number, print_json, stdout_is_ours, warn
from mlforge.cli.progress import Progress
from mlforge.cli.style import Styled
from mlforge.cli.table import table
from mlforge.core.dropped import rows_dropped
from mlforge.core.text import by_reason
from mlforge.errors import without_owners

if TYPE_CHECKING:
    from mlforge.definitions.registry import Definitions
    from mlforge.definitions.source_check import Check

STATES = {"ok": "green", "failed": "red", "missing": "red"}


def _configure(parser: argparse.ArgumentParser) -> None:
    definitions_option(parser)
    selection_options(parser)
    json_option(parser)


def validate(args: argparse.Namespace) -> int:
    """Read, compute and check what a build would, without making a version.

    Exit code 1 if a file or a feature fails. JSON: `{"features": [{"feature", "state", "files",
    "rows", "rows_dropped": {reason: rows}, "problems": [{"path", "error", "message"}],
    "warnings": [text], "ignored": [{"path", "reason"}], "unproven"}, ...], "notes": [text]}`; state is ok, failed or missing (there is no such source);
    unproven says why the function is not taken for row-wise, null if it is.
    """
    from mlforge.definitions.source_check import as_json, check_source

    definitions = definitions_of(args)
    chosen = definitions.selected(args.features, args.tags)
    checks = []
    with Progress("", total=len(chosen)) as progress, stdout_is_ours():
        for name in chosen:
            progress.name(name)
            checks.append(check_source(definitions, name))
            progress.step()
    notes = [*_on_drops(checks), *_notes(definitions, chosen)]
    if args.json:
        print_json({"features": [as_json(check) for check in checks], "notes": notes})
    else:
        rows = [
            (
                check.feature,
                Styled(check.state, STATES[check.state]),
                number(check.files),
                number(check.rows),
                number(rows_dropped(check.dropped)),
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
        warn(*(f"ignored {line}" for line in by_reason(check.ignored)), about=check.feature)
        fail(*_in_words(check), about=check.feature)
    return 1 if any(check.problems for check in checks) else 0


def _in_words(check: Check) -> Iterator[str]:
    """A line for each thing that is wrong, with the files of which it is true."""
    of_files = [
        (problem.path, without_owners(problem.message, check.feature, problem.path))
        for problem in check.problems
        if problem.path is not None
    ]
    yield from by_reason(of_files)
    yield from (problem.message for problem in check.problems if problem.path is None)


def _on_drops(checks: Sequence[Check]) -> Iterator[str]:
    """Sentences on functions for which a drop will cost what the whole source costs."""
    for check in checks:
        if check.unproven is not None:
            yield (
                f"{check.feature}: each drop will go through the whole source: the function is not taken for row-wise: "
                f"{check.unproven}"
            )


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


COMMANDS = (
    Command(
        "validate",
        "check sources and functions without making a version",
        _configure,
        validate,
        "mlforge validate\nmlforge validate --features user_spend --json",
    ),
)
