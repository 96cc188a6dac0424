"""`mlforge completion`: scripts that teach a shell the commands and their options."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from mlforge.cli.command import Command

SHELLS = ("bash", "zsh", "fish")


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="for which shell")


def completion(args: argparse.Namespace) -> int:
    """Print the script for a shell; it knows the commands that are installed now."""
    print(script(args.shell, args.all_commands()))
    return 0


def script(shell: str, commands: Mapping[str, Command]) -> str:
    """The script for bash, zsh or fish. shell: one of SHELLS."""
    import shtab

    parser = argparse.ArgumentParser(prog="mlforge", allow_abbrev=False)
    parser.add_argument("--version", action="store_true", help="show the version")
    subparsers = parser.add_subparsers()
    for command in commands.values():
        command.configure(
            subparsers.add_parser(command.name, help=command.help, allow_abbrev=False)
        )
    return shtab.complete(parser, shell)


COMMANDS = (
    Command(
        "completion",
        "print a script that completes commands and options in a shell",
        _configure,
        completion,
        'eval "$(mlforge completion bash)"     # in ~/.bashrc; zsh likewise, after compinit\n'
        "mlforge completion fish | source      # in config.fish",
    ),
)
