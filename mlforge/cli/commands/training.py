"""`mlforge train` and `release`: training sets of a service, and the versions that are kept for them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mlforge.cli.command import Command
from mlforge.cli.options import (
    definitions_of,
    definitions_option,
    engine_name,
    json_option,
    store_of,
    store_options,
)
from mlforge.cli.output import nearby, number, plural, print_json
from mlforge.cli.table import pairs
from mlforge.errors import DefinitionError, did_you_mean

if TYPE_CHECKING:
    from mlforge.definitions.registry import Definitions
    from mlforge.services.service import Service
    from mlforge.training_sets.training_set import TrainingSet


def _configure_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("service", help="its name")
    parser.add_argument(
        "--spine", required=True, metavar="FILE", help="a parquet file, or a folder of them"
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="the folder to make, which must not exist yet"
    )
    parser.add_argument(
        "--timestamp",
        metavar="COLUMN",
        help="the spine's time column (default: the feature's own name, else the only temporal one)",
    )
    parser.add_argument(
        "--engine", type=engine_name, default="polars", metavar="NAME", help="polars or duckdb"
    )
    definitions_option(parser)
    json_option(parser)


def _configure_release(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="the training set")
    store_options(parser)
    json_option(parser)


def train(args: argparse.Namespace) -> int:
    """Make a training set: the spine's rows with the service's columns.

    JSON: `{"folder", "id", "rows", "parts", "versions": {feature: version}, "spine_hash"}`.
    """
    from mlforge.training_sets.making import training_set

    definitions = definitions_of(args)
    service = _service(definitions, args.service)
    made = training_set(
        args.spine, service, definitions.store, args.out, args.timestamp, args.engine
    )
    if args.json:
        print_json(_document(made))
        return 0
    versions = ", ".join(f"{name} {version}" for name, version in made.versions.items())
    facts = [
        ("rows", f"{number(made.rows)} in {plural(len(made.files), 'file')}"),
        ("columns", number(len(made.columns)) or ""),
        ("versions", versions),
        ("spine hash", made.document.spine_hash),
    ]
    print(f"{nearby(str(made.path))}\n{pairs(facts, indent=2)}")
    return 0


def release(args: argparse.Namespace) -> int:
    """Let prune remove the versions that were kept for a training set.

    JSON: `{"folder", "features": [name, ...]}`: the features of which some were kept.
    """
    from mlforge.training_sets.training_set import TrainingSet

    made = TrainingSet.open(args.folder)
    features = made.release(store_of(args))
    if args.json:
        print_json({"folder": str(made.path), "features": list(features)})
    else:
        kept = ", ".join(features) or "nothing"
        print(f"{nearby(str(made.path))}: no longer keeps versions of {kept}")
    return 0


def _service(definitions: Definitions, name: str) -> Service:
    services = definitions.services
    if name not in services:
        raise DefinitionError(
            f"the definitions have no service {name!r}; {did_you_mean(name, sorted(services))}"
        )
    return services[name]


def _document(made: TrainingSet) -> dict[str, Any]:
    return {
        "folder": str(made.path),
        "id": made.document.id,
        "rows": made.rows,
        "parts": len(made.files),
        "versions": dict(made.versions),
        "spine_hash": made.document.spine_hash,
    }


COMMANDS = (
    Command(
        "train",
        "make a training set of a service: the spine's rows with its columns",
        _configure_train,
        train,
        "mlforge train checkout_fraud --spine spine.parquet --out train/2026-11",
        "The versions that the set was made from stay in the store until 'mlforge release'.",
    ),
    Command(
        "release",
        "let prune remove the versions that a training set was made from",
        _configure_release,
        release,
        "mlforge release train/2026-11",
    ),
)
