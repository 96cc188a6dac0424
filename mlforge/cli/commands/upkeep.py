"""`mlforge pin`, `prune` and `verify`: what a store keeps, and whether it is whole."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlforge.cli.command import Command
from mlforge.cli.options import at_least_one, json_option, store_of, store_options, version_number
from mlforge.cli.output import fail, note, number, print_json
from mlforge.cli.progress import Progress
from mlforge.cli.style import Styled
from mlforge.cli.table import table
from mlforge.core.text import plural
from mlforge.errors import DefinitionError

if TYPE_CHECKING:
    from mlforge.core.values import Duration
    from mlforge.maintenance.operations import Problem, Pruned
    from mlforge.maintenance.retention import Retention
    from mlforge.maintenance.service_versions import PrunedService


def _configure_pin(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("feature", help="its name")
    parser.add_argument(
        "version",
        type=version_number,
        nargs="?",
        metavar="X.Y.Z",
        help="which (default: the one that is served)",
    )
    parser.add_argument("--unpin", action="store_true", help="let prune remove it again")
    store_options(parser)
    json_option(parser)


def _configure_prune(parser: argparse.ArgumentParser) -> None:
    _features_argument(parser)
    parser.add_argument(
        "--keep", type=at_least_one, metavar="N", help="the newest N versions stay, others may go"
    )
    parser.add_argument(
        "--older-than", type=_age, metavar="30d", help="versions made in this time stay"
    )
    parser.add_argument("--dry-run", action="store_true", help="remove nothing, say what would go")
    store_options(parser)
    json_option(parser)


def _configure_verify(parser: argparse.ArgumentParser) -> None:
    _features_argument(parser)
    parser.add_argument(
        "--version", type=version_number, metavar="X.Y.Z", help="this version alone (default: all)"
    )
    store_options(parser)
    json_option(parser)


def _features_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "features", nargs="*", metavar="feature", help="which (default: all in the store)"
    )


def _age(text: str) -> Duration:
    from mlforge.core.values import Duration

    try:
        return Duration.parse(text)
    except DefinitionError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def pin(args: argparse.Namespace) -> int:
    """Pin a version against prune, or take the pin away.

    JSON: `{"feature", "pins": [version, ...]}`: all pins of the feature.
    """
    from mlforge.maintenance import operations

    store = store_of(args)
    pins = operations.pin(store, args.feature, args.version, unpin=args.unpin)
    if args.json:
        print_json({"feature": args.feature, "pins": list(pins)})
    else:
        print(f"{args.feature}: pinned {', '.join(pins) or 'nothing'}")
    return 0


def prune(args: argparse.Namespace) -> int:
    """Remove old versions; never one that is served, pinned or the highest. Without names, those of services, too.

    Without a rule the worker's own holds: the last 50 stay, and the newest of each MINOR.

    JSON: `{"dry_run", "features": [{"feature", "versions": [version, ...], "partials", "unreadable": [version, ...],
    "in_use": [version, ...]}, ...], "services": [{"service", "versions": [version, ...]}, ...]}`: what went, or would go; partials are counted. A version that cannot be read
    stays, and all partials then; one that is being read stays until the next time.
    """
    from mlforge.maintenance import operations
    from mlforge.maintenance.service_versions import prune_services

    store, rule = store_of(args), _rule(args)
    all_pruned = []
    names = args.features or store.features()
    with Progress("", total=len(names)) as progress:
        for name in names:
            progress.begin(name)
            all_pruned += operations.prune(store, [name], rule, dry_run=args.dry_run)
    services = []
    if not args.features:
        services = prune_services(store, store.services(), rule, dry_run=args.dry_run)
    if args.json:
        features = [_pruned_json(pruned) for pruned in all_pruned]
        of_services = [{"service": p.service, "versions": list(p.versions)} for p in services]
        print_json({"dry_run": args.dry_run, "features": features, "services": of_services})
        return 0
    _show_pruned(all_pruned, services)
    if args.dry_run:
        print("nothing was removed: this was a dry run")
    return 0


def _pruned_json(pruned: Pruned) -> dict[str, Any]:
    return {
        "feature": pruned.feature,
        "versions": list(pruned.versions),
        "partials": pruned.partials,
        "unreadable": list(pruned.unreadable),
        "in_use": list(pruned.in_use),
    }


def _show_pruned(all_pruned: Sequence[Pruned], services: Sequence[PrunedService]) -> None:
    """Print what went, or would go, and what stays although it is old."""
    rows = [
        (p.feature, number(len(p.versions)), _span(p.versions), number(p.partials))
        for p in all_pruned
    ]
    headers = ("feature", "versions", "which", "partials")
    print(table(headers, rows, right=("versions", "partials")))
    lines = [(p.service, number(len(p.versions)), _span(p.versions)) for p in services]
    if lines:
        print(table(("service", "versions", "which"), lines, right=("versions",)))
    for pruned in all_pruned:
        if pruned.unreadable:
            kept = ", ".join(pruned.unreadable)
            note(f"{pruned.feature}: {kept} cannot be read and stays, with all partials", "yellow")
        if pruned.in_use:
            note(
                f"{pruned.feature}: {', '.join(pruned.in_use)} stays, for it is being read",
                "yellow",
            )


def _rule(args: argparse.Namespace) -> Retention:
    """The rule of the command line; without one, that of a worker."""
    from mlforge.maintenance.retention import UNATTENDED, Retention

    if args.keep is None and args.older_than is None:
        return UNATTENDED
    return Retention(newest=args.keep, older_than=args.older_than)


def _span(versions: tuple[str, ...]) -> str | None:
    if len(versions) <= 3:
        return ", ".join(versions) or None
    return f"{versions[0]} to {versions[-1]}"


def verify(args: argparse.Namespace) -> int:
    """Compare every byte with what was published. Exit code 1 if something differs.

    JSON: `{"features": [{"feature", "versions", "problems": [{"version", "problem"}, ...]}, ...]}`;
    versions is the number of versions that were checked.
    """
    from mlforge.maintenance import operations

    store = store_of(args)
    names = args.features or store.features()
    problems_of: dict[str, list[Problem]] = {}
    counts: dict[str, int] = {}
    with Progress("", total=len(names)) as progress:
        for name in names:
            progress.begin(name)
            if args.features:
                # A name that does not exist is no feature without problems.
                store.list_versions(name)
            problems_of[name] = operations.verify(store, [name], args.version)
            counts[name] = len(store.versions(name)) if args.version is None else 1
    if args.json:
        features = [
            {
                "feature": name,
                "versions": counts[name],
                "problems": [{"version": p.version, "problem": p.what} for p in problems],
            }
            for name, problems in problems_of.items()
        ]
        print_json({"features": features})
    else:
        rows = [
            (
                name,
                number(counts[name]),
                Styled(plural(len(problems), "problem"), "red")
                if problems
                else Styled("whole", "green"),
            )
            for name, problems in problems_of.items()
        ]
        print(table(("feature", "versions", "state"), rows, right=("versions",)))
    sys.stdout.flush()
    for name, problems in problems_of.items():
        fail(*(f"{name} {p.version}: {p.what}" for p in problems))
    return 1 if any(problems_of.values()) else 0


COMMANDS = (
    Command(
        "pin",
        "keep a version, whatever prune is told",
        _configure_pin,
        pin,
        "mlforge pin user_spend 1.0.0\nmlforge pin user_spend 1.0.0 --unpin",
    ),
    Command(
        "prune",
        "remove old versions and what they alone consist of",
        _configure_prune,
        prune,
        "mlforge prune --dry-run\nmlforge prune user_spend --keep 10\nmlforge prune --older-than 30d",
        "Those that are served, pinned or the highest stay in any case. Without a rule, it does what a "
        "worker does by itself: the last 50 stay, and the newest of each MINOR. Of two rules, both must "
        "let a version go.",
    ),
    Command(
        "verify",
        "compare every byte of the store with what was published",
        _configure_verify,
        verify,
        "mlforge verify\nmlforge verify user_spend --version 1.0.0",
        "Exit code 1 if something differs, and then it says what.",
    ),
)
