"""Results of features, as `build`, `plan` and `approve` print them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from mlforge.cli.output import fail, print_json, stdout_is_ours, warn
from mlforge.cli.progress import Progress
from mlforge.cli.style import Styled
from mlforge.core.text import bump_word, by_reason
from mlforge.errors import BuildError, MlforgeError, without_owners

if TYPE_CHECKING:
    from mlforge.build.result import BuildResult
    from mlforge.definitions.registry import Definitions
    from mlforge.store import Store

BUMPS = {"major": "red", "minor": "yellow", "patch": "green", "new": "green"}
CHANGE = ("feature", "version", "bump", "reason", "rows")


@dataclass(frozen=True)
class Outcome:
    """Results and failures of the features that were asked for."""

    store: Store
    results: Mapping[str, BuildResult]
    failures: Mapping[str, Exception]


def run(
    definitions: Definitions,
    args: argparse.Namespace,
    work: Callable[[dict[str, Any]], Mapping[str, BuildResult]],
) -> Outcome:
    """Results and failures of `work`, which gets the options of the command line; connections are closed."""
    from mlforge.definitions.runners import without_address

    try:
        chosen = definitions.selected(args.features, args.tags)
        warn(*without_address(definitions, chosen, args.engine))
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
        return Outcome(definitions.store, results, {})
    except BuildError as error:
        built = cast("Mapping[str, BuildResult]", error.results)
        return Outcome(definitions.store, built, error.failures)
    finally:
        definitions.close()


def end(outcome: Outcome, json: bool, **more: Any) -> int:
    """Print the JSON if asked for, and what is wrong; the exit code. more: further fields of the JSON."""
    results, failures, store = outcome.results, outcome.failures, outcome.store
    if json:
        print_json(
            {
                "features": [as_json(result, store) for result in results.values()],
                "failures": [
                    {"feature": name, "error": type(error).__name__, "message": str(error)}
                    for name, error in failures.items()
                ],
                **more,
            }
        )
    sys.stdout.flush()
    complain(results.values(), store)
    for name, error in failures.items():
        ours = isinstance(error, MlforgeError)
        fail(str(error) if ours else f"{type(error).__name__}: {error}", about=name)
    return 1 if failures or any(result.quarantined for result in results.values()) else 0


def as_json(result: BuildResult, store: Store) -> dict[str, Any]:
    """The entry of one feature in `--json`."""
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
        "rows_dropped": dict(result.rows_dropped),
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


def change(result: BuildResult) -> tuple[object, ...]:
    """Cells under feature, version, bump and reason."""
    bump = bump_word(result.bump, result.reason)
    return (
        result.feature,
        result.version,
        Styled(bump, BUMPS.get(bump or "", "dim")),
        result.reason if result.changed else Styled(result.reason, "dim"),
    )


def failed(outcome: Outcome, headers: Sequence[str]) -> list[tuple[object, ...]]:
    """Rows of the features that failed, as many cells as there are headers."""
    blanks = [None] * (len(headers) - 4)
    return [
        (name, None, Styled("failed", "red"), type(error).__name__, *blanks)
        for name, error in outcome.failures.items()
    ]


def complain(results: Iterable[BuildResult], store: Store) -> None:
    """Print the warnings of the results on stderr, and the files that were ignored or quarantined."""
    for result in results:
        name = result.feature
        warn(*result.warnings, about=name)
        ignored = store.books(name).ignored
        warn(*(f"ignored {line}" for line in by_reason(ignored.items())), about=name)
        reasons = [
            (bad.path, without_owners(bad.reason, name, bad.path)) for bad in result.quarantined
        ]
        fail(*(f"quarantined {line}" for line in by_reason(reasons)), about=name)
