"""`mlforge list` and `manifest`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mlforge.cli.command import Command
from mlforge.cli.options import (
    definitions_of,
    definitions_option,
    json_option,
    selection_options,
    store_of,
    store_options,
)
from mlforge.cli.output import minute, note, number, print_json
from mlforge.cli.style import Styled
from mlforge.cli.table import table

if TYPE_CHECKING:
    from mlforge.core.manifest import Manifest
    from mlforge.definitions.registry import Definitions
    from mlforge.features.feature import Feature
    from mlforge.store import Books


STATES = {"ready": "green", "not built": "dim", "not defined": "dim"}


def _configure_list(parser: argparse.ArgumentParser) -> None:
    selection_options(parser)
    definitions_option(parser)
    json_option(parser)


def _configure_manifest(parser: argparse.ArgumentParser) -> None:
    store_options(parser)
    json_option(parser)
    parser.add_argument(
        "--regenerate", action="store_true", help="write it anew from the versions in the store"
    )


def list_features(args: argparse.Namespace) -> int:
    """Show each feature, defined or stored.

    JSON: `{"features": [{"name", "state", "hold", "quarantined", "version", "rows", "updated_at",
    "keys", "timestamp", "interval", "source", "tags", "description", "owner", "engine"}, ...]}`; state is
    ready, held (`hold` says why), quarantined (so many files are), "not built", "not served" (what says which
    version is served was lost: the next build serves the highest) or "not defined";
    what is not known is null.
    """
    definitions = definitions_of(args)
    names = definitions.selected(args.features, args.tags)
    if args.features is None and args.tags is None:
        names += [name for name in definitions.store.features() if name not in names]
    entries = [_entry(definitions, name) for name in names]
    if args.json:
        print_json({"features": entries})
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
        for entry in entries
    ]
    print(
        table(
            ("feature", "version", "rows", "updated (UTC)", "state", "source"),
            rows,
            right=("rows",),
        )
    )
    for entry in entries:
        if entry["state"] == "held":
            note(f"{entry['name']} is held: {entry['hold']}", "yellow")
    return 0


def _entry(definitions: Definitions, name: str) -> dict[str, Any]:
    from mlforge.store.manifest_json import to_json

    feature, latest = definitions.features.get(name), definitions.store.latest(name)
    document = to_json(latest) if latest else None
    books = definitions.store.books(name)
    is_made = latest is None and bool(definitions.store.versions(name))
    return {
        "name": name,
        "state": _state(feature, latest, books, is_made=is_made),
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
        "owner": feature.owner if feature else None,
        "engine": feature.engine if feature else None,
    }


def _state(feature: Feature | None, latest: Manifest | None, books: Books, *, is_made: bool) -> str:
    if feature is None:
        return "not defined"
    if books.hold:
        return "held"
    if books.quarantine:
        return "quarantined"
    if latest is None:
        return "not served" if is_made else "not built"
    return "ready"


def _state_text(entry: dict[str, Any]) -> str:
    bad = entry["state"] == "quarantined"
    return f"{number(entry['quarantined'])} quarantined" if bad else str(entry["state"])


def manifest(args: argparse.Namespace) -> int:
    """Show the store's index, or write it anew from the versions first.

    JSON: `{"features": {name: {"version", "row_count", "entity_keys", "timestamp", "interval",
    "updated_at", "content_hash"}, ...}}`.
    """
    store = store_of(args)
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


COMMANDS = (
    Command(
        "list",
        "show every feature, its latest version and its state",
        _configure_list,
        list_features,
        "mlforge list\nmlforge list --tags daily --json",
    ),
    Command(
        "manifest",
        "show what the store holds, or write its manifest anew",
        _configure_manifest,
        manifest,
        "mlforge manifest --regenerate",
    ),
)
