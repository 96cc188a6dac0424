"""`mlforge plan`: a build that stops before publishing."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlforge.cli.command import Command
from mlforge.cli.commands.build import configure_options
from mlforge.cli.options import compared_definitions_of, compared_store_option
from mlforge.cli.output import note, number
from mlforge.cli.planned_services import planned_services, service_json
from mlforge.cli.results import CHANGE, Outcome, change, end, failed, run
from mlforge.cli.table import table
from mlforge.core.arguments import shown
from mlforge.core.text import plural
from mlforge.core.values import BEGINNING, END, to_iso

if TYPE_CHECKING:
    from mlforge.build.broken_locks import BrokenLock, DefaultsChange
    from mlforge.build.categorizer import Difference
    from mlforge.build.result import BuildResult
    from mlforge.definitions.registry import Definitions
    from mlforge.services.versions import ServiceVersion
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
    `defaults` has the defaults of features that would be others (`{feature: {column: {"from", "to"}}}`), `services` the versions of services that would be kept (`[{"service", "from", "to", "bump", "details"}]`), `unkept` why no version of a service would be (`{service: reason}`), and
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
        _class_of(planned.outcome, bool(planned.vanishing)), *(CLASSES[bump] for bump in bumps), 0
    )


@dataclass(frozen=True)
class Planned:
    """A plan: its results, how columns and defaults would differ by feature, stored features that the definitions do not name, and locks.

    services: each one's version before, None for none, and the one that would be kept. unkept: those of which none
    could be, and why.
    """

    definitions: Definitions
    outcome: Outcome
    differences: dict[str, Difference]
    vanishing: list[dict[str, Any]]
    defaults: dict[str, DefaultsChange]
    services: list[tuple[str, str | None, ServiceVersion]]
    unkept: dict[str, str]
    broken: list[BrokenLock]

    @property
    def other_defaults(self) -> dict[str, dict[str, Any]]:
        """The defaults of features that would be others, by feature and column, as JSON has them."""
        changes = {name: _defaults_json(change) for name, change in self.defaults.items()}
        return {name: columns for name, columns in changes.items() if columns}


def plan_of(args: argparse.Namespace) -> Planned:
    """The plan of a command line with the options of `configure_options`."""
    definitions = compared_definitions_of(args)
    vanishing = [] if args.features or args.tags else _vanishing(definitions)
    outcome = run(definitions, args, lambda options: definitions.plan(**options))
    differences = {
        name: _difference(definitions.store, result) for name, result in outcome.results.items()
    }
    defaults = dict(_other_defaults(definitions, outcome))
    broken = _broken(definitions.store, outcome, vanishing, defaults)
    services, unkept = planned_services(definitions, outcome, defaults)
    return Planned(definitions, outcome, differences, vanishing, defaults, services, unkept, broken)


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
        for name in _same_code(definitions.store, outcome, gone["feature"]):
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
    for lock in planned.broken:
        note(f"a build would break the lock of {lock}", "red")


def _vanishing(definitions: Definitions) -> list[dict[str, Any]]:
    """Stored features that neither these definitions name nor others keep that share the store."""
    from mlforge.definitions.keeping import keeper_elsewhere

    store = definitions.store
    unnamed = [name for name in store.features() if name not in definitions.features]
    manifests = {
        name: store.latest(name) for name in unnamed if keeper_elsewhere(definitions, name) is None
    }
    return [
        {"feature": name, "version": str(manifest.version), "rows": manifest.row_count}
        for name, manifest in manifests.items()
        if manifest is not None
    ]


def _other_defaults(
    definitions: Definitions, outcome: Outcome
) -> Iterator[tuple[str, DefaultsChange]]:
    """The defaults of each feature that is planned, as they count now and as a build would note them."""
    from mlforge.build.broken_locks import DefaultsChange
    from mlforge.services.description import described_defaults

    for name in outcome.results:
        before = definitions.store.books(name).defaults
        yield name, DefaultsChange(before, described_defaults(definitions.feature(name).defaults))


def _same_code(store: Store, outcome: Outcome, gone: str) -> Iterator[str]:
    """The features without a version whose code and settings are those of one that would vanish."""
    last = store.latest(gone)
    for name, result in outcome.results.items():
        if last and result.manifest and store.latest(name) is None:
            then, now = ((m.code_hash, m.config_hash, m.source) for m in (last, result.manifest))
            if then == now:
                yield name


def _defaults_json(change: DefaultsChange) -> dict[str, dict[str, Any]]:
    """The columns whose default would be another one."""
    before, after = change.before, change.after
    return {
        column: {"from": before.get(column), "to": after.get(column)}
        for column in {**before, **after}
        if before.get(column) != after.get(column)
    }


def _default_text(described: Any) -> str:
    if isinstance(described, dict):
        [described] = described.values()
    return "none" if described is None else shown(described)


def _broken(
    store: Store,
    outcome: Outcome,
    vanishing: list[dict[str, Any]],
    defaults: Mapping[str, DefaultsChange],
) -> list[BrokenLock]:
    """Registered locks that a build would break, and those of models that read a feature which would vanish."""
    from mlforge.build.broken_locks import BrokenLock, broken_locks, means_the_same
    from mlforge.core.lock import Change

    candidates = [
        (served, result.manifest, defaults[result.feature])
        for result in outcome.results.values()
        if result.manifest is not None
        for served in [store.latest(result.feature)]
        if served is not None
        if not means_the_same(served, result.manifest) or _defaults_json(defaults[result.feature])
    ]
    if not candidates and not vanishing:
        return []
    locks = store.locks()
    broken = [lock for candidate in candidates for lock in broken_locks(locks, *candidate)]
    gone = {entry["feature"] for entry in vanishing}
    for model, lock in locks.items():
        columns = [column for column in lock.columns if column.feature in gone]
        changes = [Change(c.name, f"the feature {c.feature} would vanish") for c in columns]
        broken += [BrokenLock(model, lock.service, tuple(changes))] if changes else []
    return broken


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


def _difference(store: Store, result: BuildResult) -> Difference:
    """How the columns of the version that a build would publish differ from those that are served."""
    from mlforge.build.categorizer import Difference

    served = store.latest(result.feature)
    if served is None or result.manifest is None or not result.changed:
        return Difference()
    return Difference.between(served.columns, result.manifest.columns)


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
    """The exit code of the greatest change: a first version counts as MINOR, a feature that vanishes as MAJOR."""
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
        "name, columns that go, and models whose locks would break are named. With --exit-code a pull request can be judged: 0 nothing "
        "changes, 10 rows (PATCH), 11 something is added (MINOR), 12 columns, types or features go (MAJOR).",
    ),
)
