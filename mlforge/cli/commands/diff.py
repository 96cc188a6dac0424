"""`mlforge diff`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mlforge.cli.command import Command
from mlforge.cli.options import json_option, store_of, store_options, version_number
from mlforge.cli.output import print_json
from mlforge.cli.progress import Progress
from mlforge.cli.style import style
from mlforge.cli.table import pairs, table
from mlforge.core.text import plural

if TYPE_CHECKING:
    from mlforge.build.diff import RowChanges, VersionDiff
    from mlforge.core.manifest import Manifest

# The exit code tells the class of change; 1 and 2 mean that nothing was compared.
EXIT_CODES: dict[str | None, int] = {None: 0, "patch": 10, "minor": 11, "major": 12}


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("feature", help="its name")
    parser.add_argument("a", type=version_number, metavar="A", help="a version")
    parser.add_argument(
        "b", type=version_number, metavar="B", nargs="?", help="another (default: the one served)"
    )
    store_options(parser)
    json_option(parser)


def diff(args: argparse.Namespace) -> int:
    """Compare two versions. Exit code 0 if they mean the same, 10 patch, 11 minor, 12 major.

    JSON: `{"feature", "a", "b", "bump", "reason", "details", "columns": {"added", "removed", "retyped"},
    "config": [{"key", "a", "b"}], "logic_changed", "rows": {"added", "removed", "changed", "sample"}}`;
    sample holds keys of up to ten entities whose rows differ, rows is null where rows cannot be
    matched because the keys or the timestamp differ.
    """
    from mlforge.build import diff as versions

    store = store_of(args)
    before, after = (store.read_metadata(args.feature, version) for version in (args.a, args.b))
    with Progress(f"comparing {before.version} with {after.version}"):
        difference = versions.diff(store, args.feature, str(before.version), str(after.version))
    if args.json:
        print_json(difference.to_json())
    else:
        print(_page(difference, before, after))
    return EXIT_CODES[difference.bump]


def _page(difference: VersionDiff, before: Manifest, after: Manifest) -> str:
    old = {column.name: column.dtype for column in before.columns}
    new = {column.name: column.dtype for column in after.columns}
    columns = [
        *(f"+ {name} {new[name]}" for name in difference.columns.added),
        *(f"- {name} {old[name]}" for name in difference.columns.removed),
        *(f"~ {name} {old[name]} -> {new[name]}" for name in difference.columns.retyped),
    ]
    facts = [
        ("class", f"{difference.bump}, {difference.reason}" if difference.bump else "the same"),
        *[("columns" if index == 0 else "", line) for index, line in enumerate(columns)],
        *[
            (key, f"{_text(a)} -> {_text(b)}")
            for key, a, b in difference.config
            if key not in ("metrics", "derive")
        ],
        ("metrics", ", ".join(_metrics(before, after)) or None),
        *[
            ("derive" if index == 0 else "", line)
            for index, line in enumerate(_derived(before, after))
        ],
        ("logic", "changed" if difference.logic_changed else "the same"),
        ("rows", _rows(difference.rows)),
    ]
    title = style(f"{difference.feature} {difference.a} -> {difference.b}", "bold")
    parts = [title, pairs([(name, fact) for name, fact in facts if fact], indent=2)]
    if difference.rows and difference.rows.sample:
        keys = list(difference.rows.sample[0])
        parts.append(
            "entities with other rows, the first ones:\n"
            + table(keys, [[entity[key] for key in keys] for entity in difference.rows.sample])
        )
    return "\n\n".join(parts)


def _metrics(before: Manifest, after: Manifest) -> list[str]:
    """Metrics whose name stayed and whose meaning changed; metrics that came or went show as columns."""
    old = {metric.name: metric for metric in before.spec.columns}
    new = {metric.name: metric for metric in after.spec.columns}
    return [f"~ {name}" for name in new if name in old and new[name] != old[name]]


def _derived(before: Manifest, after: Manifest) -> list[str]:
    """Derived columns whose name stayed and whose expression changed."""
    old = {column.name: column.expression for column in before.spec.derived}
    return [
        f"~ {column.name}: {old[column.name]} -> {column.expression}"
        for column in after.spec.derived
        if old.get(column.name, column.expression) != column.expression
    ]


def _text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value or "none")


def _rows(rows: RowChanges | None) -> str:
    if rows is None:
        return "not compared: the keys or the timestamp are others"
    counts = [
        f"{plural(count, 'row')} {kind}"
        for kind, count in (
            ("added", rows.added),
            ("removed", rows.removed),
            ("changed", rows.changed),
        )
        if count
    ]
    return ", ".join(counts) or "the same"


COMMANDS = (
    Command(
        "diff",
        "compare two versions; the exit code tells the class of change",
        _configure,
        diff,
        "mlforge diff user_spend 1.0.0 1.1.0\nmlforge diff user_spend 1.0.0   # with what is served",
        "Exit code 0: they mean the same; 10: rows differ (PATCH); 11: MINOR; 12: MAJOR.",
    ),
)
