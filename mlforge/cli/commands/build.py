"""`mlforge build`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mlforge.cli.command import Command
from mlforge.cli.deeds import note_deeds
from mlforge.cli.options import (
    definitions_option,
    engine_or_spark,
    json_option,
    selection_options,
    served_definitions_of,
    version_number,
)
from mlforge.cli.output import note, number
from mlforge.cli.results import CHANGE, Outcome, change, end, failed, run
from mlforge.cli.table import table
from mlforge.core.dropped import rows_in_words
from mlforge.core.text import duration

BUILT = (*CHANGE, "mode", "time")
PUSHED = (*CHANGE, "mode", "keys", "time")


def configure_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `build` and `plan` share."""
    definitions_option(parser)
    selection_options(parser)
    parser.add_argument(
        "--version", type=version_number, metavar="X.Y.Z", help="make this version, changed or not"
    )
    parser.add_argument(
        "--engine", type=engine_or_spark, metavar="E", help="polars, duckdb or spark, for this once"
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="read all files and compute all rows anew, where anything has changed",
    )
    json_option(parser)


def _configure(parser: argparse.ArgumentParser) -> None:
    configure_options(parser)
    parser.add_argument("--online", action="store_true", help="push to the online store as well")


def build(args: argparse.Namespace) -> int:
    """Build features. Exit code 1 if one fails or a file is quarantined; the others are built.

    JSON: `{"features": [result, ...], "failures": [{"feature", "error", "message"}, ...]}`, where a
    result has feature, version, changed, bump, reason, details, rows, path, mode, mode_reason,
    rows_changed, rows_dropped (by reason, in the version), entities, rows_recomputed, files_read, keys_written (null unless pushed),
    quarantined and ignored (`[{"path", "reason"}]`), warnings, seconds, engine.
    """
    from mlforge.registry import deeds
    from mlforge.registry.live import published

    definitions = served_definitions_of(args)
    outcome = run(
        definitions, args, lambda options: definitions.build(online=args.online, **options)
    )
    note_deeds(args, definitions, deeds.BUILT, published(outcome.results))
    if not args.json:
        headers = PUSHED if args.online else BUILT
        print(table(headers, built_rows(outcome, headers), right=("rows", "keys", "time")))
        for result in outcome.results.values():
            rows = rows_in_words(result.rows_dropped) if result.changed else ""
            if rows:
                note(f"{result.feature} {result.version} leaves out rows: {rows}", "dim")
            if result.changed and "row-wise" in result.mode_reason:
                note(f"{result.feature}: {result.mode_reason}", "dim")
    return end(outcome, args.json)


def built_rows(outcome: Outcome, headers: Sequence[str]) -> list[tuple[object, ...]]:
    """Rows of a table of what was built, under these headers: BUILT or PUSHED."""
    built = [
        (
            *change(result),
            number(result.rows),
            result.mode if result.changed else None,
            *([number(result.keys_written)] if "keys" in headers else []),
            duration(result.seconds),
        )
        for result in outcome.results.values()
    ]
    return [*built, *failed(outcome, headers)]


COMMANDS = (
    Command(
        "build",
        "bring features to the present state of their sources",
        _configure,
        build,
        "mlforge build\nmlforge build --features user_spend --version 2.0.0\n"
        "mlforge build --tags daily --online --json",
    ),
)
