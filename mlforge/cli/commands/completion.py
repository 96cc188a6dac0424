"""`mlforge completion`: scripts that teach a shell the commands and their options."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mlforge.cli.command import Command


@dataclass(frozen=True, slots=True)
class Option:
    """One way to write an option: `-f` or `--features`."""

    text: str
    help: str
    value: str | None  # what the help calls it; None for a flag


@dataclass(frozen=True, slots=True)
class Described:
    """A command as a shell needs to know it."""

    name: str
    help: str
    options: tuple[Option, ...]
    choices: tuple[str, ...]  # of its arguments; without any, files are offered


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=tuple(_SCRIPTS), help="for which shell")


def completion(args: argparse.Namespace) -> int:
    """Print the script for a shell; it knows the commands that are installed now."""
    from mlforge.cli.main import known_commands

    commands, _ = known_commands()
    print(script(args.shell, commands), end="")
    return 0


def script(shell: str, commands: Mapping[str, Command]) -> str:
    """The text for bash, zsh or fish."""
    return "\n".join(_SCRIPTS[shell]([_described(command) for command in commands.values()])) + "\n"


def _described(command: Command) -> Described:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    command.configure(parser)
    options, choices = [], []
    for action in parser._actions:
        wants_value = action.nargs != 0
        value = (action.metavar or action.dest.upper()) if wants_value else None
        options += [
            Option(text, action.help or "", str(value) if value else None)
            for text in action.option_strings
        ]
        if not action.option_strings:
            choices += [str(choice) for choice in action.choices or ()]
    return Described(command.name, command.help, tuple(options), tuple(choices))


def _bash(commands: Sequence[Described]) -> Iterator[str]:
    yield from (
        "_mlforge() {",
        "  local word=${COMP_WORDS[COMP_CWORD]} words= index=1",
        "  while [[ ${COMP_WORDS[index]} == -* && index -lt COMP_CWORD ]]; do ((index++)); done",
        "  if ((index >= COMP_CWORD)); then",
        f"    words={shlex.quote(' '.join([*(c.name for c in commands), '--help', '--version']))}",
        "  else",
        "    case ${COMP_WORDS[index]}:$word in",
    )
    for command in commands:
        options = " ".join(option.text for option in command.options)
        yield f"      {command.name}:-*) words={shlex.quote(options)} ;;"
        if command.choices:
            yield f"      {command.name}:*) words={shlex.quote(' '.join(command.choices))} ;;"
    yield from (
        "    esac",
        "  fi",
        '  COMPREPLY=($(compgen -W "$words" -- "$word"))',
        "}",
        "complete -o default -F _mlforge mlforge",
    )


def _zsh(commands: Sequence[Described]) -> Iterator[str]:
    yield from ("#compdef mlforge", "_mlforge() {", "  local -a commands", "  commands=(")
    yield from (
        f"    {shlex.quote(f'{command.name}:{_plain(command.help)}')}" for command in commands
    )
    yield from (
        "  )",
        "  if ((CURRENT == 2)); then _describe command commands; return; fi",
        "  shift words; ((CURRENT--))",
        "  case $words[1] in",
    )
    for command in commands:
        specs = [
            f"{option.text}[{_plain(option.help)}]"
            + (f":{_plain(option.value)}:_files" if option.value else "")
            for option in command.options
        ]
        rest = f"*:argument:({' '.join(command.choices)})" if command.choices else "*:file:_files"
        yield f"    {command.name}) _arguments {shlex.join([*specs, rest])} ;;"
    yield from (
        "  esac",
        "}",
        'if [[ $funcstack[1] == _mlforge ]]; then _mlforge "$@"; else compdef _mlforge mlforge; fi',
    )


def _fish(commands: Sequence[Described]) -> Iterator[str]:
    for command in commands:
        about = shlex.quote(command.help)
        yield f"complete -c mlforge -n __fish_use_subcommand -f -a {command.name} -d {about}"
    for command in commands:
        here = f"complete -c mlforge -n '__fish_seen_subcommand_from {command.name}'"
        for option in command.options:
            kind = "l" if option.text.startswith("--") else "s"
            value = " -r" if option.value else ""
            text = option.text.lstrip("-")
            yield f"{here} -{kind} {text}{value} -d {shlex.quote(option.help)}"
        if command.choices:
            yield f"{here} -f -a {shlex.quote(' '.join(command.choices))}"


def _plain(text: str) -> str:
    """Without what zsh reads as marks."""
    return text.translate(str.maketrans(":[]", ",()"))


_SCRIPTS: dict[str, Callable[[Sequence[Described]], Iterator[str]]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}

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
