"""`mlforge adopt`: take a feature's rows online from the store that owns them."""

from __future__ import annotations

import argparse
from contextlib import closing

from mlforge.cli.command import Command
from mlforge.cli.options import definitions_option, json_option, served_definitions_of
from mlforge.cli.output import fail, note, number, print_json, stdout_is_ours
from mlforge.errors import OnlineError


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("feature", help="its name")
    definitions_option(parser)
    json_option(parser)


def adopt(args: argparse.Namespace) -> int:
    """Push a feature over the rows that another store owns. Exit code 1 if there is nothing to push.

    JSON: `{"feature", "from", "version", "as_of", "written", "deleted"}`; from is the owner before, null if none
    other owned it.
    """
    from mlforge.core.values import to_iso

    definitions = served_definitions_of(args)
    with closing(definitions), stdout_is_ours():
        definitions.feature(args.feature)
        online = definitions.online_store
        if online is None:
            raise OnlineError(
                "there is no online store to adopt from: give Definitions(online_store=RedisStore(...)), set "
                "REDIS_URL, or run `mlforge up`"
            )
        books = online.books(args.feature)
        pushed = definitions.adopt(args.feature)
        before, ours = books.owner if books else None, definitions.store.identity()
    if pushed.version is None:
        fail(f"{args.feature} has no version yet; build it first, and adopt it then")
        return 1
    taken_from = before if before is not None and ours and before.store != ours.id else None
    if args.json:
        print_json(
            {
                "feature": args.feature,
                "from": None if taken_from is None else str(taken_from),
                "version": pushed.version,
                "as_of": to_iso(pushed.as_of),
                "written": pushed.written,
                "deleted": pushed.deleted,
            }
        )
        return 0
    was = "was this store's already" if taken_from is None else f"was of {taken_from}"
    print(
        f"{args.feature} {pushed.version} is this store's: {number(pushed.written)} rows written, "
        f"{number(pushed.deleted)} deleted; it {was}"
    )
    if taken_from is not None:
        note(
            f"whoever pushes {args.feature} from there is refused from now on; stop it, or give it another prefix"
        )
    return 0


COMMANDS = (
    Command(
        "adopt",
        "take a feature's rows online from the store that owns them",
        _configure,
        adopt,
        example="mlforge adopt user_spend",
        about="Rows online are one store's, and no other writes or drops them. This makes them this project's: the "
        "served version is pushed over them. Exit code 1 if the feature has no version yet.",
    ),
)
