"""`mlforge versions` and `inspect`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlforge.cli.command import Command
from mlforge.cli.options import json_option, store_of, store_options, version_number
from mlforge.cli.output import instant, minute, nearby, note, number, print_json, second
from mlforge.cli.style import Styled, style
from mlforge.cli.table import pairs, table
from mlforge.core.dropped import nulls_in_words, rows_in_words
from mlforge.core.text import bump_word, plural

if TYPE_CHECKING:
    from mlforge.core.manifest import ChangeSummary


_HASH = 12  # letters that identify a hash


def _configure_feature(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("feature", help="its name")
    store_options(parser)
    json_option(parser)


def _configure_inspect(parser: argparse.ArgumentParser) -> None:
    _configure_feature(parser)
    parser.add_argument(
        "--version",
        type=version_number,
        metavar="X.Y.Z",
        help="which version (default: the latest)",
    )


def versions(args: argparse.Namespace) -> int:
    """Show a feature's versions, the newest last.

    JSON: `{"feature", "latest", "hold", "versions": [{"version", "created_at", "bump", "reason",
    "details", "rows", "parent", "served", "pinned"}, ...]}`; latest is the one that is served, hold why the
    feature is held (null if it is not).
    """
    from mlforge.registry.versions import versions_document

    store = store_of(args)
    summaries = store.summaries(args.feature)
    document = versions_document(store, args.feature, summaries)
    if args.json:
        print_json(document)
        return 0
    rows = [
        (
            Styled(entry["version"], "green") if entry["served"] else entry["version"],
            minute(entry["created_at"]),
            bump_word(entry["bump"], entry["reason"]),
            number(entry["rows"]),
            ", ".join(mark for mark in ("served", "pinned") if entry[mark]) or None,
            _briefly(summary.change),
        )
        for entry, summary in zip(document["versions"], summaries, strict=True)
    ]
    headers = ("version", "made (UTC)", "bump", "rows", "state", "reason")
    print(table(headers, rows, right=("rows",)))
    if document["hold"]:
        note(f"{args.feature} is held: {document['hold']}", "yellow")
    return 0


def _briefly(change: ChangeSummary | None) -> str | None:
    """`data_refresh: 3 rows`, `logic_changed: 0 rows differ`, `added_columns: 2`, `explicit_version: nothing changed`."""
    if change is None:
        return None
    evidence = change.evidence
    if "rows_differ" in evidence:
        return f"{change.reason}: {plural(evidence['rows_differ'], 'row')} differ"
    if change.reason in ("data_refresh", "first_build"):
        return f"{change.reason}: {plural(evidence.get('rows_changed', 0), 'row')}"
    if change.reason == "explicit_version":
        return ": ".join((change.reason, *change.details))
    return f"{change.reason}: {len(change.details)}" if change.details else change.reason


def inspect(args: argparse.Namespace) -> int:
    """Show one version of a feature.

    JSON: the version's `.meta.json` as it is.
    """
    from mlforge.core.values import Version
    from mlforge.store.manifest_json import to_json

    store = store_of(args)
    manifest = store.read_metadata(args.feature, args.version)
    document = to_json(manifest)
    if args.json:
        print_json(document)
        return 0
    location = store.location(manifest.name, Version.parse(document["version"]))
    print(_page(document, location))
    return 0


def _tables(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """`merchants: dim/merchants.parquet (1f2e3d4c5b6a)`, of each table."""
    texts = {
        name: ", ".join(f"{file['path']} ({file['hash'][:_HASH]})" for file in files)
        for name, files in tables.items()
    }
    return "; ".join(f"{name}: {files}" for name, files in texts.items())


def _page(document: dict[str, Any], location: str) -> str:
    change = document["change_summary"] or {}
    dropped = document["rows_dropped"]
    why = ": ".join(filter(None, [change.get("reason"), ", ".join(change.get("details", []))]))
    facts = [
        ("made", second(document["created_at"])),
        (
            "why",
            f"{bump_word(change.get('bump_type'), change.get('reason'))}, {why}"
            if change
            else None,
        ),
        ("parent", document["parent"]),
        ("rows", number(document["row_count"])),
        ("left out", rows_in_words(dropped) or None),
        ("as null", nulls_in_words(dropped) or None),
        ("keys", ", ".join(document["entity_keys"]) or "none: the whole source is one entity"),
        ("timestamp", document["timestamp"]),
        ("interval", document["interval"]),
        ("watermark", instant(document["watermark"])),
        ("source", f"{document['source']} ({plural(len(document['sources']), 'file')})"),
        ("tables", _tables(document.get("tables", {})) or None),
        ("row-wise", None if document["rowwise"] else f"no: {document['rowwise_reason']}"),
        ("engine", document["engine"]),
        ("data", f"{nearby(location)} ({plural(len(document['parts']), 'part')})"),
        ("content hash", document["content_hash"]),
        ("rows hash", document["rows_hash"]),
        ("code hash", document["code_hash"]),
    ]
    evidence = _evidence(change.get("evidence", {}))
    columns = [
        (column["name"], column["dtype"], column.get("aggregation"), column.get("window"))
        for column in document["columns"]
    ]
    derived = [(column["name"], column["expression"]) for column in document.get("derive", ())]
    return "\n\n".join(
        [
            style(f"{document['name']} {document['version']}", "bold"),
            pairs([(name, value) for name, value in facts if value is not None], indent=2),
            *([f"evidence\n{pairs(evidence, indent=2)}"] if evidence else []),
            table(("column", "dtype", "aggregation", "window"), columns),
            *([table(("derived", "from"), derived)] if derived else []),
        ]
    )


def _evidence(evidence: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The evidence of a change, in words: kind and text."""
    return [
        (kind.replace("_", " "), _shown(value)) for kind, value in evidence.items() if value != []
    ]


def _shown(value: Any) -> str:
    match value:
        case {"count": int(count), "first": list(first)}:  # files, and the names of some
            return f"{count:,}: {_listed(first, count)}"
        case {"to": dtype, "files": dict(counts)}:  # files whose column has a lesser dtype
            return f"{_shown(counts)} to {dtype}"
        case dict():  # by column or dtype: how many files, or more about it
            return ", ".join(
                f"{name} ({plural(of_it, 'file') if isinstance(of_it, int) else _shown(of_it)})"
                for name, of_it in value.items()
            )
        case list():
            return ", ".join(map(str, value))
        case int():
            return f"{value:,}"
    return str(value)[:_HASH]


def _listed(first: Sequence[str], count: int, most: int = 5) -> str:
    shown = first[:most]
    more = f" and {count - len(shown):,} more" if count > len(shown) else ""
    return ", ".join(shown) + more


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
