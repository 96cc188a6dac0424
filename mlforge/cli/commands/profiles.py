"""`mlforge profile` and `drift`: what the values of a feature are like, and how far they have moved."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mlforge.cli.command import Command
from mlforge.cli.options import json_option, store_of, store_options, version_number
from mlforge.cli.output import note, number, print_json
from mlforge.cli.style import Styled, style
from mlforge.cli.table import table
from mlforge.core.text import plural

if TYPE_CHECKING:
    from mlforge.profiles.column_profile import ColumnProfile

_TOP_SHOWN = 3
_LOOKS = {"drifted": "red", "moved": "yellow", "steady": "green", "unknown": None}


def _configure_profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("feature", help="its name")
    parser.add_argument(
        "version", type=version_number, nargs="?", metavar="X.Y.Z", help="default: the one served"
    )
    store_options(parser)
    json_option(parser)


def _configure_drift(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("feature", help="its name")
    sides = "a version, a range of time (2026-10-01..2026-11-01), or the folder of a training set"
    parser.add_argument(
        "a", nargs="?", metavar="A", help=f"{sides} (default: the version before B)"
    )
    parser.add_argument("b", nargs="?", metavar="B", help="another (default: the version served)")
    store_options(parser)
    json_option(parser)


def profile(args: argparse.Namespace) -> int:
    """Show what the values of each column of a version are like.

    JSON: `{"feature", "version", "rows", "columns": [{"name", "dtype", "rows", "nulls", "nans", "infinities", "distinct",
    "distinct_is_exact", "least", "greatest", "mean", "std", "top": [{"value", "rows"}], "histogram": [{"from", "to", "rows"}]}]}`.
    """
    from mlforge.profiles.document import profile_document
    from mlforge.profiles.table import profile_version

    store = store_of(args)
    manifest = store.resolve(args.feature, args.version)
    profiles = profile_version(store, manifest)
    if args.json:
        print_json(profile_document(manifest, profiles))
        return 0
    print(style(f"{args.feature} {manifest.version}: {plural(manifest.row_count, 'row')}", "bold"))
    rows = [
        (
            name,
            _share(each.null_rate),
            f"{'' if each.is_complete else '~'}{each.distinct:,}",
            _figure(_shown(each.least, each)),
            _figure(each.mean),
            _figure(each.std),
            _figure(_shown(each.greatest, each)),
            _frequent(each),
        )
        for name, each in profiles.items()
    ]
    headers = ("column", "null", "distinct", "least", "mean", "std", "greatest", "most frequent")
    print(table(headers, rows, right=headers[1:3]))
    return 0


def drift(args: argparse.Namespace) -> int:
    """Show how far a feature's columns have moved from A to B; rows whose windows are still warming up are left out.

    JSON: `{"feature", "a", "b", "columns": [{"name", "verdict", "psi", "null_psi", "ks", "null_rate_a", "null_rate_b", "values_a", "values_b",
    "reason"}]}`; verdict is drifted (psi or null_psi from 0.2 on), moved (from 0.1 on), steady, or unknown (fewer than 100 rows on a
    side, or values that do not compare).
    """
    from mlforge.training_sets.drift import drift as drift_between

    moved = drift_between(store_of(args), args.feature, args.a, args.b)
    if args.json:
        print_json(moved.to_json())
        return 0
    print(style(f"{moved.feature}: from {moved.a} to {moved.b}", "bold"))
    rows = [
        (
            column.column,
            Styled(column.verdict(), _LOOKS[column.verdict()]),
            _fixed(column.psi),
            _fixed(column.ks),
            f"{_share(column.null_rates[0])} -> {_share(column.null_rates[1])}",
            f"{number(column.values[0])} -> {number(column.values[1])}",
        )
        for column in moved.columns
    ]
    print(table(("column", "verdict", "psi", "ks", "null", "values"), rows, right=("psi", "ks")))
    for column in moved.columns:
        if column.reason is not None:
            note(f"{column.column}: {column.reason}", "dim")
    return 0


def _shown(value: Any, profile: ColumnProfile) -> Any:
    from mlforge.profiles.codec import shown

    return shown(value, profile)


def _frequent(profile: ColumnProfile) -> str | None:
    """The most frequent values with their rows, if some come more than once; of a sample only where all are counted."""
    top = [each for each in profile.top(_TOP_SHOWN) if each.rows > 1]
    if not top or not profile.is_complete:
        return None
    return ", ".join(f"{_figure(_shown(each.value, profile))} ({each.rows:,})" for each in top)


def _figure(value: Any) -> str | None:
    """A value in few letters: floats with six digits, instants without trailing zeros."""
    if value is None:
        return None
    if isinstance(value, float):
        return f"{value:.6g}"
    return (
        str(value).replace("T", " ").removesuffix(".000000Z") if _is_instant(value) else str(value)
    )


def _is_instant(value: Any) -> bool:
    return isinstance(value, str) and value.endswith(".000000Z")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _fixed(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


COMMANDS = (
    Command(
        "profile",
        "show what the values of a feature's columns are like",
        _configure_profile,
        profile,
        "mlforge profile user_spend\nmlforge profile user_spend 1.0.3 --json",
    ),
    Command(
        "drift",
        "show how far the values of a feature's columns have moved",
        _configure_drift,
        drift,
        "mlforge drift user_spend\nmlforge drift user_spend train/2026-11 2026-11-01..",
        about="A column has drifted from a population stability index (psi) of 0.2 on.",
    ),
)
