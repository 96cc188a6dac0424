"""The worker's commands: `up`, `watch`, `worker`, `status`, `wait`, `retry`, `retire`."""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mlforge.cli.command import Command
from mlforge.cli.options import (
    ENVIRONMENT,
    at_least_one,
    definitions_option,
    definitions_target,
    json_option,
    log_to_stderr,
    port,
    profile_name,
)
from mlforge.core.text import printable
from mlforge.definitions.environment import PROFILE, REDIS_URL, redis_url
from mlforge.errors import MissingExtra, OnlineRefused, OnlineUnavailable
from worker.service.freshness import freshness

if TYPE_CHECKING:
    from worker.project import Project
    from worker.service.process import Beside

AUDIT_EVERY_S = 600.0
METRICS_PORT, METRICS_HOST = "MLFORGE_METRICS_PORT", "MLFORGE_METRICS_HOST"
Run = Callable[[argparse.Namespace], int]


def _configure_up(parser: argparse.ArgumentParser) -> None:
    definitions_option(parser)
    parser.add_argument(
        "-w",
        "--workers",
        type=at_least_one,
        default=2,
        metavar="N",
        help="worker processes (default: 2)",
    )
    web = parser.add_mutually_exclusive_group()
    web.add_argument(
        "--port",
        type=port,
        metavar="N",
        help="where to answer over HTTP; 0 takes a free port (default: 8750, else a free one)",
    )
    web.add_argument("--no-serve", action="store_true", help="answer nobody over HTTP")
    _polling_option(parser)
    _fork_option(parser)
    _beside_options(parser)


def _configure_watch(parser: argparse.ArgumentParser) -> None:
    definitions_option(parser)
    _polling_option(parser)
    parser.add_argument(
        "--scan-every",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="how often to look for what no event told (default: 5)",
    )
    _beside_options(parser)


def _configure_worker(parser: argparse.ArgumentParser) -> None:
    definitions_option(parser)
    _fork_option(parser)
    parser.add_argument("--burst", action="store_true", help="end once the queue is empty")


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
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="at most (default: 60)"
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


def _polling_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--polling", action="store_true", help="poll the sources: for network file systems"
    )


def _beside_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--audit-every",
        type=float,
        default=AUDIT_EVERY_S,
        metavar="SECONDS",
        help=f"hold each feature against its raw files so often, while all is quiet; 0: never (default: {AUDIT_EVERY_S:g})",
    )
    parser.add_argument(
        "--metrics-port",
        type=port,
        default=os.environ.get(METRICS_PORT) or None,
        metavar="PORT",
        help=f"serve /metrics, /healthz and /readyz there (default: ${METRICS_PORT}, else not at all)",
    )
    parser.add_argument(
        "--metrics-host",
        default=os.environ.get(METRICS_HOST) or "127.0.0.1",
        metavar="ADDRESS",
        help=f"the address for them (default: ${METRICS_HOST}, else 127.0.0.1)",
    )


def _beside(args: argparse.Namespace) -> Beside:
    from worker.service.process import Beside

    return Beside(args.audit_every, args.metrics_port, args.metrics_host)


def _fork_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-fork",
        action="store_true",
        help="run jobs in the worker's own process: less latency, less protection",
    )


def up(args: argparse.Namespace) -> int:
    """Run everything in this terminal until Ctrl-C."""
    from worker.service.up import Plan, run
    from worker.service.web import Web

    plan = Plan(
        target=definitions_target(args),
        here=Path.cwd(),
        profile=profile_name(args),
        workers=args.workers,
        redis_url=redis_url(),
        polling=args.polling,
        fork=not args.no_fork,
        beside=_beside(args),
        web=None if args.no_serve else Web(args.port),
    )
    return run(plan)


def watch(args: argparse.Namespace) -> int:
    """Run the watcher process."""
    from worker import logs
    from worker.project import Settings
    from worker.service import process
    from worker.watch.watcher import Timing

    _name_definitions(args)
    logs.configure("watcher")
    return process.run(Settings.read(), Timing(args.scan_every, args.polling), _beside(args))


def worker(args: argparse.Namespace) -> int:
    """Run one worker: `rq worker` with the right class, serializer and intervals."""
    from worker.project import Settings, connect
    from worker.queue import ForgeSimpleWorker, ForgeWorker

    _name_definitions(args)
    kind = ForgeSimpleWorker if args.no_fork else ForgeWorker
    kind(connection=connect(Settings.read().redis_url)).work(burst=args.burst)
    return 0


def status(args: argparse.Namespace) -> int:
    """Show the state of the project; exit code 1 if something needs a person.

    JSON: `{"project", "at", "definitions", "features": [...], "queued", "watcher", "workers": [...],
    "gone": [...], "warnings": [...], "services": [{"service", "owner", "state", "why", "max_age",
    "served": {feature: version}}, ...], "well"}`; each feature has feature, state, version, rows, online_version,
    online_rows, as_of, lag, lag_seconds, held, held_now, error, retry_at, quarantine, ignored, source_missing, freshness, audit, unreadable, upstream.
    With --slow: `{"drops": [{"feature", "at", "trigger", "version", "total_ms", "steps": {...}}, ...]}`, steps in milliseconds; exit code 0.
    """
    from mlforge.cli.output import print_json
    from worker.monitor import slow
    from worker.monitor.ignored_files import with_ignored_files
    from worker.monitor.screen import render
    from worker.monitor.status import gather

    project = _open(args)
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
    from worker.service.wait import features_of, wait_for

    project = _open(args)
    features = features_of(project, args.file)
    path = None if args.file in features else Path(args.file).expanduser().absolute()
    if path is not None and not path.exists():
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
    from worker.service.wait import ask, features_of, forgive

    project = _open(args)
    features = features_of(project, args.what)
    for feature in features:
        named = args.what == feature
        forgive(project, feature, None if named else Path(args.what).expanduser().absolute())
        ask(project, feature, "retry")
    print(
        printable(f"requested: {', '.join(features)}; `mlforge wait {args.what}` shows how it ends")
    )
    return 0


def retire(args: argparse.Namespace) -> int:
    """End a feature that is gone from the definitions now: its rows online, and its versions in the store.

    JSON: `{"feature", "rows", "versions"}`: how many rows online and versions went.
    """
    from mlforge.cli.output import confirmed, plural, print_json
    from worker.service import retiring

    log_to_stderr()
    retired = retiring.retire(
        _open(args),
        args.feature,
        lambda question: args.yes or confirmed(question),
        keep_versions=args.keep_versions,
        force=args.force,
    )
    if args.json:
        print_json({"feature": args.feature, "rows": retired.rows, "versions": retired.versions})
        return 0
    kept = "its versions stay" if args.keep_versions else plural(retired.versions, "version")
    print(printable(f"{args.feature}: {plural(retired.rows, 'row')} deleted online, {kept}"))
    return 0


def _explained(run: Run) -> Run:
    """Turn what a missing extra or a server that went away raises into one clear message."""

    @functools.wraps(run)
    def explained(args: argparse.Namespace) -> int:
        try:
            from redis.exceptions import RedisError, ResponseError
        except ModuleNotFoundError as error:
            raise MissingExtra.of(f"mlforge {args.command}", "worker") from error
        try:
            return run(args)
        except ResponseError as error:
            raise OnlineRefused(
                f"the server at REDIS_URL answers, and refuses ({error}); see to its disk, its memory and its log"
            ) from error
        except RedisError as error:
            raise OnlineUnavailable(
                f"the server at REDIS_URL went away ({error}); start it again, then repeat this"
            ) from error
        except ModuleNotFoundError as error:
            if error.name not in ("rq", "watchfiles"):
                raise
            raise MissingExtra.of(f"mlforge {args.command}", "worker") from error

    return explained


def _name_definitions(args: argparse.Namespace) -> None:
    """Jobs, and this program when it starts itself anew, find the definitions in the environment."""
    target = definitions_target(args)
    if target is not None:
        os.environ[ENVIRONMENT] = target
    profile = profile_name(args)
    if profile is not None:
        os.environ[PROFILE] = profile


def _open(args: argparse.Namespace) -> Project:
    """The project on REDIS_URL, else on the server of the `mlforge up` that runs for it."""
    from mlforge.definitions.running import running_url
    from worker.project import Project, Settings

    _name_definitions(args)
    environment = dict(os.environ)
    if redis_url(environment) is None:
        url = running_url(definitions_target(args), Path.cwd(), profile_name(args))
        environment |= {REDIS_URL: url} if url else {}
    return Project.open(Settings.read(environment))


COMMANDS = (
    Command(
        "up",
        "run everything here: a Redis server, the watcher, the workers, the HTTP server",
        _configure_up,
        _explained(up),
        "mlforge up\nmlforge up --definitions examples/shop/definitions.py --workers 4",
    ),
    Command(
        "watch",
        "watch the sources and request refreshes (one process of a deployment)",
        _configure_watch,
        _explained(watch),
        "REDIS_URL=redis://localhost:6379/0 mlforge watch",
    ),
    Command(
        "worker",
        "refresh and push what is requested (as many processes as you like)",
        _configure_worker,
        _explained(worker),
        "REDIS_URL=redis://localhost:6379/0 mlforge worker",
    ),
    Command(
        "status",
        "show features, queue, workers, quarantine and freshness",
        _configure_status,
        _explained(status),
        "mlforge status --watch",
        freshness=freshness,
    ),
    Command(
        "wait",
        "wait until a file's rows are readable online",
        _configure_wait,
        _explained(wait),
        "mlforge wait purchases/2024-01-31.parquet --timeout 30",
    ),
    Command(
        "retry",
        "try a failed feature or a quarantined file again",
        _configure_retry,
        _explained(retry),
        "mlforge retry user_spend",
    ),
    Command(
        "retire",
        "delete a feature that is gone from the definitions, online and in the store",
        _configure_retire,
        _explained(retire),
        "mlforge retire user_spend\nmlforge retire user_spend --keep-versions --yes",
    ),
)
