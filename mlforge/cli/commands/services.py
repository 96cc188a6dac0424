"""`mlforge services`: the services of a project, and one of them in full."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mlforge.cli.command import Command
from mlforge.cli.commands.show import show_service
from mlforge.cli.options import definitions_of, definitions_option, json_option
from mlforge.cli.output import number, print_json
from mlforge.cli.table import table

if TYPE_CHECKING:
    from mlforge.registry.entries import ServiceEntry


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="SERVICE", help="only this one, in full")
    definitions_option(parser)
    json_option(parser)


def services(args: argparse.Namespace) -> int:
    """Show the services, or one of them in full.

    JSON: `{"services": [{"name", "version", "owner", "description", "features", "keys", "request", "columns", "complete", "max_age"},
    ...]}`; version is the last that is kept, null before the first; request and columns are names, complete is false where some columns follow from data that no version has yet.
    Of one service: what `mlforge show` prints of it.
    """
    from mlforge.registry.catalogue import Registry
    from mlforge.registry.entries import ServiceEntry, document_of
    from mlforge.registry.graph import SERVICE, Node

    registry = Registry.of(definitions_of(args))
    if args.name is not None:
        entry = registry.entry(registry.graph.named(args.name, (SERVICE,)))
        assert isinstance(entry, ServiceEntry)
        print_json(document_of(entry)) if args.json else show_service(entry)
        return 0
    nodes = [Node(SERVICE, name) for name in registry.definitions.services]
    entries = [entry for entry in map(registry.entry, nodes) if isinstance(entry, ServiceEntry)]
    if args.json:
        print_json({"services": [_listed(entry) for entry in entries]})
    elif entries:
        print(_table(entries))
    else:
        print("no service is defined: see Definitions(services=[...])")
    return 0


def _listed(entry: ServiceEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "version": entry.version,
        "owner": entry.owner,
        "description": entry.description,
        "features": list(entry.features),
        "keys": list(entry.keys),
        "request": [column.name for column in entry.request],
        "columns": [column.name for column in entry.columns],
        "complete": entry.complete,
        "max_age": entry.max_age,
    }


def _table(entries: list[ServiceEntry]) -> str:
    rows = [
        (
            entry.name,
            entry.version,
            number(len(entry.columns)) if entry.complete else f"{number(len(entry.columns))}+",
            ", ".join(
                use.feature if use.version is None else f"{use.feature} {use.version}"
                for use in entry.uses
            ),
            ", ".join(entry.keys) or None,
            ", ".join(column.name for column in entry.request) or None,
            entry.owner or None,
        )
        for entry in entries
    ]
    return table(
        ("service", "version", "columns", "features", "keys", "request", "owner"),
        rows,
        ("columns",),
    )


COMMANDS = (
    Command(
        "services",
        "show every service, or the columns, versions and keys of one",
        _configure,
        services,
        "mlforge services\nmlforge services checkout_fraud --json",
    ),
)
