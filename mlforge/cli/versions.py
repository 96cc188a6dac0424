"""`mlforge versions` and `inspect`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mlforge.cli.command import Command
from mlforge.cli.options import definitions_of, definitions_option, json_option
from mlforge.cli.output import (
    Styled,
    instant,
    nearby,
    number,
    pairs,
    plural,
    print_json,
    second,
    style,
    table,
)
from mlforge.values import Version

if TYPE_CHECKING:
    from pathlib import Path

    from mlforge.manifest import Manifest


def _configure_feature(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("feature", help="its name")
    definitions_option(parser)
    json_option(parser)


def _configure_inspect(parser: argparse.ArgumentParser) -> None:
    _configure_feature(parser)
    parser.add_argument("--version", metavar="X.Y.Z", help="which version (default: the latest)")


def versions(args: argparse.Namespace) -> int:
    """Show a feature's versions, the newest last.

    JSON: `{"feature", "latest", "versions": [{"version", "created_at", "bump", "reason", "details",
    "rows", "parent"}, ...]}`.
    """
    store = definitions_of(args).store
    found = [store.read_metadata(args.feature, text) for text in store.list_versions(args.feature)]
    latest = store.read_metadata(args.feature)
    if args.json:
        print_json(
            {
                "feature": args.feature,
                "latest": str(latest.version),
                "versions": [_version(manifest) for manifest in found],
            }
        )
        return 0
    rows = []
    for entry in map(_version, found):
        is_latest = entry["version"] == str(latest.version)
        name = f"{entry['version']}{' *' if is_latest else ''}"
        rows.append(
            (
                Styled(name, "green") if is_latest else name,
                second(entry["created_at"]),
                entry["bump"],
                number(entry["rows"]),
                _why(entry["reason"], entry["details"], most=2),
            )
        )
    print(table(("version", "made (UTC)", "bump", "rows", "reason"), rows, right=("rows",)))
    print(style("* is what is served", "dim"))
    return 0


def _version(manifest: Manifest) -> dict[str, Any]:
    change = manifest.change
    document = manifest.to_json()
    return {
        "version": document["version"],
        "created_at": document["created_at"],
        "bump": change.bump_type if change else None,
        "reason": change.reason if change else None,
        "details": list(change.details) if change else [],
        "rows": manifest.row_count,
        "parent": document["parent"],
    }


def _why(reason: str | None, details: list[str], most: int | None = None) -> str:
    """`added_columns: a, b and 3 more`."""
    shown = details[:most]
    more = len(details) - len(shown)
    listed = ", ".join(shown) + (f" and {more} more" if more else "")
    return ": ".join(filter(None, [reason, listed]))


def inspect(args: argparse.Namespace) -> int:
    """Show one version of a feature.

    JSON: the version's `.meta.json` as it is.
    """
    store = definitions_of(args).store
    found = store.read_metadata(args.feature, args.version)
    document = found.to_json()
    if args.json:
        print_json(document)
        return 0
    data = store.data(found.name, Version.parse(document["version"]))
    print(_page(document, data))
    return 0


def _page(document: dict[str, Any], data: Path) -> str:
    change = document["change_summary"] or {}
    dropped = [f"{number(n)} {why}" for why, n in document["rows_dropped"].items()]
    why = _why(change.get("reason"), change.get("details", []))
    facts = [
        ("made", second(document["created_at"])),
        ("why", f"{change.get('bump_type')}, {why}" if change else None),
        ("parent", document["parent"]),
        ("rows", number(document["row_count"])),
        ("left out", ", ".join(dropped) or None),
        ("keys", ", ".join(document["entity_keys"])),
        ("timestamp", document["timestamp"]),
        ("interval", document["interval"]),
        ("watermark", instant(document["watermark"])),
        ("source", f"{document['source']} ({plural(len(document['sources']), 'file')})"),
        ("engine", document["engine"]),
        ("data", f"{nearby(data)} ({plural(len(document['parts']), 'part')})"),
        ("content hash", document["content_hash"]),
        ("rows hash", document["rows_hash"]),
        ("code hash", document["code_hash"]),
    ]
    columns = [
        (column["name"], column["dtype"], column.get("aggregation"), column.get("window"))
        for column in document["columns"]
    ]
    return "\n\n".join(
        [
            style(f"{document['name']} {document['version']}", "bold"),
            pairs([(name, value) for name, value in facts if value is not None], indent=2),
            table(("column", "dtype", "aggregation", "window"), columns),
        ]
    )


COMMANDS = (
    Command(
        "versions",
        "show a feature's versions and why each was made",
        _configure_feature,
        versions,
        "mlforge versions user_spend",
    ),
    Command(
        "inspect",
        "show one version of a feature in full",
        _configure_inspect,
        inspect,
        "mlforge inspect user_spend --version 1.0.0",
    ),
)
