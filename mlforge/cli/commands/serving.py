"""`mlforge rollback` and `approve`: which version is served, and whether it goes on by itself."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from mlforge.cli.command import Command
from mlforge.cli.deeds import note_deeds
from mlforge.cli.options import (
    definitions_option,
    existing_store,
    json_option,
    served_definitions_of,
    store_options,
    version_number,
)
from mlforge.cli.output import fail, note, print_json, stdout_is_ours
from mlforge.cli.progress import Progress
from mlforge.cli.results import as_json, complain
from mlforge.core.text import plural
from mlforge.errors import MlforgeError, OnlineError

if TYPE_CHECKING:
    from mlforge.online.push import PushResult
    from mlforge.store import Store


def _configure_rollback(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("feature", help="its name")
    parser.add_argument(
        "version",
        type=version_number,
        nargs="?",
        metavar="X.Y.Z",
        help="which (default: the one before)",
    )
    store_options(parser)
    json_option(parser)


def _configure_approve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("feature", help="its name")
    definitions_option(parser)
    json_option(parser)


def rollback(args: argparse.Namespace) -> int:
    """Serve an older version. Exit code 1 if the online store could not follow.

    JSON: `{"feature", "from", "version", "generation", "hold", "online"}`; online is whether the online
    store follows (null if there is none, or with `--store`).
    """
    return _rollback_store(args) if args.store is not None else _rollback_project(args)


def _rollback_store(args: argparse.Namespace) -> int:
    from mlforge.maintenance import operations

    store = existing_store(args.store)
    before = str(store.read_metadata(args.feature).version)
    operations.rollback(store, args.feature, args.version)
    _tell(args, store, before, online=None)
    return 0


def _rollback_project(args: argparse.Namespace) -> int:
    from mlforge.registry.deeds import ROLLED_BACK

    definitions = served_definitions_of(args)
    store = definitions.store
    try:
        before = str(store.read_metadata(args.feature).version)
        online = None if definitions.online_store is None else True
        problem = None
        try:
            with Progress(f"rolling {args.feature} back"):
                definitions.rollback(args.feature, args.version)
        except OnlineError as error:  # offline it is done
            online, problem = False, error
        pointer = store.pointer(args.feature)
        served = str(pointer.version) if pointer else None
        done = {"from": before, "version": served}
        note_deeds(args, definitions, ROLLED_BACK, [(args.feature, done)])
    finally:
        definitions.close()
    _tell(args, store, before, online)
    if problem is not None:
        fail(f"the online store does not follow yet: {problem}", about=args.feature)
    return 0 if problem is None else 1


def _tell(args: argparse.Namespace, store: Store, before: str, online: bool | None) -> None:
    name = args.feature
    pointer, hold = store.pointer(name), store.books(name).hold
    assert pointer is not None
    if args.json:
        print_json(
            {
                "feature": name,
                "from": before,
                "version": str(pointer.version),
                "generation": pointer.generation,
                "hold": hold,
                "online": online,
            }
        )
    else:
        where = " and online" if online else ""
        note(f"{name}: {pointer.version} is served{where}, in place of {before}")
        note(f"held until 'mlforge approve {name}', or a build of it", "yellow")
    sys.stdout.flush()


def approve(args: argparse.Namespace) -> int:
    """Let a held feature go on: refresh it as a person's build does, and push it. Exit code 1 if it stays held.

    JSON: `{"feature", "hold", "result", "push"}`: what it was held for, null if it was not (then nothing is
    done); the result as in `build`; the push as `{"version", "as_of", "written", "deleted"}`, null
    without an online store.
    """
    from mlforge.registry.deeds import APPROVED

    name = args.feature
    definitions = served_definitions_of(args)
    store = definitions.store
    try:
        definitions.feature(name)
        hold = store.books(name).hold
        if hold is None:
            if args.json:
                print_json({"feature": name, "hold": None, "result": None, "push": None})
            else:
                print(f"{name} is not held: there is nothing to approve")
            return 0
        with Progress(f"refreshing {name}"), stdout_is_ours():
            result = definitions.refresh(name)
            still = store.books(name).hold
            if still is None:
                done = {"hold": hold, "version": str(result.version), "changed": result.changed}
                note_deeds(args, definitions, APPROVED, [(name, done)])
            pushed = None if still or definitions.online_store is None else definitions.push(name)
    finally:
        definitions.close()
    if args.json:
        document = {"feature": name, "hold": hold, "result": as_json(result, store)}
        print_json({**document, "push": _push_json(pushed)})
    elif still is None:
        said = f"published {result.version}" if result.changed else f"{result.version} goes on"
        count = 0 if pushed is None else pushed.written + pushed.deleted
        online = "" if pushed is None else f"; {plural(count, 'key')} written online"
        note(f"{name}: {said}, {result.reason}{online}")
    sys.stdout.flush()
    complain([result], store)
    if still is not None:
        raise MlforgeError(f"{name} stays held: {result.reason}")
    return 1 if result.quarantined else 0


def _push_json(pushed: PushResult | None) -> dict[str, Any] | None:
    from mlforge.core.values import to_iso

    if pushed is None:
        return None
    return {
        "version": pushed.version,
        "as_of": to_iso(pushed.as_of),
        "written": pushed.written,
        "deleted": pushed.deleted,
    }


COMMANDS = (
    Command(
        "rollback",
        "serve an older version, and hold the feature there",
        _configure_rollback,
        rollback,
        "mlforge rollback user_spend\nmlforge rollback user_spend 1.0.0 --store feature_store",
        "The online store follows at once; with --store, when a worker next looks. The next version takes a "
        "number above all others.",
    ),
    Command(
        "approve",
        "let a held feature go on",
        _configure_approve,
        approve,
        "mlforge approve user_spend",
        "Refreshes the feature from its source as a build does, whatever it loses, and pushes it.",
    ),
)
