"""`mlforge explain`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from mlforge.cli.command import Command
from mlforge.cli.options import (
    definitions_option,
    json_option,
    served_definitions_of,
    version_number,
)
from mlforge.cli.output import instant, number, print_json
from mlforge.cli.style import Styled, style
from mlforge.cli.table import pairs, table
from mlforge.core.repeated import first_repeated
from mlforge.core.text import plural, printable
from mlforge.core.values import to_iso, to_us
from mlforge.definitions.environment import REDIS_URL
from mlforge.errors import RetrievalError

if TYPE_CHECKING:
    from mlforge.retrieval.explanation import Bounds, Explanation, Value

_ROWS = 20
_COLUMNS = 4
_WHOLE = "the whole source"
_OPENS = {"both": "[", "left": "[", "right": "(", "none": "("}
_CLOSES = {"both": "]", "right": "]", "left": ")", "none": ")"}
_ANSWERS = {
    True: Styled("yes", "green"),
    False: Styled("no", "red"),
    None: Styled("not known", "yellow"),
}


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("feature", help="its name")
    parser.add_argument(
        "keys",
        nargs="*",
        type=_key,
        metavar="key=value",
        help="the entity, all of its keys; none of a feature without keys",
    )
    parser.add_argument(
        "--at",
        metavar="T",
        help="an instant in ISO 8601, UTC unless it says otherwise (default: that of online values)",
    )
    parser.add_argument(
        "--version",
        type=version_number,
        metavar="X.Y.Z",
        help="which version (default: the latest)",
    )
    definitions_option(parser)
    json_option(parser)


def _key(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise argparse.ArgumentTypeError(f"write {text!r} as key=value, e.g. user_id=1")
    return name, value


def explain(args: argparse.Namespace) -> int:
    """Show each value, its window, the rows in it, their files, and the online value.

    The online store is that of the definitions, else the one at REDIS_URL, else that of a running `up`, else
    none is asked. The exit code is 1 if an online value is not what the offline store gives.

    JSON: `{"feature", "version", "entity", "at", "values": [{"column", "value", "window", "start", "end",
    "closed", "rows", "online", "offline_then", "agrees"}, ...], "rows": [{"file", "windows",
    "values"}, ...], "online": {"version", "as_of", "agrees", "problem"}, "upstream"}`; online is null if none was
    asked, a derived column also has its `expression` and its `inputs`, a column with a default of the feature's also that `default`, a file is null where the function saw the whole source at once; upstream is such a document on the row of
    another feature that the newest row was made from, null where there is none.
    """
    from mlforge.retrieval.explain import explain as explained

    definitions = served_definitions_of(args)
    try:
        explanation = explained(
            args.feature,
            _entity(args.keys),
            definitions.store,
            args.at,
            args.version,
            definitions.online_store,
        )
    finally:
        definitions.close()
    if args.json:
        print_json(explanation.to_json())
    else:
        print(_page(explanation))
    return 1 if explanation.agrees is False else 0


def _entity(keys: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The entity of the keys; RetrievalError for a key that is given twice, as of the two one would be left out."""
    twice = first_repeated(name for name, _ in keys)
    if twice is not None:
        raise RetrievalError(f"key {twice!r} is given twice; explain one entity at a time")
    return dict(keys)


def _page(explanation: Explanation, with_online: bool = True) -> str:
    facts = [(key, value) for key, value in explanation.entity.items()]
    facts += [("at", instant(to_iso(explanation.at)))] if explanation.at is not None else []
    facts += [("online", _online_text(explanation))] if with_online else []
    parts = [
        style(printable(f"{explanation.feature} {explanation.version}"), "bold"),
        pairs(facts, indent=2),
        _values(explanation),
    ]
    windows = dict.fromkeys((v.bounds, v.rows) for v in explanation.values if v.bounds is not None)
    if windows:
        lines = [(b.window, _interval(b), number(rows)) for b, rows in windows]
        parts.append(table(("window", "holds events of", "rows"), lines, right=("rows",)))
    parts += [*_derived(explanation), *_defaults(explanation)]
    parts.append(_rows(explanation))
    if explanation.upstream is not None:
        above = explanation.upstream
        parts.append(f"the newest of these rows was made from a row of {above.feature}:")
        parts.append(_page(above, with_online=False))
    return "\n\n".join(parts)


def _derived(explanation: Explanation) -> list[str]:
    """The expressions of derived columns, with the values that they read."""
    lines = [
        (
            value.column,
            value.expression,
            ", ".join(f"{name} = {_shown(read)}" for name, read in value.inputs.items()),
        )
        for value in explanation.values
        if value.expression is not None
    ]
    return [table(("derived", "from", "of"), lines)] if lines else []


def _defaults(explanation: Explanation) -> list[str]:
    """Defaults that take the place of values which are null."""
    filled = [v for v in explanation.values if v.default is not None and v.value is None]
    lines = [(value.column, _shown(value.default)) for value in filled]
    return [table(("default", "in answers"), lines)] if lines else []


def _online_text(explanation: Explanation) -> str:
    served = explanation.served
    if served is None:
        return f"not asked: the definitions have no online store, {REDIS_URL} is not set, and no `mlforge up` runs here"
    if served.version is None:
        return str(served.problem)
    as_of = f" as of {instant(to_iso(served.as_of))}" if served.as_of is not None else ""
    verdict = {
        True: "agrees with the offline store",
        False: "differs from the offline store",
        None: served.problem or "not all of it can be compared",
    }[explanation.agrees]
    return f"{served.version}{as_of}; {verdict}"


def _values(explanation: Explanation) -> str:
    headers = ["column", "value"]
    served = explanation.served
    is_compared = served is not None and served.version is not None and served.problem is None
    moved = is_compared and (served.version, served.as_of) != (explanation.version, explanation.at)  # type: ignore[union-attr]
    if is_compared:
        headers += [*(["offline then"] if moved else []), "online", "agrees"]
    rows = [_value_cells(value, is_compared, moved) for value in explanation.values]
    return table(headers, rows, right=("value", "offline then", "online"))


def _value_cells(value: Value, is_compared: bool, moved: bool) -> list[object]:
    cells: list[object] = [value.column, _shown(value.value)]
    if is_compared:
        cells += [_shown(value.offline_then)] if moved else []
        cells += [_shown(value.online), _ANSWERS[value.agrees]]
    return cells


def _interval(bounds: Bounds) -> str:
    start, end = instant(to_iso(bounds.start)), instant(to_iso(bounds.end))
    return f"{_OPENS[bounds.closed]}{start}, {end}{_CLOSES[bounds.closed]}"


def _rows(explanation: Explanation) -> str:
    """The newest rows, with the windows that they lie in and the files that they came from."""
    from mlforge.retrieval.lineage import FILE

    if explanation.rows.is_empty():
        return "no rows contribute"
    documents = [
        explanation.row_json(row) for row in explanation.rows.tail(_ROWS).iter_rows(named=True)
    ]
    time, has_windows = explanation.timestamp, bool(documents[-1]["windows"])
    # Without metrics a single row's columns are the values above.
    names = [name for name in explanation.rows.columns if name not in (FILE, time)]
    names = names if has_windows or len(documents) > 1 else []
    shown = names[:_COLUMNS]
    lines = [
        (
            document["file"] or _WHOLE,
            *([instant(document["values"][time])] if time else []),
            *(_shown(document["values"][name]) for name in shown),
            *([", ".join(document["windows"])] if has_windows else []),
        )
        for document in documents
    ]
    headers = ["file", *([time] if time else []), *shown, *(["windows"] if has_windows else [])]
    earlier, columns = explanation.rows.height - len(documents), len(names) - len(shown)
    more = [plural(earlier, "earlier row")] if earlier else []
    more += [plural(columns, "more column")] if columns else []
    note = f"\nand {', '.join(more)}: --json has all" if more else ""
    return table(headers, lines) + note


def _shown(value: object) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, datetime):
        return str(instant(to_iso(to_us(value))))
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return str(value)


COMMANDS = (
    Command(
        "explain",
        "show what a value was made of, and the online value beside it",
        _configure,
        explain,
        "mlforge explain user_spend user_id=1\n"
        "mlforge explain user_spend user_id=1 --at 2026-01-31T10:00:00Z --version 1.0.0",
    ),
)
