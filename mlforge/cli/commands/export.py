"""`mlforge export`: a feature's versions as a table that other engines read."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from mlforge.cli.command import Command
from mlforge.cli.options import json_option, store_options, store_to_write_beside
from mlforge.cli.output import print_json
from mlforge.core.text import plural

if TYPE_CHECKING:
    from mlforge.core.values import Version

_FILES = {"delta": "part.parquet", "iceberg": "data/part.parquet"}
"""A file of rows in a table of each format, below its folder."""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("feature", help="its name")
    formats = parser.add_mutually_exclusive_group(required=True)
    for name in _FILES:
        formats.add_argument(
            f"--{name}",
            metavar="PATH",
            help=f"the folder of the {name.title()} table, or an address such as s3://bucket/tables/user_spend",
        )
    store_options(parser)
    json_option(parser)


def export(args: argparse.Namespace) -> int:
    """Write a feature's versions to a table, each as a snapshot.

    JSON: `{"feature", "table", "versions", "files"}`. versions: those that became snapshots now; files: how many were written.
    """
    from mlforge.definitions.sources import check_table
    from mlforge.maintenance.exporting import export as exported_versions
    from mlforge.store.lakehouse.targets import target_at

    kind = "delta" if args.delta is not None else "iceberg"
    place = args.delta if args.delta is not None else args.iceberg

    def told(version: Version) -> None:
        if sys.stderr.isatty():
            print(f"{args.feature} {version}", file=sys.stderr)

    store = store_to_write_beside(args, lambda made: check_table(made, place, _FILES[kind]))
    exported = exported_versions(store, args.feature, target_at(kind, place), told)
    if args.json:
        versions = [str(version) for version in exported.versions]
        print_json(
            {
                "feature": args.feature,
                "table": f"{kind}:{place}",
                "versions": versions,
                "files": exported.files,
            }
        )
    elif exported.versions:
        count, last = len(exported.versions), exported.versions[-1]
        print(
            f"{plural(count, 'snapshot')} with {plural(exported.files, 'new file')}: {kind}:{place} is {args.feature} {last}"
        )
    else:
        print(f"{kind}:{place} is {args.feature} as it is served already")
    return 0


COMMANDS = (
    Command(
        "export",
        "write a feature's versions to a Delta or Iceberg table",
        _configure,
        export,
        "mlforge export user_spend --delta s3://my-bucket/tables/user_spend",
        "Each version becomes a snapshot of the table, and the last snapshot is the version that is served. An export that is run again "
        "writes what is new; one that was interrupted goes on.",
    ),
)
