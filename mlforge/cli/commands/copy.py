"""`mlforge copy`: a store in another place."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from mlforge.cli.command import Command
from mlforge.cli.options import definitions_at_hand, definitions_option, json_option
from mlforge.cli.output import print_json
from mlforge.cli.table import table
from mlforge.core.text import plural
from mlforge.errors import MlforgeError

if TYPE_CHECKING:
    from mlforge.core.values import Version


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("features", nargs="*", metavar="FEATURE", help="by default all")
    for name, what in (("from", "copied"), ("to", "made, or made whole")):
        parser.add_argument(
            f"--{name}",
            required=True,
            dest=f"{name}_",
            metavar="STORE",
            help=f"the store that is {what}: a folder, or an address such as s3://bucket/feature_store",
        )
    definitions_option(parser)  # in whose sources no copy may lie
    json_option(parser)


def copy(args: argparse.Namespace) -> int:
    """Copy a store: versions, pins and other notes, locks, identity.

    JSON: `{"features": [{"feature", "versions", "copied", "erased"}], "only_there"}`. versions: all that are there now; copied: how many
    were not there before; erased: versions that went, as they had rows of entities that were forgotten since. only_there: features
    of the copy that the store which is copied does not have, or no longer has.
    """
    from mlforge.definitions.sources import check_output
    from mlforge.maintenance.copying import copy as copied_stores
    from mlforge.store.apart import check_beside
    from mlforge.store.opening import store_at

    source, target = store_at(args.from_), store_at(args.to_)
    if not source.features():
        raise MlforgeError(f"{args.from_} holds no feature; name the folder or address of a store")

    check_beside(args.to_, args.from_)
    definitions = definitions_at_hand(args)
    if definitions is not None:
        names = args.features or source.features()
        check_output(definitions, args.to_, *(f"{name}/1.0.0/data.parquet" for name in names))

    def told(name: str, version: Version) -> None:
        if sys.stderr.isatty():
            print(f"{name} {version}", file=sys.stderr)

    copied = copied_stores(source, target, args.features or None, told)
    alone = sorted({*target.features()} - {*source.features()})
    if args.json:
        features = [
            {
                "feature": each.feature,
                "versions": [str(version) for version in each.versions],
                "copied": len(each.versions) - each.before,
                "erased": list(each.erased),
            }
            for each in copied
        ]
        print_json({"features": features, "only_there": alone})
        return 0
    rows = [
        (each.feature, str(len(each.versions)), str(len(each.versions) - each.before))
        for each in copied
    ]
    print(table(("feature", "versions", "copied now"), rows, right=("versions", "copied now")))
    for each in copied:
        if each.erased:
            print(
                f"{each.feature}: {plural(len(each.erased), 'version')} with rows of forgotten entities went: {', '.join(each.erased)}"
            )
    for name in alone:
        print(
            f"{name} is in {args.to_} alone, as one that was retired in {args.from_} since is: 'mlforge retire {name}' with "
            "definitions of that store deletes it there, too"
        )
    print(f"{plural(len(copied), 'feature')} of {args.from_} are in {args.to_}, and verified there")
    return 0


COMMANDS = (
    Command(
        "copy",
        "copy a store to another place, such as a bucket",
        _configure,
        copy,
        "mlforge copy --from feature_store --to s3://my-bucket/feature_store",
        "The copy has the same versions bit by bit, pins, holds and quarantine, locks, and the same identity: online stores take it for "
        "the store that it was. What was interrupted goes on where it stopped when the same command is run again. Stop the workers "
        "of the store before, and start them with the new address.",
    ),
)
