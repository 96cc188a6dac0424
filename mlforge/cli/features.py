"""`mlforge list`, `versions`, `inspect` and `manifest`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mlforge.cli.command import Command
from mlforge.cli.options import definitions_of, definitions_option, json_option, selection_options
from mlforge.cli.output import Styled, nearby, number, pairs, plural, print_json, style, table
from mlforge.values import Version

if TYPE_CHECKING:
    from pathlib import Path

    from mlforge.definitions import Definitions
    from mlforge.features import Feature
    from mlforge.manifest import Manifest
    from mlforge.store import Books


STATES = {"ready": "green", "not built": "dim", "not defined": "dim"}


def _configure(parser: argparse.ArgumentParser) -> None:
    definitions_option(parser)
    json_option(parser)


def _configure_list(parser: argparse.ArgumentParser) -> None:
    selection_options(parser)
    _configure(parser)


def _configure_feature(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("feature", help="its name")
    _configure(parser)


def _configure_inspect(parser: argparse.ArgumentParser) -> None:
    _configure_feature(parser)
    parser.add_argument("--version", metavar="X.Y.Z", help="which version (default: the latest)")


def _configure_manifest(parser: argparse.ArgumentParser) -> None:
    _configure(parser)
    parser.add_argument(
        "--regenerate", action="store_true", help="write it anew from the versions in the store"
    )


def list_features(args: argparse.Namespace) -> int:
    """Show each feature, defined or stored.

    JSON: `{"features": [{"name", "state", "hold", "quarantined", "version", "rows", "updated_at",
    "keys", "timestamp", "interval", "source", "tags", "description", "engine"}, ...]}`; state is
    ready, held (`hold` says why), quarantined (so many files are), "not built" or "not defined";
    what is not known is null.
    """
    definitions = definitions_of(args)
    names = definitions.selected(args.features, args.tags)
    if args.features is None and args.tags is None:
        names += [name for name in definitions.store.features() if name not in names]
    found = [_entry(definitions, name) for name in names]
    if args.json:
        print_json({"features": found})
        return 0
    rows = [
        (
            entry["name"],
            entry["version"],
            number(entry["rows"]),
            minute(entry["updated_at"]),
            Styled(_state_text(entry), STATES.get(entry["state"], "yellow")),
            entry["source"],
        )
        for entry in found
    ]
    print(
        table(
            ("feature", "version", "rows", "updated (UTC)", "state", "source"),
            rows,
            right=("rows",),
        )
    )
    return 0


def _entry(definitions: Definitions, name: str) -> dict[str, Any]:
    feature, latest = definitions.features.get(name), definitions.store.latest(name)
    document = latest.to_json() if latest else None
    books = definitions.store.books(name)
    return {
        "name": name,
        "state": _state(feature, latest, books),
        "hold": books.hold,
        "quarantined": len(books.quarantine),
        "version": document["version"] if document else None,
        "rows": document["row_count"] if document else None,
        "updated_at": document["updated_at"] if document else None,
        "keys": list(feature.spec.keys) if feature else None,
        "timestamp": feature.spec.timestamp if feature else None,
        "interval": str(feature.spec.interval) if feature and feature.spec.interval else None,
        "source": feature.source if feature else None,
        "tags": list(feature.tags) if feature else [],
        "description": feature.description if feature else None,
        "engine": feature.engine if feature else None,
    }


def _state(feature: Feature | None, latest: Manifest | None, books: Books) -> str:
    if feature is None:
        return "not defined"
    if books.hold:
        return "held"
    if books.quarantine:
        return "quarantined"
    return "ready" if latest else "not built"


def _state_text(entry: dict[str, Any]) -> str:
    bad = entry["state"] == "quarantined"
    return f"{number(entry['quarantined'])} quarantined" if bad else str(entry["state"])


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


def manifest(args: argparse.Namespace) -> int:
    """Show the store's index, or write it anew from the versions first.

    JSON: `{"features": {name: {"version", "row_count", "entity_keys", "timestamp", "interval",
    "updated_at", "content_hash"}, ...}}`.
    """
    store = definitions_of(args).store
    if args.regenerate:
        store.regenerate_index()
    entries = store.index()
    if args.json:
        print_json({"features": entries})
        return 0
    rows = [
        (
            name,
            entry["version"],
            number(entry["row_count"]),
            minute(entry["updated_at"]),
            ", ".join(entry["entity_keys"]),
            entry["content_hash"][:12],
        )
        for name, entry in entries.items()
    ]
    headers = ("feature", "version", "rows", "updated (UTC)", "keys", "content")
    print(table(headers, rows, right=("rows",)))
    return 0


def minute(iso: str | None) -> str | None:
    """`2025-01-15 10:00`."""
    return None if iso is None else iso[:16].replace("T", " ")


def second(iso: str | None) -> str | None:
    """`2025-01-15 10:00:00`."""
    return None if iso is None else iso[:19].replace("T", " ")


def instant(iso: str | None) -> str | None:
    """`2025-01-15 10:00:00`, with microseconds where there are some."""
    exact = iso is not None and iso[19:].strip(".0Z")
    return iso.removesuffix("Z").replace("T", " ") if iso and exact else second(iso)


COMMANDS = (
    Command(
        "list",
        "show every feature, its latest version and its state",
        _configure_list,
        list_features,
        "mlforge list\nmlforge list --tags daily --json",
    ),
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
    Command(
        "manifest",
        "show what the store holds, or write its manifest anew",
        _configure_manifest,
        manifest,
        "mlforge manifest --regenerate",
    ),
)
