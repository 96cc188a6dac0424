"""The commands that run a project's processes: `up`, `watch`, `worker`."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from mlforge.cli.command import Command
from mlforge.cli.options import (
    at_least_one,
    definitions_option,
    definitions_target,
    pause,
    port,
    profile_name,
    seconds,
)
from mlforge.definitions.environment import redis_url
from mlforge.errors import MlforgeError
from worker.service.command_project import name_definitions

if TYPE_CHECKING:
    from worker.service.process import Beside

AUDIT_EVERY_S = 600.0
METRICS_PORT, METRICS_HOST = "MLFORGE_METRICS_PORT", "MLFORGE_METRICS_HOST"


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
        type=pause,
        default=5.0,
        metavar="SECONDS",
        help="how often to look for what no event told (default: 5)",
    )
    _beside_options(parser)


def _configure_worker(parser: argparse.ArgumentParser) -> None:
    definitions_option(parser)
    _fork_option(parser)
    parser.add_argument("--burst", action="store_true", help="end once the queue is empty")
    parser.add_argument(
        "--alive",
        action="store_true",
        help="run none: tell whether a worker of this host reports, for probes; exit code 1 if none does",
    )


def _polling_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--polling", action="store_true", help="poll the sources: for network file systems"
    )


def _beside_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--audit-every",
        type=seconds,
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

    name_definitions(args)
    logs.configure("watcher")
    return process.run(Settings.read(), Timing(args.scan_every, args.polling), _beside(args))


def worker(args: argparse.Namespace) -> int:
    """Run one worker: `rq worker` with the right class, serializer and intervals."""
    if args.alive:
        return _tell_whether_alive()
    from worker.connection import connect
    from worker.project import Settings
    from worker.queue import ForgeSimpleWorker, ForgeWorker

    name_definitions(args)
    kind = ForgeSimpleWorker if args.no_fork else ForgeWorker
    kind(connection=connect(Settings.read().redis_url)).work(burst=args.burst)
    return 0


def _tell_whether_alive() -> int:
    """Tell whether a worker of this host reports; where the server cannot be asked none is blamed, as workers outlive an outage."""
    from redis.exceptions import RedisError

    from mlforge.cli.output import fail, warn
    from worker.ending import impatient
    from worker.state.sign_of_life import read_sign

    url, host = redis_url(), socket.gethostname()
    if url is None:
        raise MlforgeError("REDIS_URL is not set: it names the server at which workers report")
    try:
        worker = read_sign(impatient(url), host)
    except ValueError:
        raise MlforgeError("REDIS_URL is no URL of Redis: write redis://host:port/db") from None
    except RedisError as error:
        warn(f"the server at REDIS_URL does not tell ({error}): workers wait for it")
        return 0
    if worker is None:
        fail(f"no worker on {host} reports: see its log, start it again")
        return 1
    print(f"worker {worker} on {host} reports")
    return 0


COMMANDS = (
    Command(
        "up",
        "run everything here: a Redis server, the watcher, the workers, the HTTP server",
        _configure_up,
        up,
        "mlforge up\nmlforge up --definitions examples/shop/definitions.py --workers 4",
    ),
    Command(
        "watch",
        "watch the sources and request refreshes (one process of a deployment)",
        _configure_watch,
        watch,
        "REDIS_URL=redis://localhost:6379/0 mlforge watch",
    ),
    Command(
        "worker",
        "refresh and push what is requested (as many processes as you like)",
        _configure_worker,
        worker,
        "REDIS_URL=redis://localhost:6379/0 mlforge worker\nmlforge worker --alive",
    ),
)
