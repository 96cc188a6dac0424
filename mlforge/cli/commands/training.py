"""`mlforge train`, `blast` and `release`: training sets of a service, what changes did to them, the versions kept for them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlforge.cli.command import Command
from mlforge.cli.options import (
    definitions_of,
    definitions_option,
    engine_name,
    json_option,
    store_of,
    store_options,
    store_to_write_beside,
)
from mlforge.cli.output import nearby, note, number, print_json
from mlforge.cli.table import pairs, table
from mlforge.core.paths import real_path_of
from mlforge.core.text import plural
from mlforge.errors import RetrievalError

if TYPE_CHECKING:
    from mlforge.retrieval.labels import Ahead
    from mlforge.retrieval.references import Reference
    from mlforge.services.service import Service
    from mlforge.store import Store
    from mlforge.training_sets.blast import BlastRadius
    from mlforge.training_sets.training_set import TrainingSet


def _configure_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("service", help="its name")
    rows = parser.add_mutually_exclusive_group(required=True)
    rows.add_argument("--spine", metavar="FILE", help="a parquet file, or a folder of them")
    rows.add_argument(
        "--events-of",
        metavar="FEATURE",
        help="make the spine of a feature's events, or of those of a prefix that the service reads one under",
    )
    parser.add_argument(
        "--every",
        metavar="1d",
        help="with --events-of: a row for each entity at each tick (default: at each of its events)",
    )
    parser.add_argument(
        "--from",
        dest="since",
        metavar="INSTANT",
        help="with --events-of: the first instant (default: that of the first event)",
    )
    parser.add_argument(
        "--to",
        dest="until",
        metavar="INSTANT",
        help="with --events-of: the end, left out (default: up to the newest event)",
    )
    parser.add_argument(
        "--label",
        dest="labels",
        action="append",
        default=[],
        type=label_parts,
        metavar="NAME=FEATURE:COLUMN:AGGREGATION:HORIZON[:WHERE]",
        help="a column of events ahead, as in spend_ahead=user_spend:amount:sum:30d; may be given several times",
    )
    parser.add_argument(
        "--known-at", metavar="INSTANT", help="read the versions that the store had then"
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help="the folder to make, which must not exist yet, or an address in a bucket",
    )
    parser.add_argument(
        "--timestamp",
        metavar="COLUMN",
        help="the spine's time column (default: the feature's own name, else the only temporal one)",
    )
    parser.add_argument(
        "--part-rows",
        type=int,
        metavar="N",
        help="how many rows are joined at a time, and are in each file (default: 75,000)",
    )
    parser.add_argument(
        "--engine", type=engine_name, default="polars", metavar="NAME", help="polars or duckdb"
    )
    definitions_option(parser)
    json_option(parser)


def label_parts(text: str) -> tuple[str, list[str]]:
    """The name and the parts of a label, four or five."""
    name, _, rest = text.partition("=")
    parts = rest.split(":")
    if not name or len(parts) not in (4, 5) or not all(parts):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no label; write NAME=FEATURE:COLUMN:AGGREGATION:HORIZON, as in "
            "spend_ahead=user_spend:amount:sum:30d"
        )
    return name, parts


def _configure_blast(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="the training set")
    parser.add_argument(
        "--rows",
        metavar="FILE",
        help="a parquet file to write: the number of each row that differs, its columns and files",
    )
    store_options(parser)
    json_option(parser)


def _configure_release(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="the training set")
    store_options(parser)
    json_option(parser)


def train(args: argparse.Namespace) -> int:
    """Make a training set: the spine's rows, or those of a feature's events, with the service's columns and labels.

    JSON: `{"folder", "id", "rows", "parts", "versions": {feature: version}, "spine_hash"}`, and `"labels": {name: rows}`, how
    many rows of each are null as their horizon is not over, where there are labels.
    """
    from mlforge.definitions.runners import distribution_of
    from mlforge.definitions.services import service_named
    from mlforge.definitions.sources import check_output
    from mlforge.training_sets.making import PART_ROWS, training_set
    from mlforge.training_sets.writing import part_name

    definitions = definitions_of(args)
    check_output(definitions, args.out, part_name(0), may_be_source=True)
    service = service_named(definitions.services, args.service, definitions.store)
    stored_set = training_set(
        _spine_of(args, service),
        service,
        definitions.store,
        args.out,
        args.timestamp,
        args.engine,
        PART_ROWS if args.part_rows is None else args.part_rows,
        labels=_labels(args.labels, service),
        known_at=args.known_at,
        runner=distribution_of(definitions, definitions.settings.engine),
    )
    if args.json:
        print_json(_document(stored_set))
        return 0
    versions = ", ".join(f"{name} {version}" for name, version in stored_set.versions.items())
    facts = [
        ("rows", f"{number(stored_set.rows)} in {plural(len(stored_set.files), 'file')}"),
        ("columns", number(len(stored_set.columns)) or ""),
        ("versions", versions),
        ("spine hash", stored_set.document.spine_hash),
    ]
    facts += [
        (f"label {label.name}", f"{plural(label.unknown, 'row')} unknown yet")
        for label in stored_set.document.labels
    ]
    print(f"{nearby(stored_set.address)}\n{pairs(facts, indent=2)}")
    return 0


def _spine_of(args: argparse.Namespace, service: Service) -> Any:
    """The spine's path, or the feature of whose events it is made."""
    from mlforge.training_sets.event_spines import events_of

    options = {"--every": args.every, "--from": args.since, "--to": args.until}
    if args.events_of is None:
        for name, value in options.items():
            if value is not None:
                raise RetrievalError(
                    f"{name} says which rows are made of a feature's events; give --events-of FEATURE, not --spine"
                )
        return args.spine
    spine = events_of(args.events_of, every=args.every, between=(args.since, args.until))
    return replace(spine, reference=_reference(args.events_of, service))


def _labels(parts_of: Sequence[tuple[str, list[str]]], service: Service) -> dict[str, Ahead]:
    """The labels by name; RetrievalError for two of one name."""
    from mlforge.retrieval.labels import ahead

    labels: dict[str, Ahead] = {}
    for name, (feature, *parts) in parts_of:
        if name in labels:
            raise RetrievalError(f"--label: two labels are named {name!r}; rename one of them")
        labels[name] = replace(ahead(feature, *parts), reference=_reference(feature, service))
    return labels


def _reference(name: str, service: Service) -> Reference:
    """The feature of a prefix under which the service reads one, with its keys there, or else the feature of that name."""
    from mlforge.retrieval.references import Reference, parse_references

    for use in parse_references(service.features):
        if use.prefix == name:
            return Reference(use.name, renamed=use.renamed)
    return Reference(name)


def blast(args: argparse.Namespace) -> int:
    """Tell which rows of a training set would differ if it were made again today, and because of which files.

    JSON: `{"folder", "rows", "differing", "columns": {column: rows}, "files": {file: rows}, "versions": {feature: {"then",
    "now"}}, "redefined": [feature, ...], "unlike": {column: reason}, "looked_at"}`, and `"spine": {"then", "now"}` where the
    spine was made of the events of a feature that has another version.
    """
    from mlforge.training_sets.training_set import TrainingSet

    store = store_of(args) if args.rows is None else _store_beside_rows(args)
    stored_set = TrainingSet.open(args.folder, store)
    radius = stored_set.blast_radius(store)
    if args.rows is not None:
        try:
            radius.rows.write_parquet(args.rows)
        except OSError as error:
            raise RetrievalError(
                f"--rows {args.rows} cannot be written ({error.strerror or error}); name a file in a folder that is there"
            ) from error
    if args.json:
        print_json(_radius_document(stored_set, radius))
    else:
        _show_radius(stored_set, radius)
    return 0


def _store_beside_rows(args: argparse.Namespace) -> Store:
    """The store, once the file of `--rows` lies in no source, no store, and not in the set."""
    from mlforge.definitions.sources import check_output
    from mlforge.store.apart import check_in_no_store

    if real_path_of(args.rows).is_relative_to(real_path_of(args.folder)):
        raise RetrievalError(f"--rows {args.rows} lies in the set itself; name a file beside it")
    check_in_no_store(args.rows)
    return store_to_write_beside(args, lambda made: check_output(made, args.rows))


def _radius_document(stored_set: TrainingSet, radius: BlastRadius) -> dict[str, Any]:
    return {
        "folder": stored_set.address,
        "rows": stored_set.rows,
        "differing": radius.rows.height,
        "columns": dict(radius.by_column),
        "files": dict(radius.by_file),
        "versions": {
            name: {"then": then, "now": now} for name, (then, now) in radius.versions.items()
        },
        "redefined": list(radius.redefined),
        "unlike": dict(radius.unlike),
        "looked_at": radius.looked_at,
        **(
            {}
            if radius.spine is None
            else {"spine": dict(zip(("then", "now"), radius.spine, strict=True))}
        ),
    }


def _show_radius(stored_set: TrainingSet, radius: BlastRadius) -> None:
    of = f"{number(radius.rows.height)} of {plural(stored_set.rows, 'row')} would differ today"
    note(
        f"{nearby(stored_set.address)}: {of if radius.rows.height else 'no row would differ today'}"
    )
    versions = [f"{name} {then} -> {now}" for name, (then, now) in radius.versions.items()]
    if radius.spine is not None:
        note(
            "the spine is made of the events of another version today "
            f"({' -> '.join(radius.spine)}): rows may come and go, which are not counted",
            "yellow",
        )
    if versions:
        facts = [("versions", ", ".join(versions)), ("looked at", plural(radius.looked_at, "row"))]
        print(pairs(facts, indent=2))
    for header, counts in (("column", radius.by_column), ("file", radius.by_file)):
        if counts:
            rows = [(name, number(count)) for name, count in counts.items()]
            print(f"\n{table((header, 'rows'), rows, right=('rows',))}")
    for name in radius.redefined:
        note(f"{name} is defined in another way than when the set was made", "yellow")
    for column, why in radius.unlike.items():
        note(f"{column} cannot be compared: {why}", "yellow")


def release(args: argparse.Namespace) -> int:
    """Let prune remove the versions that were kept for a training set.

    JSON: `{"folder", "features": [name, ...]}`: the features of which some were kept.
    """
    from mlforge.training_sets.training_set import TrainingSet

    store = store_of(args)
    stored_set = TrainingSet.open(args.folder, store)
    features = stored_set.release(store)
    if args.json:
        print_json({"folder": stored_set.address, "features": list(features)})
    else:
        kept = ", ".join(features) or "nothing"
        print(f"{nearby(stored_set.address)}: no longer keeps versions of {kept}")
    return 0


def _document(stored_set: TrainingSet) -> dict[str, Any]:
    return {
        "folder": stored_set.address,
        "id": stored_set.document.id,
        "rows": stored_set.rows,
        "parts": len(stored_set.files),
        "versions": dict(stored_set.versions),
        "spine_hash": stored_set.document.spine_hash,
        **(
            {"labels": {each.name: each.unknown for each in stored_set.document.labels}}
            if stored_set.document.labels
            else {}
        ),
    }


COMMANDS = (
    Command(
        "train",
        "make a training set of a service: the rows of a spine, or of events, with its columns",
        _configure_train,
        train,
        "mlforge train checkout_fraud --spine spine.parquet --out train/2026-11\n"
        "mlforge train churn --events-of user_spend --every 1d --from 2026-01-01 --to 2026-03-01 "
        "--label spend_ahead=user_spend:amount:sum:30d --out train/churn",
        "The versions that the set was made from stay in the store until 'mlforge release'. A spine of more rows than the definitions' "
        "distribute_above is shared by their runner.",
    ),
    Command(
        "blast",
        "tell which rows of a training set would differ today, and because of which files",
        _configure_blast,
        blast,
        "mlforge blast train/2026-11",
        "Today are the versions that the store serves now. Rows that no change can reach are not computed again.",
    ),
    Command(
        "release",
        "let prune remove the versions that a training set was made from",
        _configure_release,
        release,
        "mlforge release train/2026-11",
    ),
)
