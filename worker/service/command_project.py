"""The project that a command line means."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mlforge.cli.options import ENVIRONMENT, definitions_target, log_to_stderr, profile_name
from mlforge.definitions.environment import PROFILE, REDIS_URL, redis_url

if TYPE_CHECKING:
    from worker.project import Project


def name_definitions(args: argparse.Namespace) -> None:
    """Jobs, and this program when it starts itself anew, find the definitions in the environment."""
    target = definitions_target(args)
    if target is not None:
        os.environ[ENVIRONMENT] = target
    profile = profile_name(args)
    if profile is not None:
        os.environ[PROFILE] = profile


def open_project(args: argparse.Namespace) -> Project:
    """The project on REDIS_URL, else on the server of the `mlforge up` that runs for it."""
    from mlforge.definitions.running import running_url
    from worker.project import Project, Settings

    log_to_stderr()
    name_definitions(args)
    environment = dict(os.environ)
    if redis_url(environment) is None:
        url = running_url(definitions_target(args), Path.cwd(), profile_name(args))
        environment |= {REDIS_URL: url} if url else {}
    return Project.open(Settings.read(environment))
