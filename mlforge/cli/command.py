"""Commands of `mlforge`: the library's own, and others that join through the entry point group `mlforge.commands`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A subcommand of `mlforge`.

    name, help: as the list of commands shows them.
    configure: adds the command's options to its parser.
    run: does the work and returns the exit code, 0 only when all went well.
    about: more sentences for `--help`, such as exit codes of the command's own.
    example: one or more command lines for the foot of `--help`.

    A module that defines commands is imported for every `mlforge --help`: what is slow to import is
    imported within `run`. The entry point group `mlforge.commands` takes tuples of commands.
    """

    name: str
    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    example: str = ""
    about: str = ""
