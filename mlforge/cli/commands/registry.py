"""`mlforge search`, `lineage` and `owners`: what a project has, what it is made from, and who answers for it."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mlforge.cli.command import Command
from mlforge.cli.options import definitions_of, definitions_option, json_option
from mlforge.cli.output import nearby, note, print_json
from mlforge.cli.style import Styled, style
from mlforge.cli.table import table
from mlforge.cli.wrap import hard_wrap
from mlforge.core.text import printable
from mlforge.errors import near_names
from mlforge.registry.graph import FEATURE, KINDS, SERVICE, SET, TABLE, Graph, Node

if TYPE_CHECKING:
    from mlforge.registry.catalogue import Registry
    from mlforge.registry.search import Hit

_SHOWN = 3
_NARROWEST, _MORE = 20, "    "


def _configure_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", nargs="+", help="words; all of them are to be found")
    definitions_option(parser)
    json_option(parser)


def _configure_owners(parser: argparse.ArgumentParser) -> None:
    definitions_option(parser)
    json_option(parser)


def _configure_lineage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        nargs="?",
        metavar="X",
        help="a feature, service, source, training set or exported table: only what it is made from, and what is made from it",
    )
    definitions_option(parser)
    shape = parser.add_mutually_exclusive_group()
    json_option(shape)
    shape.add_argument("--mermaid", action="store_true", help="print a Mermaid flow chart")
    shape.add_argument(
        "--openlineage", action="store_true", help="print OpenLineage events, one a line"
    )


def search(args: argparse.Namespace) -> int:
    """Find features and services by their names, columns, descriptions, owners, tags, keys and sources.

    JSON: `{"text", "results": [{"kind", "name", "owner", "description", "matches": [{"field", "text"}, ...]}, ...]}`, the
    likeliest first.
    """
    from mlforge.registry.search import search as hits_of

    registry, text = _registry(args), " ".join(args.text)
    hits = hits_of(registry.entries().values(), text)
    if args.json:
        print_json({"text": text, "results": [_hit_json(hit) for hit in hits]})
        return 0
    if not hits:
        near = near_names(text, [node.name for node in registry.graph.nodes])
        advice = f"; did you mean {' or '.join(near)}?" if near else ""
        note(f"nothing has all words of {text!r}{advice}")
        return 0
    rows = [
        (hit.entry.name, hit.entry.kind, hit.entry.owner or None, "; ".join(_matches(hit)))
        for hit in hits
    ]
    print(table(("name", "kind", "owner", "matches"), rows))
    return 0


def _matches(hit: Hit) -> Iterator[str]:
    """The first places where the words are, without the name, which is shown in any case."""
    texts = [f"{match.field}: {match.text}" for match in hit.matches if match.field != "name"]
    yield from texts[:_SHOWN]
    if len(texts) > _SHOWN:
        yield f"{len(texts) - _SHOWN} more"


def _hit_json(hit: Hit) -> dict[str, Any]:
    entry = hit.entry
    return {
        "kind": entry.kind,
        "name": entry.name,
        "owner": entry.owner,
        "description": entry.description,
        "matches": [{"field": match.field, "text": match.text} for match in hit.matches],
    }


def owners(args: argparse.Namespace) -> int:
    """Show who answers for which features and services.

    JSON: `{"owners": [{"owner", "features": [name, ...], "services": [name, ...]}, ...]}`; the owner of those that have none
    is null.
    """
    entries = [
        {
            "owner": owner or None,
            "features": [node.name for node in nodes if node.kind == FEATURE],
            "services": [node.name for node in nodes if node.kind == SERVICE],
        }
        for owner, nodes in _registry(args).owners().items()
    ]
    if args.json:
        print_json({"owners": entries})
        return 0
    rows = [
        (
            entry["owner"] or Styled("(nobody)", "yellow"),
            ", ".join(entry["features"] or ()) or None,
            ", ".join(entry["services"] or ()) or None,
        )
        for entry in entries
    ]
    print(table(("owner", "features", "services"), rows))
    return 0


def lineage(args: argparse.Namespace) -> int:
    """Show what is made from what: sources, features, services, models, training sets, exported tables.

    JSON: `{"nodes": [{"kind", "name", "version"}, ...], "edges": [{"from", "to"}, ...]}`; kind is source, feature, service, model,
    set or table, from and to are `kind:name`, and version is the served one of a feature, else null.
    """
    registry = _registry(args)
    graph = registry.graph
    if args.name is not None:
        graph = graph.around(graph.named(args.name))
    if args.openlineage:
        from mlforge.registry.openlineage import events

        definitions = registry.definitions
        entries = registry.entries(graph)
        for event in events(graph, entries, definitions.name, definitions.root):
            print(json.dumps(event, ensure_ascii=False))
        return 0
    versions = _versions(registry, graph)
    if args.mermaid:
        from mlforge.registry.mermaid import flow_chart

        print(flow_chart(graph, versions))
    elif args.json:
        print_json(_graph_json(graph, versions))
    else:
        print("\n".join(_tree(graph, versions)) or "nothing is defined or stored yet")
    return 0


def _versions(registry: Registry, graph: Graph) -> dict[str, str]:
    """The served versions of the graph's features that have one."""
    store = registry.definitions.store
    pointers = {node.name: store.pointer(node.name) for node in graph.nodes if node.kind == FEATURE}
    return {name: str(pointer.version) for name, pointer in pointers.items() if pointer}


def _graph_json(graph: Graph, versions: dict[str, str]) -> dict[str, Any]:
    return {
        "nodes": [
            {"kind": node.kind, "name": node.name, "version": _version(node, versions)}
            for node in graph.nodes
        ],
        "edges": [{"from": str(origin), "to": str(product)} for origin, product in graph.edges],
    }


def _version(node: Node, versions: dict[str, str]) -> str | None:
    return versions.get(node.name) if node.kind == FEATURE else None


def _tree(graph: Graph, versions: dict[str, str]) -> Iterator[str]:
    """Lines of the graph from its roots on, each below one that it is made from; what is told once is not told again."""
    width = shutil.get_terminal_size().columns - len(_MORE)
    told: set[Node] = set()
    ahead = [(node, 0) for node in reversed(graph.roots)]
    while ahead:
        node, depth = ahead.pop()
        below = graph.users(node)
        again = node in told and bool(below)
        version = _version(node, versions)
        kind = KINDS[node.kind] if node.kind != FEATURE else version or "not built"
        words = printable(f"{_place(node)} ({kind}{'; see above' if again else ''})")
        indent = "  " * depth
        first, *more = hard_wrap(words, max(width - len(indent), _NARROWEST))
        yield indent + (style(first, "bold") if depth == 0 else first)
        yield from (f"{indent}{_MORE}{line}" for line in more)
        if node not in told:
            told.add(node)
            ahead += [(user, depth + 1) for user in reversed(below)]


def _place(node: Node) -> str:
    if node.kind == TABLE:
        format, _, place = node.name.partition(":")
        return f"{format}:{nearby(place)}"
    return nearby(node.name) if node.kind == SET else node.name


def _registry(args: argparse.Namespace) -> Registry:
    from mlforge.registry.catalogue import Registry

    return Registry.of(definitions_of(args))


COMMANDS = (
    Command(
        "search",
        "find features, services and their columns by words",
        _configure_search,
        search,
        "mlforge search spend\nmlforge search weekly amount --json",
    ),
    Command(
        "lineage",
        "show what is made from what",
        _configure_lineage,
        lineage,
        "mlforge lineage user_spend\nmlforge lineage --mermaid",
        "Events for OpenLineage need the extra 'openlineage'.",
    ),
    Command(
        "owners",
        "show who answers for which features and services",
        _configure_owners,
        owners,
        "mlforge owners",
    ),
)
