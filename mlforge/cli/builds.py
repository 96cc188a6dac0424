"""`mlforge build`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from mlforge.cli.command import Command
from mlforge.cli.options import (
    definitions_of,
    definitions_option,
    json_option,
    selection_options,
)
from mlforge.cli.output import (
    Styled,
    fail,
    number,
    plural,
    print_json,
    seconds,
    stdout_is_ours,
    table,
    warn,
)
from mlforge.cli.progress import Progress
from mlforge.errors import BuildError, MlforgeError

if TYPE_CHECKING:
    from mlforge.outcomes import BuildResult
    from mlforge.store import Store

BUMPS = {"major": "red", "minor": "yellow", "patch": "green"}
HEADERS = ("feature", "version", "bump", "reason", "rows", "mode", "time")


def _configure(parser: argparse.ArgumentParser) -> None:
    definitions_option(parser)
    selection_options(parser)
    parser.add_argument("--version", metavar="X.Y.Z", help="make this version, changed or not")
    parser.add_argument("--engine", metavar="E", help="polars or duckdb, for this build")
    parser.add_argument("--online", action="store_true", help="push to the online store as well")
    parser.add_argument("--full", action="store_true", help="recompute every row")
    json_option(parser)


def build(args: argparse.Namespace) -> int:
    """Build features. Exit code 1 if one fails or a file is quarantined; the others are built.

    JSON: `{"features": [result, ...], "failures": [{"feature", "error", "message"}, ...]}`, where a
    result has feature, version, changed, bump, reason, rows, path, mode, mode_reason, rows_changed,
    entities, rows_recomputed, files_read, quarantined and ignored (`[{"path", "reason"}]`),
    warnings, seconds, engine.
    """
    definitions = definitions_of(args)
    count = len(args.features or definitions.features)
    failures: Mapping[str, Exception] = {}
    results: Mapping[str, BuildResult]
    try:
        with Progress(f"building {plural(count, 'feature')}"), stdout_is_ours():
            results = definitions.build(
                features=args.features,
                tags=args.tags,
                version=args.version,
                engine=args.engine,
                online=args.online,
                full=args.full,
            )
    except BuildError as error:
        failures, results = error.failures, cast("Mapping[str, BuildResult]", error.results)
    finally:
        definitions.close()
    if args.json:
        print_json(
            {
                "features": [
                    as_json(result, definitions.store.books(name).ignored)
                    for name, result in results.items()
                ],
                "failures": [
                    {"feature": name, "error": type(error).__name__, "message": str(error)}
                    for name, error in failures.items()
                ],
            }
        )
    else:
        print(table(HEADERS, _rows(results, failures), right=("rows", "time")))
    sys.stdout.flush()
    _complain(results, failures, definitions.store)
    return 1 if failures or any(result.quarantined for result in results.values()) else 0


def as_json(result: BuildResult, ignored: Mapping[str, str]) -> dict[str, Any]:
    """What `build --json` says about one feature."""
    return {
        "feature": result.feature,
        "version": result.version,
        "changed": result.changed,
        "bump": result.bump,
        "reason": result.reason,
        "rows": result.rows,
        "path": None if result.path is None else str(result.path),
        "mode": result.mode,
        "mode_reason": result.mode_reason,
        "rows_changed": result.rows_changed,
        "entities": result.entities,
        "rows_recomputed": result.rows_recomputed,
        "files_read": result.files_read,
        "quarantined": [{"path": bad.path, "reason": bad.reason} for bad in result.quarantined],
        "ignored": [{"path": path, "reason": reason} for path, reason in ignored.items()],
        "warnings": list(result.warnings),
        "seconds": round(result.seconds, 6),
        "engine": result.engine,
    }


def _rows(
    results: Mapping[str, BuildResult], failures: Mapping[str, Exception]
) -> list[tuple[object, ...]]:
    built = [
        (
            result.feature,
            result.version,
            Styled(result.bump, BUMPS.get(result.bump or "", "dim")),
            result.reason if result.changed else Styled(result.reason, "dim"),
            number(result.rows),
            result.mode if result.changed else None,
            seconds(result.seconds),
        )
        for result in results.values()
    ]
    failed = [
        (name, None, Styled("failed", "red"), type(error).__name__, None, None, None)
        for name, error in failures.items()
    ]
    return [*built, *failed]


def _complain(
    results: Mapping[str, BuildResult], failures: Mapping[str, Exception], store: Store
) -> None:
    for name, result in results.items():
        warn(*result.warnings, about=name)
        ignored = store.books(name).ignored
        warn(*(f"ignored {path}: {reason}" for path, reason in ignored.items()), about=name)
        bad = [(bad.path, bad.reason.removeprefix(f"{bad.path}: ")) for bad in result.quarantined]
        fail(*(f"quarantined {path}: {reason}" for path, reason in bad), about=name)
    for name, error in failures.items():
        ours = isinstance(error, MlforgeError)
        fail(str(error) if ours else f"{type(error).__name__}: {error}", about=name)


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
