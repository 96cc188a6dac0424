"""Commands of `mlforge`: the library's own, and others that join through the entry point group `mlforge.commands`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlforge.definitions.registry import Definitions

Freshness = Callable[[argparse.Namespace, "Definitions", str], Mapping[str, float] | None]


@dataclass(frozen=True)
class Command:
    """A subcommand of `mlforge`.

    name, help: as the list of commands shows them.
    configure: adds the command's options to its parser.
    run: does the work and returns the exit code, 0 only when all went well.
    about: more sentences for `--help`, such as exit codes of the command's own.
    example: one or more command lines for the foot of `--help`.

    freshness: of a command whose package measures it: how long the last drops of a feature took to be readable online,
        `{"count", "p50", "p95", "p99"}` in milliseconds, None where it is not known; called with the command line's
        arguments, the definitions and the feature's name.

    A module that defines commands is imported for every `mlforge --help`: what is slow to import is
    imported within `run`. The entry point group `mlforge.commands` takes tuples of commands.
    """

    name: str
    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    example: str = ""
    about: str = ""
    freshness: Freshness | None = None
