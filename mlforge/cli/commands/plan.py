"""`mlforge plan`: a build that stops before publishing."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mlforge.cli.command import Command
from mlforge.cli.commands.build import configure_options
from mlforge.cli.options import compared_store_option
from mlforge.cli.output import note, number
from mlforge.cli.planned import Planned, plan_of, same_code
from mlforge.cli.planned_services import service_json
from mlforge.cli.results import CHANGE, Outcome, change, end, failed
from mlforge.cli.table import table
from mlforge.core.arguments import shown
from mlforge.core.text import plural
from mlforge.core.values import BEGINNING, END, to_iso

if TYPE_CHECKING:
    from mlforge.build.broken_locks import BrokenLock
    from mlforge.build.categorizer import Difference
    from mlforge.build.result import BuildResult
    from mlforge.store import Store

PLANNED = (*CHANGE, "recomputed", "keys")
INTAKE = ("feature", "intake", "from", "to", "files", "bytes")
TASKS = ("feature", "task", "from", "to", "bucket", "events", "rows", "bytes")
_TOLD = 3
"""The changes of a service that are told in full."""
CLASSES = {None: 0, "patch": 10, "minor": 11, "major": 12}
"""Exit codes of `--exit-code`, by the greatest bump; they are those of `diff`."""


def _configure(parser: argparse.ArgumentParser) -> None:
    configure_options(parser)
    compared_store_option(parser)
    parser.add_argument(
        "--tasks",
        action="store_true",
        help="show the groups of new files and the ranges of time that a build is cut into",
    )
    parser.add_argument(
        "--exit-code",
        action="store_true",
        help="exit with the class of change: 10 PATCH, 11 MINOR, 12 MAJOR, 0 none",
    )


def plan(args: argparse.Namespace) -> int:
    """Say what `build` would do. Exit code 1 if a feature would fail or a file is quarantined.

    JSON: as that of `build`, with `columns` (`{feature: {"added", "removed", "retyped"}}`) and `vanish`
    (`[{"feature", "version", "rows"}]`: stored features that the definitions no longer name, where no features are
    selected); `version` is the one that a build would publish, path that of a version that exists, and
    `defaults` has the defaults of features that would be others (`{feature: {column: {"from", "to"}}}`), `services` the versions of services that would be kept (`[{"service", "from", "to", "bump", "details"}]`), `unkept` why no version of a service would be (`{service: reason}`),
    `going` services that the definitions no longer name while a registered lock does (`[{"service", "version", "models"}]`), and
    `locks` lists registered locks that would break (`[{"model", "service", "changes": [{"column", "why"}]}]`);
    `tasks` lists the ranges of time of full builds (`{feature: [{"start", "end", "events", "rows", "bytes"}]}`: null for an open end; events
    are read at most, bytes are those of the rows in memory), `intake` the groups of new files (`{feature: [{"first", "last", "files", "bytes"}]}`: the paths of the first and the last); `keys_written` counts the keys that a push would write or delete (null without an online store, or when it
    does not answer).
    """
    planned = plan_of(args)
    if not args.json:
        show_plan(planned)
        if args.tasks:
            print(_intake_table(planned.outcome))
            print(_tasks_table(planned.outcome))
    columns = {name: _columns_json(diff) for name, diff in planned.differences.items()}
    locks = [_lock_json(lock) for lock in planned.broken]
    code = end(
        planned.outcome,
        args.json,
        columns=columns,
        vanish=planned.vanishing,
        defaults=planned.other_defaults,
        services=[service_json(*service) for service in planned.services],
        unkept=planned.unkept,
        going=planned.going,
        locks=locks,
        tasks={name: _tasks_json(result) for name, result in planned.outcome.results.items()},
        intake={
            name: [group._asdict() for group in result.intake]
            for name, result in planned.outcome.results.items()
        },
    )
    if code or not args.exit_code:
        return code
    bumps = {version.bump for _, _, version in planned.services}
    return max(
        _class_of(planned.outcome, bool(planned.vanishing or planned.going)),
        *(CLASSES[bump] for bump in bumps),
        0,
    )


def show_plan(planned: Planned) -> None:
    """Print a table of what would change, and sentences on what a reader of it should know."""
    definitions, outcome = planned.definitions, planned.outcome
    print(table(PLANNED, _planned(outcome), right=("rows", "recomputed", "keys")))
    print()
    for name, result in outcome.results.items():
        note(_how(result))
        for text in _columns_text(definitions.store, result, planned.differences[name]):
            note(f"{name}: {text}", "yellow")
        for column, default in planned.other_defaults.get(name, {}).items():
            before, after = (_default_text(default[side]) for side in ("from", "to"))
            note(f"{name}: the default of {column} would change: {before} -> {after}", "yellow")
        hold = definitions.store.books(result.feature).hold
        if hold:
            note(f"{result.feature}: a build ends its hold: {hold}", "yellow")
    for gone in planned.vanishing:
        note(
            f"{gone['feature']} would vanish: the definitions no longer name it; {gone['version']} and all "
            f"other versions stay in the store, its rows online go after {definitions.settings.gone_after}",
            "red",
        )
        for name in same_code(definitions.store, outcome, gone["feature"]):
            note(
                f"{name} would begin anew with the code and settings of {gone['feature']}; if it is the same feature, "
                f"'mlforge rename {gone['feature']} {name}' keeps its history",
                "yellow",
            )
    for service, kept, version in planned.services:
        bump = f" ({version.bump.upper()})" if version.bump else ""
        more = len(version.details) - _TOLD
        told = [*version.details[:_TOLD], *([f"and {more} more"] if more > 0 else [])]
        why = f": {'; '.join(told)}" if told else ""
        arrow = f"{kept} -> {version.version}" if kept else str(version.version)
        note(f"the service {service} would be kept as {arrow}{bump}{why}", "yellow")
    for service, why in planned.unkept.items():
        note(f"no version of the service {service} would be kept: {why}", "yellow")
    for going in planned.going:
        models = ", ".join(going["models"])
        note(
            f"the service {going['service']} would go: the definitions no longer name it, and the lock of {models} is of it; "
            "requests for it are refused. Put it back, or end the lock: 'mlforge locks --remove MODEL'",
            "red",
        )
    for lock in planned.broken:
        note(f"a build would break the lock of {lock}", "red")


def _default_text(described: Any) -> str:
    if isinstance(described, dict):
        [described] = described.values()
    return "none" if described is None else shown(described)


def _tasks_json(result: BuildResult) -> list[dict[str, Any]]:
    """The tasks of a full build; an end of all time is null. bucket: which of the buckets of a range's entities it is."""
    return [
        {
            "start": to_iso(task.times.start) if task.times.start > BEGINNING else None,
            "end": to_iso(task.times.end) if task.times.end < END - 1 else None,
            "events": task.events,
            "rows": task.rows,
            "bytes": task.bytes,
            "bucket": task.bucket,
            "buckets": task.buckets,
        }
        for task in result.tasks
    ]


def _tasks_table(outcome: Outcome) -> str:
    """The tasks of full builds; in the text a feature without any has none to show."""
    tasks = [
        (
            name,
            f"{index} of {len(result.tasks)}",
            task["start"],
            task["end"],
            f"{task['bucket']} of {task['buckets']}" if task["buckets"] > 1 else None,
            number(task["events"]),
            number(task["rows"]),
            number(task["bytes"]),
        )
        for name, result in outcome.results.items()
        for index, task in enumerate(_tasks_json(result), 1)
    ]
    return table(TASKS, tasks, right=("events", "rows", "bytes"))


def _intake_table(outcome: Outcome) -> str:
    """The groups of new files; in the text a feature without any has none to show."""
    groups = [
        (
            name,
            f"{index} of {len(result.intake)}",
            group.first,
            group.last,
            number(group.files),
            number(group.bytes),
        )
        for name, result in outcome.results.items()
        for index, group in enumerate(result.intake, 1)
    ]
    return table(INTAKE, groups, right=("files", "bytes"))


def _lock_json(lock: BrokenLock) -> dict[str, Any]:
    changes = [{"column": change.column, "why": change.why} for change in lock.changes]
    return {"model": lock.model, "service": lock.service, "changes": changes}


def _columns_json(difference: Difference) -> dict[str, list[str]]:
    return {
        "added": list(difference.added),
        "removed": list(difference.removed),
        "retyped": list(difference.retyped),
    }


_OF_EVENTS = {
    "columns_removed": "columns of its events would go",
    "dtype_changed": "columns of its events would change their types",
}


def _columns_text(store: Store, result: BuildResult, difference: Difference) -> Iterator[str]:
    """Sentences on columns that readers lose or get with another type."""
    if not (difference.removed or difference.retyped) and result.reason in _OF_EVENTS:
        yield f"{_OF_EVENTS[result.reason]}: {', '.join(result.details)}; no served column goes or changes its type"
    if difference.removed:
        count = plural(len(difference.removed), "column")
        yield f"{count} would go: {', '.join(difference.removed)}"
    served = store.latest(result.feature) if difference.retyped else None
    if served is not None and result.manifest is not None:
        old = {column.name: column.dtype for column in served.columns}
        new = {column.name: column.dtype for column in result.manifest.columns}
        changes = ", ".join(f"{name} {old[name]} -> {new[name]}" for name in difference.retyped)
        yield f"types would change: {changes}"


def _class_of(outcome: Outcome, vanishes: bool) -> int:
    """The exit code of the greatest change: a first version counts as MINOR, a feature that vanishes, or a locked service that goes, as MAJOR."""
    bumps = {
        "minor" if result.reason == "first_build" else result.bump
        for result in outcome.results.values()
    }
    bumps |= {"major"} if vanishes else set()
    return max(CLASSES[bump] for bump in [None, *bumps])


def _planned(outcome: Outcome) -> list[tuple[object, ...]]:
    planned = [
        (
            *change(result),
            number(result.rows),
            number(result.rows_recomputed),
            number(result.keys_written),
        )
        for result in outcome.results.values()
    ]
    return [*planned, *failed(outcome, PLANNED)]


def _how(result: BuildResult) -> str:
    """`user_spend: incremental, 3 of 900 events changed; 3 entities, 1 file read`."""
    mode = f"{result.mode}, {result.mode_reason}" if result.changed else "nothing to do"
    entities = f"{result.entities:,} {'entity' if result.entities == 1 else 'entities'}"
    files = plural(result.files_read, "file")
    parts = [entities if result.entities else "", f"{files} read" if result.files_read else ""]
    made_from = result.manifest.upstream if result.changed and result.manifest else None
    parts += ["of {} {}".format(*made_from)] if made_from else []
    work = ", ".join(filter(None, parts))
    return f"{result.feature}: {mode}{f'; {work}' if work else ''}"


COMMANDS = (
    Command(
        "plan",
        "say what a build would do, and why, without publishing",
        _configure,
        plan,
        "mlforge plan\nmlforge plan --features user_spend --full --json\nmlforge plan --exit-code\nmlforge plan --full --tasks",
        "A build right after it does exactly that. Features of the store that the definitions no longer "
        "name, columns that go, services that go though a lock is of them, and models whose locks would break are named. With --exit-code a pull request can be judged: 0 nothing "
        "changes, 10 rows (PATCH), 11 something is added (MINOR), 12 columns, types or features go (MAJOR).",
    ),
)
