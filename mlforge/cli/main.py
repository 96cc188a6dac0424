"""From argv to an exit code.

Exit codes: 0 all went well, 1 something failed, 2 the command line is wrong, 130 Ctrl-C, 141 the
reader of the output has gone, 143 SIGTERM; `diff` has more of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn

from mlforge.cli.command import Command
from mlforge.cli.output import fail
from mlforge.cli.plugins import plugins
from mlforge.cli.table import pairs
from mlforge.core.collection import loading
from mlforge.core.release import RELEASE
from mlforge.core.text import printable
from mlforge.errors import MlforgeError, near_names

MODULES: Mapping[str, tuple[str, ...]] = {
    "init": ("init",),
    "build": ("build",),
    "plan": ("plan",),
    "promote": ("promote",),
    "validate": ("validate",),
    "catalogue": ("list", "manifest"),
    "show": ("show",),
    "services": ("services",),
    "registry": ("search", "lineage", "owners"),
    "forget": ("forget",),
    "copy": ("copy",),
    "export": ("export",),
    "rename": ("rename",),
    "versions": ("versions", "inspect"),
    "diff": ("diff",),
    "profiles": ("profile", "drift"),
    "explain": ("explain",),
    "serving": ("rollback", "approve"),
    "locks": ("lock", "locks"),
    "serve": ("serve",),
    "adopt": ("adopt",),
    "training": ("train", "blast", "release"),
    "upkeep": ("pin", "prune", "verify"),
    "audit": ("audit",),
    "completion": ("completion",),
}
"""The commands of each module of `mlforge.cli.commands`: a named command imports its own module alone."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "start": ("init", "up", "validate", "plan", "build", "status", "wait"),
    "look": (
        "list", "show", "search", "services", "lineage", "owners", "versions", "inspect", "diff",
        "explain", "profile", "drift", "manifest",
    ),
    "decide": ("approve", "retry", "rollback"),
    "prove": ("audit", "verify"),
    "models": ("train", "blast", "release", "lock", "locks"),
    "upkeep": (
        "pin", "prune", "forget", "rename", "retire", "adopt", "promote", "copy", "export",
    ),
    "processes": ("watch", "worker", "serve"),
}  # fmt: skip
"""The commands as `mlforge --help` lists them, by what one is about; all others come last."""
PLUGINS = "mlforge.commands"
FAILED, USAGE, INTERRUPTED, BROKEN_PIPE, TERMINATED = 1, 2, 130, 141, 143


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised as Ctrl-C is: a SystemExit would pass for one of the definitions or of a feature's function."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `mlforge` with these arguments, or else as the command that this process is; return the exit code."""
    if argv is None:
        with loading():
            return main(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(argv)
        sys.stdout.flush()
    except KeyboardInterrupt as stop:
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    except BrokenPipeError:
        # What is still buffered has no reader: at exit it must not raise once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (MlforgeError, OSError) as error:
        fail(_said(error))
        return FAILED
    return code


def _said(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and error.filename is None:
        return "the present folder is gone; go to another one"
    return str(error)


def _run(argv: Sequence[str]) -> int:
    named = next((text for text in argv if not text.startswith("-")), None)
    # After an option of all, such as --help, any command may be asked about.
    own = _own(argv[0]) if argv else {}
    commands, broken = (own, []) if own else known_commands()
    parser = _parser(commands, broken, named)
    try:
        if named is not None and named not in commands:
            parser.error(_unknown(named, commands, broken))
        args = parser.parse_args(argv)
    except SystemExit as system_exit:  # argparse has printed what there was to say
        return int(system_exit.code or 0)
    if args.command is None:
        parser.print_help(sys.stderr)
        return USAGE
    args.all_commands = lambda: known_commands()[0]
    with _tidy_end() if own else nullcontext():
        return commands[args.command].run(args)


@contextmanager
def _tidy_end() -> Iterator[None]:
    """Have SIGTERM end the block as Ctrl-C does, by way of all that cleans up, unless somebody else has a use for it."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL or not _is_main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is _terminated:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _unknown(named: str, commands: dict[str, Command], broken: list[str]) -> str:
    near = near_names(named, commands, most=1)
    hint = f"did you mean {near[0]!r}?" if near else "'mlforge --help' lists them"
    return "; ".join(
        [f"no command {named!r}; {hint}", *(f"not available: {line}" for line in broken)]
    )


def _own(named: str) -> dict[str, Command]:
    """The library's own commands of the module that holds this one, by name; empty where none does."""
    return {
        command.name: command
        for module, names in MODULES.items()
        if named in names
        for command in _commands_of(module)
    }


def _commands_of(module: str) -> tuple[Command, ...]:
    commands: tuple[Command, ...] = import_module(f"mlforge.cli.commands.{module}").COMMANDS
    return commands


def known_commands() -> tuple[dict[str, Command], list[str]]:
    """Every command by its name, and a line for each plugin that does not load."""
    commands = {command.name: command for module in MODULES for command in _commands_of(module)}
    broken: list[str] = []
    for plugin in plugins(PLUGINS):
        try:
            for command in plugin.load():
                commands.setdefault(command.name, command)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - one command must not break all others
            broken.append(f"{plugin.name}: {type(error).__name__}: {error}")
    return commands, broken


class _Parser(argparse.ArgumentParser):
    """A parser that says which option a mistyped one may be; errors quote the command line with control characters escaped."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The arguments, and none left over: what a command does not know is its own error, beside its own usage."""
        parsed, left = super().parse_known_args(args, namespace)
        if left:
            options = {option.lstrip("-"): option for option in self._option_string_actions}
            near = near_names(left[0].partition("=")[0].lstrip("-"), options, most=1)
            hint = f"; did you mean {options[near[0]]!r}?" if near else ""
            self.error(f"unrecognized arguments: {' '.join(left)}{hint}")
        return parsed, left

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def _parser(
    commands: dict[str, Command], broken: list[str], named: str | None
) -> argparse.ArgumentParser:
    """The parser of the command line, with the options of the one command that it names."""
    parser = _Parser(
        prog="mlforge",
        usage="mlforge [-h] [--version] COMMAND ...",
        description="A feature store that you run by dropping parquet files into a folder.",
        epilog="\n".join(
            [
                *_listed(commands),
                "`mlforge COMMAND --help` explains a command and shows an example.",
                *(f"not available: {line}" for line in broken),
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"mlforge {RELEASE}")
    subparsers = parser.add_subparsers(
        dest="command", metavar="COMMAND", prog="mlforge", help=argparse.SUPPRESS
    )
    if named in commands:
        command = commands[named]
        subparser = subparsers.add_parser(
            command.name,
            description=_about(command),
            epilog=_example(command.example),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.configure(subparser)
    return parser


def _listed(commands: Mapping[str, Command]) -> Iterator[str]:
    """The commands by group, each group with its title."""
    width = max(map(len, commands), default=0)
    grouped = {name for names in GROUPS.values() for name in names}
    others = tuple(name for name in commands if name not in grouped)
    for title, names in {**GROUPS, "others": others}.items():
        rows = [(name.ljust(width), commands[name].help) for name in names if name in commands]
        if rows:
            yield f"{title}:\n{pairs(rows, indent=2)}\n"


def _about(command: Command) -> str:
    said = f"{command.help[:1].upper()}{command.help[1:]}. {command.about}"
    return textwrap.fill(said.strip(), max(shutil.get_terminal_size().columns - 2, 20))


def _example(text: str) -> str | None:
    lines = text.strip().splitlines()
    return "\n".join(["example:", *(f"  {line.strip()}" for line in lines)]) if lines else None
