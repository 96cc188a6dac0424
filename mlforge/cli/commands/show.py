"""`mlforge show`: a feature or a service, what it is made from, who uses it, and what it costs."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from mlforge.cli.command import Command
from mlforge.cli.options import definitions_of, definitions_option, json_option
from mlforge.cli.output import minute, nearby, note, number, print_json
from mlforge.cli.style import style
from mlforge.cli.table import pairs, table
from mlforge.core.text import duration, plural, printable, size

if TYPE_CHECKING:
    from mlforge.definitions.registry import Definitions
    from mlforge.registry.entries import ColumnEntry, Cost, FeatureEntry, ServiceEntry, UseEntry

_VERSIONS = 10


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", help="a feature or a service; feature:NAME where both have the name"
    )
    definitions_option(parser)
    json_option(parser)


def show(args: argparse.Namespace) -> int:
    """Show a feature or a service.

    JSON, of a feature: `{"kind", "name", "defined", "owner", "description", "tags", "keys", "timestamp", "interval", "engine",
    "sources", "tables", "columns": [column, ...], "undescribed", "version", "updated_at", "reason", "versions", "upstream",
    "downstream", "used_by": {"features", "services", "models", "training_sets": [{"id", "folder", "versions", "at"}, ...]},
    "cost": {"table_rows", "table_bytes", "event_rows", "event_bytes"}, "formerly": [name], "keeper", "freshness_ms": {"count", "p50", "p95", "p99"}}`; of a
    service: `{"kind", "name", "owner", "description", "features", "uses": [{"feature", "owner", "version", "fixed",
    "prefix", "keys": {key: name}}, ...], "keys", "request", "columns", "complete", "defaults", "max_age", "upstream", "version", "versions", "keeper"}`. A column is `{"name", "dtype", "aggregation", "window", "offset", "where", "of", "description", "feature", "default"}`. What is not
    known is null.
    """
    from mlforge.registry.catalogue import Registry
    from mlforge.registry.entries import FeatureEntry, document_of
    from mlforge.registry.graph import FEATURE, SERVICE

    registry = Registry.of(definitions_of(args))
    entry = registry.entry(registry.graph.named(args.name, (FEATURE, SERVICE)))
    if not isinstance(entry, FeatureEntry):
        print_json(document_of(entry)) if args.json else show_service(entry)
        return 0
    freshness = _freshness(args, registry.definitions, entry.name)
    if args.json:
        print_json({**document_of(entry), "freshness_ms": freshness})
    else:
        _show_feature(entry, freshness)
    return 0


def _freshness(
    args: argparse.Namespace, definitions: Definitions, feature: str
) -> Mapping[str, float] | None:
    """How long the last drops took to be readable, as a worker's figures have it; None without any."""
    measures = (command.freshness for command in args.all_commands().values())
    figures = (measure(args, definitions, feature) for measure in measures if measure is not None)
    return next((figure for figure in figures if figure is not None), None)


def _show_feature(entry: FeatureEntry, freshness: Mapping[str, float] | None) -> None:
    print(style(printable(f"{entry.name} {entry.version or '(not built)'}"), "bold"))
    facts = [
        ("description", entry.description),
        ("owner", entry.owner),
        ("tags", ", ".join(entry.tags)),
        ("keys", ", ".join(entry.keys) or "none: one entity, the whole source"),
        ("time", _time(entry)),
        ("engine", entry.engine),
        ("made from", ", ".join(entry.sources)),
        (
            "tables",
            "; ".join(f"{name}: {', '.join(texts)}" for name, texts in entry.tables.items()),
        ),
        ("upstream", _names(entry.upstream) if _is_of_feature(entry) else None),
        ("versions", _versions(entry)),
        ("formerly", ", ".join(entry.formerly)),
        ("kept by", entry.keeper),
        ("used by", "; ".join(_users(entry)) or "nobody"),
        ("downstream", _names(entry.downstream) if entry.used_by.features else None),
        *_costs(entry.cost, freshness),
    ]
    print(_facts(facts))
    print(f"\n{_columns(entry.columns)}")
    if not entry.defined:
        note(f"{entry.name} is only stored: the definitions no longer name it", "yellow")
    if entry.version and entry.undescribed:
        note(
            f"columns are described that {entry.version} does not have: {', '.join(entry.undescribed)}",
            "yellow",
        )


def show_service(entry: ServiceEntry) -> None:
    """Print what a service takes, by which versions and keys, and the columns of its answers."""
    version = f" {entry.version}" if entry.version else ""
    print(style(printable(f"{entry.name}{version} (service)"), "bold"))
    facts = [
        ("description", entry.description),
        ("owner", entry.owner),
        ("versions", ", ".join(entry.versions[-_VERSIONS:])),
        ("kept by", entry.keeper),
        ("keys", ", ".join(entry.keys) or None),
        ("request", ", ".join(f"{column.name} {column.dtype}" for column in entry.request)),
        ("defaults", ", ".join(f"{name} = {value}" for name, value in entry.defaults.items())),
        ("max age", entry.max_age),
        ("upstream", _names(entry.upstream)),
    ]
    print(_facts(facts))
    print(f"\n{_features(entry.uses)}")
    print(f"\n{_columns(entry.columns)}")
    if not entry.complete:
        note(
            "some feature has no version with these columns yet: dtypes, and columns that follow from data, are not known",
            "yellow",
        )


def _facts(facts: Iterable[tuple[str, str | None]]) -> str:
    """The facts that there are, a line each."""
    return pairs([(name, value) for name, value in facts if value], indent=2)


def _names(nodes: Iterable[str]) -> str:
    """`user_spend, source purchases/`: features by their names alone."""
    return ", ".join(node.removeprefix("feature:").replace(":", " ", 1) for node in nodes)


def _is_of_feature(entry: FeatureEntry) -> bool:
    return any(node.startswith("feature:") for node in entry.upstream)


def _time(entry: FeatureEntry) -> str | None:
    if entry.timestamp is None:
        return None
    return f"{entry.timestamp}, every {entry.interval}" if entry.interval else entry.timestamp


def _versions(entry: FeatureEntry) -> str | None:
    if entry.version is None:
        return None
    published = f"made {minute(entry.updated_at)} UTC" + (
        f", {entry.reason}" if entry.reason else ""
    )
    return f"{number(len(entry.versions))}; {entry.version} is served, {published}"


def _users(entry: FeatureEntry) -> Iterator[str]:
    used_by = entry.used_by
    by_noun = {"feature": used_by.features, "service": used_by.services, "model": used_by.models}
    for noun, names in by_noun.items():
        if names:
            yield f"{noun}{'s' if len(names) > 1 else ''} {', '.join(names)}"
    for held in used_by.training_sets:
        yield f"training set {nearby(held.folder)} ({', '.join(held.versions)})"


def _costs(cost: Cost | None, freshness: Mapping[str, float] | None) -> Iterator[tuple[str, str]]:
    if cost is not None:
        yield "table", f"{plural(cost.table_rows, 'row')}{_size(cost.table_bytes)}"
        yield "events", f"{plural(cost.event_rows, 'row')}{_size(cost.event_bytes)}"
    if freshness is not None:
        drops = plural(int(freshness["count"]), "drop")
        p50, p95 = duration(freshness["p50"] / 1000), duration(freshness["p95"] / 1000)
        yield "refresh", f"a drop is readable online after {p50} (p50), {p95} (p95); {drops}"


def _size(count: int | None) -> str:
    """`, 12.3 MB`."""
    return "" if count is None else f", {size(count)}"


def _features(uses: Iterable[UseEntry]) -> str:
    """A table of a service's features: each with what joins it to an entity."""
    rows = [
        (
            use.feature,
            f"{use.version} (fixed)" if use.fixed else use.version,
            use.prefix if use.prefix != use.feature else None,
            ", ".join(key if key == name else f"{key} = {name}" for key, name in use.keys.items())
            or "every entity",
            use.owner or None,
        )
        for use in uses
    ]
    return table(("feature", "version", "as", "joined by", "owner"), rows)


def _columns(columns: Iterable[ColumnEntry]) -> str:
    rows = [(column.name, column.dtype, _meaning(column)) for column in columns]
    return table(("column", "dtype", "meaning"), rows)


def _meaning(column: ColumnEntry) -> str | None:
    """`sum of amount over 7d: spent in a week`; a derived column's expression, a service's column in its feature."""
    origin = f"{column.feature}.{column.of}" if column.feature else column.of
    if column.aggregation is not None:
        where = f" where {column.where}" if column.where else ""
        ago = f", {column.offset} ago" if column.offset else ""
        origin = f"{column.aggregation} of {origin}{where} over {column.window}{ago}"
    if column.default is not None:
        default = (
            " ".join(map(str, column.default.values()))
            if isinstance(column.default, dict)
            else column.default
        )
        origin = ", ".join(filter(None, (origin, f"{default} in place of null")))
    return ": ".join(text for text in (origin, column.description) if text) or None


COMMANDS = (
    Command(
        "show",
        "show a feature or a service: columns, users, cost",
        _configure,
        show,
        "mlforge show user_spend\nmlforge show checkout_fraud --json",
    ),
)
