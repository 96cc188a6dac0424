"""The value behind `mlforge plan`: what a build would do to features, services and models."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlforge.cli.options import compared_definitions_of
from mlforge.cli.planned_services import planned_services, services_going
from mlforge.cli.results import Outcome, run

if TYPE_CHECKING:
    from mlforge.build.broken_locks import BrokenLock, DefaultsChange
    from mlforge.build.categorizer import Difference
    from mlforge.build.result import BuildResult
    from mlforge.definitions.registry import Definitions
    from mlforge.services.versions import ServiceVersion
    from mlforge.store import Store


@dataclass(frozen=True)
class Planned:
    """A plan: its results, how columns and defaults would differ by feature, stored features that the definitions do not name, and locks.

    services: each one's version before, None for none, and the one that would be kept. unkept: those of which none
    could be, and why. going: services that the definitions do not name, while a model's lock does.
    """

    definitions: Definitions
    outcome: Outcome
    differences: dict[str, Difference]
    vanishing: list[dict[str, Any]]
    defaults: dict[str, DefaultsChange]
    services: list[tuple[str, str | None, ServiceVersion]]
    unkept: dict[str, str]
    broken: list[BrokenLock]
    going: list[dict[str, Any]]

    @property
    def other_defaults(self) -> dict[str, dict[str, Any]]:
        """The defaults of features that would be others, by feature and column, as JSON has them."""
        changes = {name: _other_columns(change) for name, change in self.defaults.items()}
        return {name: columns for name, columns in changes.items() if columns}


def plan_of(args: argparse.Namespace) -> Planned:
    """The plan of a command line with the options of `configure_options`."""
    definitions = compared_definitions_of(args)
    is_whole = not (args.features or args.tags)
    vanishing = _vanishing(definitions) if is_whole else []
    going = services_going(definitions) if is_whole else []
    outcome = run(definitions, args, lambda options: definitions.plan(**options))
    differences = {
        name: _difference(definitions.store, result) for name, result in outcome.results.items()
    }
    defaults = dict(_other_defaults(definitions, outcome))
    broken = _broken(definitions.store, outcome, vanishing, defaults)
    services, unkept = planned_services(definitions, outcome, defaults)
    return Planned(
        definitions, outcome, differences, vanishing, defaults, services, unkept, broken, going
    )


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


def same_code(store: Store, outcome: Outcome, gone: str) -> Iterator[str]:
    """The features without a version whose code and settings are those of one that would vanish."""
    last = store.latest(gone)
    for name, result in outcome.results.items():
        if last and result.manifest and store.latest(name) is None:
            then, now = ((m.code_hash, m.config_hash, m.source) for m in (last, result.manifest))
            if then == now:
                yield name


def _other_columns(change: DefaultsChange) -> dict[str, dict[str, Any]]:
    """The columns whose default would be another one."""
    before, after = change.before, change.after
    return {
        column: {"from": before.get(column), "to": after.get(column)}
        for column in {**before, **after}
        if before.get(column) != after.get(column)
    }


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
        if not means_the_same(served, result.manifest) or _other_columns(defaults[result.feature])
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


def _difference(store: Store, result: BuildResult) -> Difference:
    """How the columns of the version that a build would publish differ from those that are served."""
    from mlforge.build.categorizer import Difference

    served = store.latest(result.feature)
    if served is None or result.manifest is None or not result.changed:
        return Difference()
    return Difference.between(served.columns, result.manifest.columns)
