"""Options that several commands share, and the definitions that they lead to."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mlforge.cli.output import stdout_is_ours, warn
from mlforge.core.paths import path_of
from mlforge.definitions.environment import PROFILE, PROFILES_FILE, redis_url
from mlforge.errors import DefinitionError, MlforgeError, StoreError

if TYPE_CHECKING:
    from mlforge.definitions.registry import Definitions
    from mlforge.store import Store

ENVIRONMENT = "MLFORGE_DEFINITIONS"
_YEAR_S, _LEAST_PAUSE_S = 31_536_000, 0.1


def definitions_option(parser: argparse.ArgumentParser) -> None:
    """Add `--definitions` and `--profile`; `definitions_of` loads what they say."""
    _target_option(parser)
    _profile_option(parser)


def _target_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "-d",
        "--definitions",
        metavar="WHERE",
        help=f"module:name, path.py or path.py:name (default: ${ENVIRONMENT}, else definitions.py here)",
    )


def _profile_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--profile",
        metavar="NAME",
        help=f"stores and root as {PROFILES_FILE} beside the definitions has them (default: ${PROFILE}, else the file's own)",
    )


def profile_name(args: argparse.Namespace) -> str | None:
    """The profile that `--profile`, or else the environment, names; None stands for the file's default."""
    name: str | None = args.profile
    return name or os.environ.get(PROFILE) or None


def definitions_target(args: argparse.Namespace) -> str | None:
    """The target that `--definitions`, or else the environment, names; None stands for definitions.py here."""
    target: str | None = args.definitions
    return target or os.environ.get(ENVIRONMENT) or None


def definitions_of(args: argparse.Namespace) -> Definitions:
    """Load the definitions that the command line names."""
    from mlforge.definitions.loader import load

    log_to_stderr()
    with stdout_is_ours():
        return load(definitions_target(args), here=Path.cwd(), profile=profile_name(args))


def definitions_at_hand(args: argparse.Namespace) -> Definitions | None:
    """The definitions, as of `definitions_of`, of a command that can do without: None where there are none.

    Those that the command line does not name and that do not load are told on stderr, and count as none.
    """
    from mlforge.definitions.loader import DEFAULT

    if definitions_target(args) is None and not Path(DEFAULT).is_file():
        return None
    try:
        return definitions_of(args)
    except MlforgeError as error:
        if args.definitions is not None:
            raise
        warn(f"the definitions do not load, so that their sources are not known: {error}")
        return None


def served_definitions_of(args: argparse.Namespace) -> Definitions:
    """Load the definitions, with an online store: their own, else that of REDIS_URL, else of a running `up`.

    `online_store` is None where there is none of the three.
    """
    from mlforge.definitions.running import serve_at

    definitions = definitions_of(args)
    if definitions.online_store is None:
        url = workers_url(args)
        if url is not None:
            serve_at(definitions, url)
    return definitions


def compared_store_option(parser: argparse.ArgumentParser) -> None:
    """Add the `--store` of a plan; `compared_definitions_of` takes it."""
    parser.add_argument(
        "--store",
        metavar="DIR",
        help="compare with this store instead, a folder or s3://bucket/prefix, such as production's",
    )


def compared_definitions_of(args: argparse.Namespace) -> Definitions:
    """The definitions of a plan: as `served_definitions_of`, or over the store that `--store` names.

    With that they have no online store: rows online are not of the store that is compared with.
    """
    if args.store is None:
        return served_definitions_of(args)
    definitions = definitions_of(args)
    compared = definitions.placed(existing_store(args.store).located_at(Path.cwd()), None, None)
    compared.online_store = None
    return compared.located_at(definitions.folder)


def workers_url(args: argparse.Namespace) -> str | None:
    """The URL of the Redis that workers use: REDIS_URL, else that of a running `up`; None where there is neither."""
    from mlforge.definitions.running import running_url

    return redis_url() or running_url(definitions_target(args), Path.cwd(), profile_name(args))


def version_number(text: str) -> str:
    """The number of a version, as in 1.2.3."""
    from mlforge.core.values import Version

    try:
        return str(Version.parse(text))
    except StoreError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def port(text: str) -> int:
    """The number of a port."""
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, a number from 0 to 65535")
    return int(text)


def engine_name(text: str) -> str:
    """The name of an engine."""
    from mlforge.features.feature import check_engine

    return _named_engine(text, check_engine)


def engine_or_spark(text: str) -> str:
    """The name of an engine, or "spark"."""
    from mlforge.features.feature import check_engine_or_spark

    return _named_engine(text, check_engine_or_spark)


def _named_engine(text: str, check: Callable[[object, str], str]) -> str:
    try:
        return check(text, "--engine")
    except DefinitionError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--engine: ")) from error


def store_options(parser: argparse.ArgumentParser) -> None:
    """Add `--definitions` with `--profile`, and `--store`, one of which names the store; `store_of` opens it."""
    either = parser.add_mutually_exclusive_group()
    _target_option(either)
    either.add_argument(
        "--store",
        metavar="DIR",
        help="the store itself, a folder or s3://bucket/prefix; no definitions are read then",
    )
    _profile_option(parser)


def store_of(args: argparse.Namespace) -> Store:
    """The store that the command line names: its folder, or that of the definitions."""
    if args.store is None:
        return definitions_of(args).store
    if args.profile is not None:
        raise DefinitionError(
            "--store names the store itself, --profile where the definitions have theirs; give one of the two"
        )
    return existing_store(args.store)


def store_to_write_beside(args: argparse.Namespace, check: Callable[[Definitions], None]) -> Store:
    """The store, as of `store_of`, once the definitions, if the command line names them, have passed a check of the place to write to."""
    if args.store is not None:
        return store_of(args)
    definitions = definitions_of(args)
    check(definitions)
    return definitions.store


def existing_store(place: str) -> Store:
    """The store in a folder or bucket, which must be there."""
    from mlforge.store.addresses import is_bucket
    from mlforge.store.opening import store_at

    log_to_stderr()
    store = store_at(place)
    in_bucket = is_bucket(place)
    if not (store.identity() if in_bucket else path_of(place).is_dir()):
        where = place if in_bucket else store.local_folder
        raise StoreError(f"no store at {where}; name the folder or bucket that holds the features")
    return store


def json_option(parser: argparse._ActionsContainer) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def selection_options(parser: argparse.ArgumentParser) -> None:
    """Add `--features` and `--tags`, both lists."""
    parser.add_argument(
        "-f", "--features", type=names, metavar="A,B", help="only these features (default: all)"
    )
    parser.add_argument(
        "-t", "--tags", type=names, metavar="A,B", help="only features with one of these tags"
    )


def at_least_one(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def seconds(text: str) -> float:
    """A number of seconds, from 0 to a year."""
    return _seconds_from(0, text)


def pause(text: str) -> float:
    """A number of seconds between two looks: as `seconds`, but more than none."""
    return _seconds_from(_LEAST_PAUSE_S, text)


def _seconds_from(least: float, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not least <= number <= _YEAR_S:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of seconds from {least:g} to {_YEAR_S:,}"
        )
    return number


def names(text: str) -> list[str]:
    """Split `a,b`; an empty list is refused."""
    listed = [part.strip() for part in text.split(",") if part.strip()]
    if not listed:
        raise argparse.ArgumentTypeError("give at least one name, several as in a,b")
    return listed


def log_to_stderr() -> None:
    """Log warnings and errors alone, on stderr: commands print all else themselves, and workers have logs of their own."""
    from mlforge.cli import logs

    logs.configure()
