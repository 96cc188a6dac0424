"""`mlforge audit`: hold what is stored and served against the raw files."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from mlforge.cli.command import Command
from mlforge.cli.options import (
    at_least_one,
    definitions_option,
    json_option,
    served_definitions_of,
)
from mlforge.cli.output import fail, number, print_json, stdout_is_ours, warn
from mlforge.cli.progress import Progress
from mlforge.cli.style import Styled
from mlforge.cli.table import table
from mlforge.core.text import duration
from mlforge.errors import MlforgeError

if TYPE_CHECKING:
    from mlforge.store import Audit


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("features", nargs="*", metavar="feature", help="which (default: all)")
    much = parser.add_mutually_exclusive_group()
    much.add_argument("--all", action="store_true", help="look at every entity")
    much.add_argument(
        "--entities", type=at_least_one, default=20, metavar="N", help="how many (default: 20)"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="which ones (default: others each time)"
    )
    definitions_option(parser)
    json_option(parser)


def audit(args: argparse.Namespace) -> int:
    """Compute values anew from the raw files and compare. Exit code 1 if something differs.

    JSON: `{"features": [{"feature", "version", "at", "entities", "values", "unproven", "gone": [path, ...],
    "skipped": [text, ...], "mismatches", "first": [text, ...], "proven": {"version", "at", "values"} or null,
    "error"}, ...]}`; a feature that cannot be audited has an error in place of all else.
    """
    from mlforge.maintenance.sampling import Share

    definitions = served_definitions_of(args)
    chosen = definitions.selected(args.features or None)
    seed = time.time_ns() if args.seed is None else args.seed
    share = Share(None if args.all else args.entities, seed)
    audits: dict[str, Audit] = {}
    errors: dict[str, str] = {}
    with Progress("", total=len(chosen)) as progress, stdout_is_ours():
        for name in chosen:
            progress.name(name)
            try:
                audits[name] = definitions.audit(name, share)
            except MlforgeError as failure:
                errors[name] = str(failure)
            progress.step()
    if args.json:
        documents = [_as_json(name, audits.get(name), errors.get(name)) for name in chosen]
        print_json({"features": documents})
    else:
        headers = ("feature", "version", "audit", "entities", "values", "unproven", "took")
        rows = [_row(name, audits.get(name)) for name in chosen]
        print(table(headers, rows, right=("entities", "values", "unproven")))
    sys.stdout.flush()
    for name, audited in audits.items():
        if audited.gone:
            files = ", ".join(audited.gone[:5]) + (", ..." if len(audited.gone) > 5 else "")
            warn(f"not proven: the version's content of {files} is no longer there", about=name)
        warn(*audited.skipped, about=name)
        fail(*audited.first, about=name)
    for name, error in errors.items():
        fail(error, about=name)
    return 1 if errors or any(audited.mismatches for audited in audits.values()) else 0


def _row(name: str, audited: Audit | None) -> tuple[object, ...]:
    if audited is None:
        return (name, None, Styled("not possible", "red"), None, None, None, None)
    return (
        name,
        audited.version,
        _verdict(audited),
        number(audited.entities),
        number(audited.values),
        number(audited.unproven),
        duration(audited.seconds),
    )


def _verdict(audited: Audit) -> Styled:
    if audited.mismatches:
        return Styled(f"{audited.mismatches:,} wrong", "red")
    return Styled("proven", "green") if audited.is_proof else Styled("nothing proven", "yellow")


def _as_json(name: str, audited: Audit | None, error: str | None) -> dict[str, Any]:
    from mlforge.core.values import to_iso

    if audited is None:
        return {"feature": name, "error": error}
    document = audited.to_json() | {"at": to_iso(audited.at)}
    if audited.proven:
        document["proven"] = document["proven"] | {"at": to_iso(audited.proven.at)}
    return {"feature": name, **document}


COMMANDS = (
    Command(
        "audit",
        "compute values anew from the raw files, and compare",
        _configure,
        audit,
        "mlforge audit user_spend\nmlforge audit --all --json",
        "Offline rows, training values and online rows of the served version are compared with what its "
        "source files give by a second, plain implementation. Online rows are those of the definitions' "
        "store, else of REDIS_URL, else of a running mlforge up. Exit code 1 if something differs, and then it says what.",
    ),
)
