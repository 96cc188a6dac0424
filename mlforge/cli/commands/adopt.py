"""`mlforge adopt`: take a feature's rows online from the store that owns them, and its keeping from other definitions."""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import TYPE_CHECKING

from mlforge.cli.command import Command
from mlforge.cli.deeds import note_deeds
from mlforge.cli.options import definitions_option, json_option, served_definitions_of
from mlforge.cli.output import fail, note, number, print_json, stdout_is_ours
from mlforge.errors import OnlineError

if TYPE_CHECKING:
    from mlforge.definitions.registry import Definitions
    from mlforge.online.push import PushResult


def _configure(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("name", nargs="?", metavar="NAME", help="the name of a feature or a service")
    what.add_argument(
        "--from",
        dest="keeper",
        metavar="DEFINITIONS",
        help="all that these definitions keep in the store, by their name=; nothing is pushed",
    )
    definitions_option(parser)
    json_option(parser)


def adopt(args: argparse.Namespace) -> int:
    """Keep a feature or a service that other definitions of the store kept, and push over rows that another store owns.

    Exit code 1 if there is nothing to push. JSON: `{"feature", "from", "kept_by", "version", "as_of", "written", "deleted"}`; from is the
    owner of the rows before, kept_by the definitions that kept it before, null if none other did. Without an online store,
    the last four are null. Of a service: `{"service", "kept_by"}`. With --from: `{"kept_by",
    "names": [name]}`, the features and services that were taken over.
    """
    from mlforge.definitions.keeping import take_over
    from mlforge.registry.deeds import ADOPTED

    definitions = served_definitions_of(args)
    if args.keeper is not None:
        return _all_adopted(args, definitions)
    with closing(definitions), stdout_is_ours():
        kept_by = take_over(definitions, args.name)
        if args.name in definitions.features:
            rows = _rows_adopted(definitions, args.name, kept_by)
            if kept_by is not None or (rows[0] and rows[0].version):
                done = {"kept_by": kept_by, "from": rows[1]}
                note_deeds(args, definitions, ADOPTED, [(args.name, done)])
    if kept_by is not None and not args.json:
        print(f"{args.name} is kept by these definitions: it was kept by {kept_by!r}")
        note(
            f"a refresh of another {args.name} by {kept_by!r} is refused from now on; take it out there"
        )
    if args.name not in definitions.features:
        return _service_told(args, kept_by)
    return _rows_told(args, kept_by, *rows)


def _rows_adopted(
    definitions: Definitions, name: str, kept_by: str | None
) -> tuple[PushResult | None, str | None]:
    """The push over the rows of a feature, and the owner of these before, None where no other store was it.

    No push where there is no online store, and the feature was taken over in the store: OnlineError if it was not.
    """
    online = definitions.online_store
    if online is None:
        if kept_by is not None:
            return None, None
        raise OnlineError(
            "there is no online store to adopt from: give Definitions(online_store=RedisStore(...)), set "
            "REDIS_URL, or run `mlforge up`"
        )
    books = online.books(name)
    pushed = definitions.adopt(name)
    before, ours = books.owner if books else None, definitions.store.identity()
    is_others = before is not None and ours is not None and before.store != ours.id
    return pushed, str(before) if is_others else None


def _all_adopted(args: argparse.Namespace, definitions: Definitions) -> int:
    from mlforge.definitions.keeping import take_over_all
    from mlforge.registry.deeds import ADOPTED

    with closing(definitions), stdout_is_ours():
        names = take_over_all(definitions, args.keeper)
        done = {"kept_by": args.keeper, "from": None}
        adopted = [(name, done) for name in names if name in definitions.features]
        note_deeds(args, definitions, ADOPTED, adopted)
    if args.json:
        print_json({"kept_by": args.keeper, "names": names})
    elif names:
        print(f"kept by these definitions, and by {args.keeper!r} until now: {', '.join(names)}")
    else:
        print(f"{args.keeper!r} keeps nothing that these definitions name")
    return 0


def _service_told(args: argparse.Namespace, kept_by: str | None) -> int:
    if args.json:
        print_json({"service": args.name, "kept_by": kept_by})
    elif kept_by is None:
        print(f"{args.name} is not kept by other definitions: nothing to adopt")
    return 0


def _rows_told(
    args: argparse.Namespace, kept_by: str | None, pushed: PushResult | None, owner: str | None
) -> int:
    from mlforge.core.values import to_iso

    if pushed is not None and pushed.version is None and kept_by is None:
        fail(f"{args.name} has no version yet; build it first, and adopt it then")
        return 1
    if args.json:
        print_json(
            {
                "feature": args.name,
                "from": owner,
                "kept_by": kept_by,
                "version": pushed and pushed.version,
                "as_of": pushed and to_iso(pushed.as_of),
                "written": pushed and pushed.written,
                "deleted": pushed and pushed.deleted,
            }
        )
        return 0
    if pushed is None or pushed.version is None:
        return 0
    was = "was this store's already" if owner is None else f"was of {owner}"
    print(
        f"{args.name} {pushed.version} is this store's: {number(pushed.written)} rows written, "
        f"{number(pushed.deleted)} deleted; it {was}"
    )
    if owner is not None:
        note(
            f"whoever pushes {args.name} from there is refused from now on; stop it, or give it another prefix"
        )
    return 0


COMMANDS = (
    Command(
        "adopt",
        "take a feature or a service from the definitions that keep it, and rows online from the store that owns them",
        _configure,
        adopt,
        example="mlforge adopt user_spend\nmlforge adopt --from shop",
        about="Rows online are one store's, and no other writes or drops them. This makes them this project's: the "
        "served version is pushed over them. Exit code 1 if the feature has no version yet. Of a store that several "
        "definitions share, these keep the feature or service from then on.",
    ),
)
