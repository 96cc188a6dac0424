"""`mlforge promote`: take definitions to another profile's store, once its plan was looked at."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlforge.cli.command import Command
from mlforge.cli.commands.build import BUILT, built_rows
from mlforge.cli.commands.plan import show_plan
from mlforge.cli.deeds import note_deeds
from mlforge.cli.options import definitions_option, json_option, selection_options
from mlforge.cli.output import confirmed, note, stdout_is_ours
from mlforge.cli.planned import Planned, plan_of
from mlforge.cli.results import Outcome, end
from mlforge.cli.table import table
from mlforge.core.text import plural
from mlforge.errors import BuildError, DefinitionError, MlforgeError

if TYPE_CHECKING:
    from mlforge.build.result import BuildResult


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--to", required=True, metavar="PROFILE", help="the profile to take them to"
    )
    selection_options(parser)
    parser.add_argument("-y", "--yes", action="store_true", help="apply without asking")
    definitions_option(parser)
    json_option(parser)


def promote(args: argparse.Namespace) -> int:
    """Show the plan of these definitions against a profile's store, and apply the definitions that it does not have.

    Exit code 1 if a feature would fail, and then nothing is applied, or fails.

    JSON: as that of `build`, of the features that were applied, with `profile`, `left`: features in which data alone
    changed, and `services`: those of which a version was to be kept. It needs --yes.
    """
    from mlforge.definitions.keeping import keep_all, note_names
    from mlforge.registry import deeds
    from mlforge.registry.live import published
    from mlforge.registry.promotion import changed_definitions

    if args.profile not in (None, args.to):
        raise DefinitionError(f"--to {args.to} and --profile {args.profile} differ; --to is enough")
    if args.json and not args.yes:
        raise DefinitionError(
            f"--json asks nobody: add --yes, or look first: mlforge plan --profile {args.to} --json"
        )
    there = _there(args)
    planned = plan_of(there)
    results = planned.outcome.results
    definitions = planned.definitions
    changed = changed_definitions(definitions.store, results.values())
    names = [name for name in results if name in changed or name in planned.other_defaults]
    left = [name for name, result in results.items() if result.changed and name not in names]
    services = [service for service, _, _ in planned.services]
    told = {"profile": args.to, "left": left, "services": services}
    if not args.json:
        show_plan(planned)
        for text in _told(args.to, names, services, left):
            note(text)
    if planned.outcome.failures or not (names or services):
        return end(Outcome(definitions.store, {}, planned.outcome.failures), args.json, **told)
    if not args.yes and not confirmed(f"apply {', '.join(names + services)} to {args.to}?"):
        raise MlforgeError("nothing was applied; --yes applies without asking")
    if names:
        applied = _applied(planned, names)
        note_deeds(there, definitions, deeds.BUILT, published(applied.results))
    else:
        note_names(definitions)
        keep_all(definitions)
        applied = Outcome(definitions.store, {}, {})
    if not args.json and names:
        print(table(BUILT, built_rows(applied, BUILT), right=("rows", "time")))
    return end(applied, args.json, **told)


def _there(args: argparse.Namespace) -> argparse.Namespace:
    """The command line of a plan with the profile's stores and root."""
    unused = dict.fromkeys(("version", "engine", "store"))
    return argparse.Namespace(**{**vars(args), **unused, "profile": args.to, "full": False})


def _told(profile: str, names: list[str], services: list[str], left: list[str]) -> list[str]:
    new = [*names, *(f"service {service}" for service in services)]
    applied = f"{plural(len(new), 'definition')} to apply to {profile}: {', '.join(new)}"
    texts = [applied if new else f"{profile} has these definitions already"]
    if left:
        texts.append(f"left to {profile}'s own builds, for data alone changed: {', '.join(left)}")
    return texts


def _applied(planned: Planned, names: list[str]) -> Outcome:
    """Versions of the features in the profile's store, from the profile's sources."""
    store = planned.definitions.store
    try:
        with stdout_is_ours():
            return Outcome(store, planned.definitions.build(features=names), {})
    except BuildError as error:
        built: Mapping[str, BuildResult] = error.results
        return Outcome(store, built, error.failures)


COMMANDS = (
    Command(
        "promote",
        "take definitions to another profile's store, once its plan was looked at",
        _configure,
        promote,
        "mlforge promote --to prod\nmlforge promote --to prod --features user_spend --yes",
        "The plan is that of 'mlforge plan' with the profile. Features whose code, settings or source the store does not "
        "have yet are built there, from the profile's own sources: no data goes from one store to another.",
    ),
)
