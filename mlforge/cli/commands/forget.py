"""`mlforge forget key=value`: erasure of an entity."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from mlforge.cli.command import Command
from mlforge.cli.deeds import note_deeds
from mlforge.cli.options import (
    definitions_option,
    json_option,
    served_definitions_of,
    workers_url,
)
from mlforge.cli.output import confirmed, fail, note, print_json, stdout_is_ours
from mlforge.cli.table import table
from mlforge.core.text import plural
from mlforge.errors import MlforgeError

if TYPE_CHECKING:
    from mlforge.definitions.registry import Definitions
    from mlforge.registry.forgetting import Forgot, Outcome
    from mlforge.registry.live import Noted


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "entities", nargs="+", metavar="KEY=VALUE", help="an entity, as in user_id=7"
    )
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    definitions_option(parser)
    json_option(parser)


def forget(args: argparse.Namespace) -> int:
    """Delete the rows of entities from the store and online. Exit code 1 where something stays: run it again then.

    JSON: `{"features": [{"feature", "version", "rows", "versions", "partials", "in_use", "online", "source", "files", "together", "sets", "exports"}],
    "failures": {feature: reason}, "left": [text]}`. version, rows: of the version that was published without them, null and 0 for none.
    versions: those that went; in_use: those that a reader still reads. online: keys deleted. files: those of the source that hold
    rows of forgotten entities still, or may, where `together` says that the function reads several at once. sets: folders of training sets made from versions that went. exports: tables to which such versions were exported. left: servers whose own files may
    hold rows still.
    """
    from mlforge.registry.deeds import FORGOTTEN
    from mlforge.registry.forgetting import entities_of
    from mlforge.registry.forgetting import forget as forget_entities

    definitions = served_definitions_of(args)
    with closing(definitions), stdout_is_ours():
        entities = entities_of(definitions.store, args.entities)
        where = str(definitions.store)
        if definitions.online_store is not None:
            where = f"{where} and {definitions.online_store}"
        question = f"forget {', '.join(args.entities)} in {where}: rows, and versions that hold them, for good?"
        if not args.yes and not confirmed(question):
            raise MlforgeError("nothing was forgotten; --yes forgets without asking")
        outcome = forget_entities(definitions, entities, workers_url(args))
        note_deeds(args, definitions, FORGOTTEN, _published(outcome, definitions))
    if args.json:
        print_json(_document(outcome))
    else:
        _show(outcome, online=definitions.online_store is not None)
    for name, error in outcome.failures.items():
        fail(f"{name}: {error}" if name not in str(error) else str(error))
    in_use = {n: f.scrubbed.in_use for n, f in outcome.features.items() if f.scrubbed.in_use}
    for name, versions in in_use.items():
        fail(f"{name} {', '.join(versions)} is being read and stays; run the same command again")
    return 1 if outcome.failures or in_use else 0


def _published(outcome: Outcome, definitions: Definitions) -> Iterator[Noted]:
    """The versions without the rows; not whose rows they were."""
    for name, each in outcome.features.items():
        if each.version is not None:
            keys = None if definitions.online_store is None else each.online
            done = {"version": each.version, "rows": each.rows, "keys_deleted": keys}
            yield name, done


def _show(outcome: Outcome, *, online: bool) -> None:
    columns = ("feature", "version", "rows left out", "versions deleted", "keys deleted")
    rows = [
        (
            each.feature,
            each.version or "-",
            str(each.rows),
            ", ".join(each.scrubbed.versions) or "-",
            str(each.online) if online else "-",
        )
        for each in outcome.features.values()
    ]
    print(table(columns, rows, right=("rows left out", "keys deleted")))
    for text in [*_notes(list(outcome.features.values()), online=online), *outcome.left]:
        note(text)


def _notes(forgot: list[Forgot], *, online: bool) -> list[str]:
    """Sentences on what is left to the person who asked."""
    files = _files(forgot, together=False)
    perhaps = [each for each in _files(forgot, together=True) if each not in files]
    sets = list(dict.fromkeys(out for each in forgot for out in each.scrubbed.sets))
    tables = list(dict.fromkeys(table for each in forgot for table in each.scrubbed.exports))
    notes = []
    if files:
        hold, yours = ("holds", "file is") if len(files) == 1 else ("hold", "files are")
        notes.append(
            f"{plural(len(files), 'source file')} {hold} rows of forgotten entities, which are left out from now on; "
            f"the {yours} yours to rewrite: {_first(files)}"
        )
    if perhaps:
        names = ", ".join(each.feature for each in forgot if each.files and each.together)
        notes.append(
            f"{plural(len(perhaps), 'source file')} may hold rows of forgotten entities, as the function of {names} reads its files together: "
            f"{_first(perhaps)}"
        )
    if sets:
        notes.append(
            f"training sets were made from versions that went, and are yours to delete: {', '.join(sets)}"
        )
    if tables:
        notes.append(
            f"versions that went were exported to tables, which hold their rows until you export again and then vacuum: {', '.join(tables)}"
        )
    if not online:
        notes.append("no online store is named here, so rows online stay until the next push")
    return notes


def _files(forgot: list[Forgot], *, together: bool) -> list[str]:
    """The files of features whose functions read files together, or one at a time, each once."""
    chosen = [each for each in forgot if each.together == together]
    return list(dict.fromkeys(f"{path} of {each.source}" for each in chosen for path in each.files))


def _first(files: list[str]) -> str:
    return ", ".join(files[:5]) + (f" and {len(files) - 5} more" if len(files) > 5 else "")


def _document(outcome: Outcome) -> dict[str, object]:
    return {
        "features": [
            {
                "feature": each.feature,
                "version": each.version,
                "rows": each.rows,
                "versions": list(each.scrubbed.versions),
                "partials": each.scrubbed.partials,
                "in_use": list(each.scrubbed.in_use),
                "online": each.online,
                "source": each.source,
                "files": list(each.files),
                "together": each.together,
                "sets": list(each.scrubbed.sets),
                "exports": list(each.scrubbed.exports),
            }
            for each in outcome.features.values()
        ],
        "failures": {name: str(error) for name, error in outcome.failures.items()},
        "left": outcome.left,
    }


COMMANDS = (
    Command(
        "forget",
        "delete the rows of an entity from the store and online, for good",
        _configure,
        forget,
        "mlforge forget user_id=7\nmlforge forget user_id=7 user_id=12 --yes",
        "Every row that names the entity in a column of the key's name leaves partials, versions and the online store: "
        "a version without them is published, and all versions with them are deleted, pinned ones, too. The store keeps "
        "a salted hash of the entity, so that files which still hold its rows bring none back. Files are named and left alone.",
    ),
)
