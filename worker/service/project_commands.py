"""The commands that look at a running project and act on it: `status`, `wait`, `retry`, `retire`."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from mlforge.cli.command import Command
from mlforge.cli.options import (
    definitions_option,
    json_option,
    profile_name,
    seconds,
    served_definitions_of,
    workers_url,
)
from mlforge.core.text import printable
from worker.service.command_project import open_project
from worker.service.freshness import freshness

if TYPE_CHECKING:
    from worker.service.retiring import Holdings


def _configure_status(parser: argparse.ArgumentParser) -> None:
    definitions_option(parser)
    json_option(parser)
    parser.add_argument("--watch", action="store_true", help="show it again each second")
    parser.add_argument(
        "--slow", action="store_true", help="show what the slowest recent drops waited for"
    )


def _configure_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="a file of a source, or a feature")
    parser.add_argument(
        "--timeout", type=seconds, default=60.0, metavar="SECONDS", help="at most (default: 60)"
    )
    definitions_option(parser)
    json_option(parser)


def _configure_retry(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="FEATURE|FILE", help="what to try again")
    definitions_option(parser)


def _configure_retire(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("feature", help="a feature that the definitions no longer have")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--keep-versions", action="store_true", help="delete the online rows alone")
    parser.add_argument(
        "--force",
        action="store_true",
        help="also where features, locks of models or training sets are made from it",
    )
    definitions_option(parser)
    json_option(parser)


def status(args: argparse.Namespace) -> int:
    """Show the state of the project; exit code 1 if something needs a person.

    JSON: `{"project", "at", "definitions", "features": [...], "queued", "watcher", "workers": [...],
    "gone": [...], "warnings": [...], "services": [{"service", "owner", "state", "why", "max_age",
    "served": {feature: version}}, ...], "well"}`; each feature has feature, state, version, rows, online_version,
    online_rows, as_of, lag, lag_seconds, held, held_now, error, failing_since, retry_at, quarantine, ignored, source_missing, freshness, audit, unreadable, upstream.
    With --slow: `{"drops": [{"feature", "at", "trigger", "version", "total_ms", "steps": {...}}, ...]}`, steps in milliseconds; exit code 0.
    """
    from mlforge.cli.output import print_json
    from worker.monitor import slow
    from worker.monitor.ignored_files import with_ignored_files
    from worker.monitor.screen import render
    from worker.monitor.status import gather

    project = open_project(args)
    if args.slow:
        drops = slow.slow_drops(project)
        print_json(slow.to_json(drops)) if args.json else print(slow.render(drops))
        return 0
    while True:
        current = with_ignored_files(project.definitions, gather(project))
        if args.json:
            print_json(current.to_json())
        else:
            if args.watch and sys.stdout.isatty():
                print("\x1b[2J\x1b[H", end="")
            print(render(current), flush=True)
        if not args.watch:
            return 0 if current.is_well else 1
        time.sleep(1.0)


def wait(args: argparse.Namespace) -> int:
    """Wait until a file's rows are readable online, for each feature that it feeds.

    JSON: `{"arrivals": [{"feature", "version", "problem", "counts_from"}, ...]}`.
    """
    from dataclasses import asdict

    from mlforge.cli.output import lines_for, print_json, warn
    from worker.service.wait import features_of, is_there, place_of, wait_for

    project = open_project(args)
    features = features_of(project, args.file)
    path = None if args.file in features else place_of(args.file)
    if path is not None and not is_there(project, features, path):
        warn(f"{args.file} is not there: this waits until its source is served as it is now")
    arrivals = wait_for(project, features, path, args.timeout)
    if args.json:
        print_json({"arrivals": [asdict(arrival) for arrival in arrivals]})
    else:
        for arrival in arrivals:
            print("\n".join(lines_for(sys.stdout, printable(arrival))))
    return 1 if any(arrival.problem for arrival in arrivals) else 0


def retry(args: argparse.Namespace) -> int:
    """Try a parked feature, or a quarantined file, again."""
    from worker.service.wait import ask_at_once, features_of, forgive, place_of

    project = open_project(args)
    features = features_of(project, args.what)
    for feature in features:
        named = args.what == feature
        forgive(project, feature, None if named else place_of(args.what))
    ask_at_once(project, features, "retry")
    print(
        printable(f"requested: {', '.join(features)}; `mlforge wait {args.what}` shows how it ends")
    )
    return 0


def retire(args: argparse.Namespace) -> int:
    """End a feature that is gone from the definitions now: its rows online, and its versions in the store.

    JSON: `{"feature", "rows", "versions"}`: how many rows online and versions went.
    """
    from mlforge.cli.deeds import note_deeds
    from mlforge.cli.output import confirmed, print_json, warn
    from mlforge.core.text import plural
    from mlforge.registry.deeds import RETIRED
    from worker.service import retiring

    holdings = _holdings(args)
    is_online = holdings.definitions.online_store is not None
    retired = retiring.retire(
        holdings,
        args.feature,
        lambda question: args.yes or confirmed(question),
        keep_versions=args.keep_versions,
        force=args.force,
    )
    if retired.versions:
        done = {"versions": retired.versions, "rows": retired.rows}
        note_deeds(args, holdings.definitions, RETIRED, [(args.feature, done)])
    if not is_online:
        warn("rows online, if there are any, stay: set REDIS_URL to the server that has them")
    if args.json:
        print_json({"feature": args.feature, "rows": retired.rows, "versions": retired.versions})
        return 0
    rows = [f"{plural(retired.rows, 'row')} deleted online"] if is_online else []
    stored = (
        "its versions stay"
        if args.keep_versions
        else f"{plural(retired.versions, 'version')} deleted in the store"
    )
    print(printable(f"{args.feature}: {', '.join([*rows, stored])}"))
    return 0


def _holdings(args: argparse.Namespace) -> Holdings:
    """The stores of the command line's project, with its workers' notes where there are any."""
    from worker.service.retiring import Holdings

    if workers_url(args) is not None:
        return Holdings.of(open_project(args))
    return Holdings(served_definitions_of(args), profile_name(args))


COMMANDS = (
    Command(
        "status",
        "show features, queue, workers, quarantine and freshness",
        _configure_status,
        status,
        "mlforge status --watch",
        freshness=freshness,
    ),
    Command(
        "wait",
        "wait until a file's rows are readable online",
        _configure_wait,
        wait,
        "mlforge wait purchases/2024-01-31.parquet --timeout 30",
    ),
    Command(
        "retry",
        "try a failed feature or a quarantined file again",
        _configure_retry,
        retry,
        "mlforge retry user_spend",
    ),
    Command(
        "retire",
        "delete a feature that is gone from the definitions, online and in the store",
        _configure_retire,
        retire,
        "mlforge retire user_spend\nmlforge retire user_spend --keep-versions --yes",
    ),
)
