"""The worker's commands: `up`, `watch`, `worker`, `status`, `wait`, `retry`, `retire`."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from dataclasses import replace

from mlforge.errors import MissingExtra, OnlineRefused, OnlineUnavailable
from worker.service import process_commands, project_commands

Run = Callable[[argparse.Namespace], int]


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


COMMANDS = tuple(
    replace(command, run=_explained(command.run))
    for command in (*process_commands.COMMANDS, *project_commands.COMMANDS)
)
