"""`mlforge rename OLD NEW`: another name for a feature."""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import TYPE_CHECKING

from mlforge.cli.command import Command
from mlforge.cli.deeds import note_deeds
from mlforge.cli.options import definitions_option, json_option, served_definitions_of
from mlforge.cli.output import confirmed, note, number, print_json, stdout_is_ours
from mlforge.core.text import plural
from mlforge.errors import MlforgeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlforge.definitions.registry import Definitions
    from mlforge.registry.renaming import Renamed


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", metavar="OLD", help="the feature's name")
    parser.add_argument("after", metavar="NEW", help="the name that it gets")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    definitions_option(parser)
    json_option(parser)


def rename(args: argparse.Namespace) -> int:
    """Give a feature another name, with its versions and all else that is kept of it.

    JSON: `{"before", "after", "versions": [version, ...], "rows", "services": [name, ...]}`: the versions that it has, the rows
    written online under the new name (null without an online store), and the services of the definitions that name it.
    """
    from mlforge.registry.deeds import RENAMED
    from mlforge.registry.renaming import check_renameable
    from mlforge.registry.renaming import rename as rename_feature

    definitions = served_definitions_of(args)
    with closing(definitions), stdout_is_ours():
        check_renameable(definitions, args.before, args.after)
        question = f"rename {args.before} to {args.after} in {definitions.store}?"
        if not args.yes and not confirmed(question):
            raise MlforgeError("nothing was renamed; --yes renames without asking")
        renamed = rename_feature(definitions, args.before, args.after)
        note_deeds(args, definitions, RENAMED, [(renamed.after, {"before": renamed.before})])
    if args.json:
        document = {
            "before": renamed.before,
            "after": renamed.after,
            "versions": list(renamed.versions),
            "rows": renamed.rows,
            "services": list(renamed.services),
        }
        print_json(document)
        return 0
    online = "" if renamed.rows is None else f", {number(renamed.rows)} rows written online"
    print(f"{renamed.after}: {plural(len(renamed.versions), 'version')}{online}")
    for text in _notes(definitions, renamed):
        note(text)
    return 0


def _notes(definitions: Definitions, renamed: Renamed) -> Iterator[str]:
    """Sentences on what is left to the person who asked."""
    before, after = renamed.before, renamed.after
    if before in definitions.features:
        yield (
            f"the definitions still say {before}: let the function have the name {after}, or write "
            f"@feature(name={after!r}); builds of {before} are refused until then"
        )
    if renamed.services:
        yield (
            f"columns of {', '.join(renamed.services)} begin with the feature's name; where models and callers are to keep "
            f'theirs, write {after}.as_("{before}") there'
        )
    if renamed.rows is not None:
        yield (
            f"rows of {before} stay online as they are until its time as one that is gone from the definitions is over; "
            f"'mlforge retire {before}' ends it at once"
        )


COMMANDS = (
    Command(
        "rename",
        "give a feature another name, with its history",
        _configure,
        rename,
        "mlforge rename user_spend spend\nmlforge rename user_spend spend --yes --profile prod",
        "Versions, pins, training sets' versions, locks of models, kept versions of services and features made from it know it "
        "by the new name; nothing is computed anew. Rename first, then edit the definitions. The old name stays taken, and "
        "whoever asks for it is told the new one; the same command the other way round gives it back.",
    ),
)
