"""`mlforge lock` and `locks`: what a model was made with, and which models the store keeps whole."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mlforge.cli.command import Command
from mlforge.cli.options import (
    definitions_of,
    definitions_option,
    json_option,
    store_of,
    store_options,
)
from mlforge.cli.output import note, number, print_json
from mlforge.cli.table import table
from mlforge.core.text import plural
from mlforge.errors import StoreError, did_you_mean

if TYPE_CHECKING:
    from mlforge.core.lock import Change, Lock
    from mlforge.store import Store

_FILE = "features.lock"


def _configure_lock(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("service", help="its name, or NAME@MAJOR for a kept version of it")
    parser.add_argument("--out", metavar="FILE", help=f"where to write it (default: {_FILE})")
    parser.add_argument(
        "--model", metavar="NAME", help="register it in the store, too, under a model's name"
    )
    definitions_option(parser)
    json_option(parser)


def _configure_locks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--remove", metavar="MODEL", help="end the lock of a model")
    store_options(parser)
    json_option(parser)


def lock(args: argparse.Namespace) -> int:
    """Write the lock of a service as of the versions that are served.

    JSON: `{"service", "path", "model", "versions", "columns"}`: where it was written, the model that it was
    registered for (null for none), the versions, and `[{"name", "dtype", "meaning"}]`.
    """
    from mlforge.definitions.services import service_named
    from mlforge.definitions.sources import check_output
    from mlforge.store.apart import check_in_no_store

    definitions, out = definitions_of(args), args.out or _FILE
    check_output(definitions, out)
    check_in_no_store(out)
    service = service_named(definitions.services, args.service, definitions.store)
    own = service.lock(definitions.store)
    path = own.save(out)  # first: a lock that is registered holds versions back
    if args.model is not None:
        definitions.store.register_lock(args.model, own)
    if args.json:
        columns = [{"name": c.name, "dtype": c.dtype, "meaning": c.meaning} for c in own.columns]
        print_json(
            {
                "service": own.service,
                "path": str(path),
                "model": args.model,
                "versions": list(own.versions),
                "columns": columns,
            }
        )
    else:
        registered = "" if args.model is None else f", registered for {args.model}"
        count = plural(len(own.columns), "column")
        note(f"{own.service}: {count} of {', '.join(own.versions)} in {path}{registered}")
    return 0


def locks(args: argparse.Namespace) -> int:
    """List the locks that are registered in the store, or end that of a model. Exit code 1 if one does not hold.

    JSON: `[{"model", "service", "columns", "versions", "changes"}]`, changes as `[{"column", "why"}]`; with
    `--remove`, `{"removed"}`.
    """
    from mlforge.registry.locks import lock_changes

    store = store_of(args)
    if args.remove is not None:
        return _remove(args, store)
    registered = store.locks()
    changes = {model: lock_changes(store, each) for model, each in registered.items()}
    if args.json:
        print_json([_json(model, each, changes[model]) for model, each in registered.items()])
    else:
        rows = [
            (model, own.service, number(len(own.columns)), ", ".join(own.versions), _state(changes[model]))
            for model, own in registered.items()
        ]  # fmt: skip
        print(table(("model", "service", "columns", "made of", "state"), rows, right=("columns",)))
        for model, broken in changes.items():
            for change in broken:
                note(f"{model}: {change}", "yellow")
    return 1 if any(changes.values()) else 0


def _remove(args: argparse.Namespace, store: Store) -> int:
    from mlforge.build.broken_locks import end_lock

    if not end_lock(store, args.remove):
        raise StoreError(
            f"no lock is registered for the model {args.remove!r}; {did_you_mean(args.remove, store.locks())}"
        )
    if args.json:
        print_json({"removed": args.remove})
    else:
        note(f"the lock of {args.remove} has ended: nothing is held for it any more")
    return 0


def _state(changes: list[Change]) -> str:
    return f"broken: {plural(len(changes), 'column')}" if changes else "holds"


def _json(model: str, own: Lock, changes: list[Change]) -> dict[str, Any]:
    return {
        "model": model,
        "service": own.service,
        "columns": [column.name for column in own.columns],
        "versions": list(own.versions),
        "changes": [{"column": change.column, "why": change.why} for change in changes],
    }


COMMANDS = (
    Command(
        "lock",
        "write down what a service's columns mean now",
        _configure_lock,
        lock,
        "mlforge lock checkout_fraud\nmlforge lock checkout_fraud --out model/features.lock --model fraud_v3",
        "The file names each column, its type, its meaning and the versions. Given as lock= to a read, it is refused "
        "once a column is gone or means something else. With --model it is kept in the store, too, and a worker then "
        "holds a version that would break it.",
    ),
    Command(
        "locks",
        "list the models whose locks are registered, or end one",
        _configure_locks,
        locks,
        "mlforge locks\nmlforge locks --remove fraud_v2",
        "A model that is not served any more should have no lock: it would hold versions for nobody.",
    ),
)
