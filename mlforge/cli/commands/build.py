"""`mlforge build`, and `plan`, which is one that stops before publishing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from mlforge.cli.command import Command
from mlforge.cli.options import (
    definitions_option,
    engine_name,
    json_option,
    selection_options,
    served_definitions_of,
    version_number,
)
from mlforge.cli.output import fail, note, number, plural, print_json, seconds, stdout_is_ours, warn
from mlforge.cli.progress import Progress
from mlforge.cli.style import Styled
from mlforge.cli.table import table
from mlforge.errors import BuildError, MlforgeError

if TYPE_CHECKING:
    from mlforge.build.result import BuildResult
    from mlforge.definitions.registry import Definitions
    from mlforge.store import Store

BUMPS = {"major": "red", "minor": "yellow", "patch": "green"}
CHANGE = ("feature", "version", "bump", "reason", "rows")
BUILT = (*CHANGE, "mode", "time")
PUSHED = (*CHANGE, "mode", "keys", "time")
PLANNED = (*CHANGE, "recomputed", "keys")


def _configure_plan(parser: argparse.ArgumentParser) -> None:
    definitions_option(parser)
    selection_options(parser)
    parser.add_argument(
        "--version", type=version_number, metavar="X.Y.Z", help="make this version, changed or not"
    )
    parser.add_argument(
        "--engine", type=engine_name, metavar="E", help="polars or duckdb, for this once"
    )
    parser.add_argument("--full", action="store_true", help="recompute every row")
    json_option(parser)


def _configure_build(parser: argparse.ArgumentParser) -> None:
    _configure_plan(parser)
    parser.add_argument("--online", action="store_true", help="push to the online store as well")


def build(args: argparse.Namespace) -> int:
    """Build features. Exit code 1 if one fails or a file is quarantined; the others are built.

    JSON: `{"features": [result, ...], "failures": [{"feature", "error", "message"}, ...]}`, where a
    result has feature, version, changed, bump, reason, details, rows, path, mode, mode_reason,
    rows_changed, entities, rows_recomputed, files_read, keys_written (null unless pushed),
    quarantined and ignored (`[{"path", "reason"}]`), warnings, seconds, engine.
    """
    definitions = served_definitions_of(args)
    outcome = _run(
        definitions, args, lambda options: definitions.build(online=args.online, **options)
    )
    if not args.json:
        headers = PUSHED if args.online else BUILT
        print(table(headers, _built(outcome, headers), right=("rows", "keys", "time")))
    return _end(outcome, args.json)


def plan(args: argparse.Namespace) -> int:
    """Say what `build` would do. Exit code 1 if a feature would fail or a file is quarantined.

    JSON: as that of `build`; `version` is the one that a build would publish, path that of a version
    that exists, and `keys_written` counts the keys that a push would write or delete (null without
    an online store, or when it does not answer).
    """
    definitions = served_definitions_of(args)
    outcome = _run(definitions, args, lambda options: definitions.plan(**options))
    if not args.json:
        print(table(PLANNED, _planned(outcome), right=("rows", "recomputed", "keys")))
        print()
        for result in outcome.results.values():
            note(_how(result))
            hold = definitions.store.books(result.feature).hold
            if hold:
                note(f"{result.feature}: a build ends its hold: {hold}", "yellow")
    return _end(outcome, args.json)


@dataclass(frozen=True)
class _Outcome:
    """What became of the features that were asked for."""

    store: Store
    results: Mapping[str, BuildResult]
    failures: Mapping[str, Exception]


def _run(
    definitions: Definitions,
    args: argparse.Namespace,
    work: Callable[[dict[str, Any]], Mapping[str, BuildResult]],
) -> _Outcome:
    try:
        chosen = definitions.selected(args.features, args.tags)
        with Progress("", total=len(chosen)) as progress, stdout_is_ours():
            results = work(
                {
                    "features": args.features,
                    "tags": args.tags,
                    "version": args.version,
                    "engine": args.engine,
                    "full": args.full,
                    "progress": progress.begin,
                }
            )
        return _Outcome(definitions.store, results, {})
    except BuildError as error:
        done = cast("Mapping[str, BuildResult]", error.results)
        return _Outcome(definitions.store, done, error.failures)
    finally:
        definitions.close()


def _end(outcome: _Outcome, json: bool) -> int:
    """Print the JSON if asked for, and what is wrong; the exit code."""
    results, failures, store = outcome.results, outcome.failures, outcome.store
    if json:
        print_json(
            {
                "features": [as_json(result, store) for result in results.values()],
                "failures": [
                    {"feature": name, "error": type(error).__name__, "message": str(error)}
                    for name, error in failures.items()
                ],
            }
        )
    sys.stdout.flush()
    complain(results.values(), store)
    for name, error in failures.items():
        ours = isinstance(error, MlforgeError)
        fail(str(error) if ours else f"{type(error).__name__}: {error}", about=name)
    return 1 if failures or any(result.quarantined for result in results.values()) else 0


def as_json(result: BuildResult, store: Store) -> dict[str, Any]:
    """What `--json` says about one feature."""
    ignored = store.books(result.feature).ignored
    return {
        "feature": result.feature,
        "version": result.version,
        "changed": result.changed,
        "bump": result.bump,
        "reason": result.reason,
        "details": list(result.details),
        "rows": result.rows,
        "path": None if result.path is None else str(result.path),
        "mode": result.mode,
        "mode_reason": result.mode_reason,
        "rows_changed": result.rows_changed,
        "entities": result.entities,
        "rows_recomputed": result.rows_recomputed,
        "files_read": result.files_read,
        "keys_written": result.keys_written,
        "quarantined": [{"path": bad.path, "reason": bad.reason} for bad in result.quarantined],
        "ignored": [{"path": path, "reason": reason} for path, reason in ignored.items()],
        "warnings": list(result.warnings),
        "seconds": round(result.seconds, 6),
        "engine": result.engine,
    }


def _built(outcome: _Outcome, headers: Sequence[str]) -> list[tuple[object, ...]]:
    built = [
        (
            *_change(result),
            number(result.rows),
            result.mode if result.changed else None,
            *([number(result.keys_written)] if "keys" in headers else []),
            seconds(result.seconds),
        )
        for result in outcome.results.values()
    ]
    return [*built, *_failed(outcome, headers)]


def _planned(outcome: _Outcome) -> list[tuple[object, ...]]:
    planned = [
        (
            *_change(result),
            number(result.rows),
            number(result.rows_recomputed),
            number(result.keys_written),
        )
        for result in outcome.results.values()
    ]
    return [*planned, *_failed(outcome, PLANNED)]


def _change(result: BuildResult) -> tuple[object, ...]:
    first = result.reason == "first_build"
    return (
        result.feature,
        result.version,
        Styled(result.bump, "green" if first else BUMPS.get(result.bump or "", "dim")),
        result.reason if result.changed else Styled(result.reason, "dim"),
    )


def _failed(outcome: _Outcome, headers: Sequence[str]) -> list[tuple[object, ...]]:
    rest = [None] * (len(headers) - 4)
    return [
        (name, None, Styled("failed", "red"), type(error).__name__, *rest)
        for name, error in outcome.failures.items()
    ]


def _how(result: BuildResult) -> str:
    """`user_spend: incremental, 3 of 900 events changed; 3 entities, 1 file read`."""
    mode = f"{result.mode}, {result.mode_reason}" if result.changed else "nothing to do"
    entities = f"{result.entities:,} {'entity' if result.entities == 1 else 'entities'}"
    files = plural(result.files_read, "file")
    parts = [entities if result.entities else "", f"{files} read" if result.files_read else ""]
    work = ", ".join(filter(None, parts))
    return f"{result.feature}: {mode}{f'; {work}' if work else ''}"


def complain(results: Iterable[BuildResult], store: Store) -> None:
    """Say on stderr what the results warn of, and which files were ignored or quarantined."""
    for result in results:
        name = result.feature
        warn(*result.warnings, about=name)
        ignored = store.books(name).ignored
        warn(*(f"ignored {path}: {reason}" for path, reason in ignored.items()), about=name)
        bad = [(bad.path, bad.reason.removeprefix(f"{bad.path}: ")) for bad in result.quarantined]
        fail(*(f"quarantined {path}: {reason}" for path, reason in bad), about=name)


COMMANDS = (
    Command(
        "build",
        "bring features to the present state of their sources",
        _configure_build,
        build,
        "mlforge build\nmlforge build --features user_spend --version 2.0.0\n"
        "mlforge build --tags daily --online --json",
    ),
    Command(
        "plan",
        "say what a build would do, and why, without publishing",
        _configure_plan,
        plan,
        "mlforge plan\nmlforge plan --features user_spend --full --json",
        "A build right after it does exactly that, and computes no file twice.",
    ),
)
