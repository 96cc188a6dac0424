"""Airflow: a connection is a project; operators that build, push, check and make training sets, a sensor that waits.

They go through mlforge's own loader, and a watcher's work stays the watcher's: a DAG builds, or waits for what a watcher
publishes. Needs the extra `airflow`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlforge.core.paths import path_of
from mlforge.definitions.registry import Definitions
from mlforge.definitions.services import service_named
from mlforge.definitions.source_check import as_json, check_source
from mlforge.definitions.sources import check_output
from mlforge.errors import MissingExtra
from mlforge.integrations.project import Attempt, Fresh, Project, note, outcome
from mlforge.store.addresses import is_bucket
from mlforge.store.opening import store_at
from mlforge.training_sets.making import training_set
from mlforge.training_sets.writing import part_name

try:
    from airflow.sdk import Asset, BaseHook, BaseOperator, BaseSensorOperator, PokeReturnValue
    from airflow.sdk.exceptions import AirflowException
    from airflow.triggers.base import BaseTrigger, TriggerEvent
except ImportError as error:
    raise MissingExtra.of("mlforge.integrations.airflow", "airflow") from error

CONNECTION = "mlforge_default"
Context = Mapping[str, Any]


def asset_of(feature: str, conn_id: str = CONNECTION) -> Asset:
    """The asset of a feature: what a build updates, and what a DAG may be scheduled by."""
    return Asset(name=f"{conn_id}.{feature}", uri=f"mlforge://{conn_id}/{feature}")


class MlforgeHook(BaseHook):
    """A project behind a connection.

    The connection's extra says where its definitions are: `{"definitions": "/srv/shop/definitions.py"}`, and with
    `"profile": "prod"` by which profile its stores are chosen.
    """

    conn_name_attr = "conn_id"
    default_conn_name = CONNECTION
    conn_type = "mlforge"
    hook_name = "mlforge project"

    def __init__(self, conn_id: str = CONNECTION) -> None:
        super().__init__()
        self.conn_id = conn_id

    def project(self) -> Project:
        """The project; DefinitionError where the connection names no absolute place."""
        extra = self.get_connection(self.conn_id).extra_dejson
        return Project(str(extra.get("definitions") or ""), extra.get("profile"))

    def get_conn(self) -> Definitions:
        """The project's definitions, loaded afresh; raises as mlforge's loader."""
        return self.project().load()


class _ProjectOperator(BaseOperator):
    """An operator on a project; features: their names, all by default."""

    template_fields: Sequence[str] = ("features",)

    def __init__(
        self, *, features: Sequence[str] | None = None, conn_id: str = CONNECTION, **options: Any
    ) -> None:
        super().__init__(**options)
        self.features, self.conn_id = features, conn_id

    def _definitions(self) -> Definitions:
        return MlforgeHook(self.conn_id).get_conn()


class BuildOperator(_ProjectOperator):
    """Refresh features; returns what came of each.

    Named features are outlets: each asset's event has `version`, `rows` and `changed`. A version that would be held for
    a person fails the task, as does a feature that cannot be built; the others are built all the same.
    push: then bring the online store up to date, too, whatever failed or is held. full: evaluate everything anew.
    """

    def __init__(
        self,
        *,
        features: Sequence[str] | None = None,
        conn_id: str = CONNECTION,
        push: bool = False,
        full: bool = False,
        **options: Any,
    ) -> None:
        own = [asset_of(name, conn_id) for name in features or ()]
        options["outlets"] = [*own, *options.get("outlets", ())]
        super().__init__(features=features, conn_id=conn_id, **options)
        self.push, self.full = push, full

    def execute(self, context: Context) -> dict[str, dict[str, Any]]:
        """Build, push where asked to, whatever failed or is held, and tell each asset its version."""
        definitions = self._definitions()
        attempt = Attempt.of(definitions, self.features, full=self.full)
        try:
            attempt = attempt.pushed(definitions) if self.push else attempt
        finally:
            note(definitions, attempt.results)
            definitions.close()
        if problems := (*attempt.failures, *attempt.holds):
            raise AirflowException("\n".join(problems))
        outcomes = {name: outcome(result) for name, result in attempt.results.items()}
        for name in self.features or ():
            told = {key: outcomes[name][key] for key in ("version", "rows", "changed")}
            context["outlet_events"][asset_of(name, self.conn_id)].extra = told
        return outcomes


class PushOperator(_ProjectOperator):
    """Bring the online store to the served versions, as of now; returns how many keys were written and deleted."""

    def execute(self, context: Context) -> dict[str, dict[str, Any]]:
        """Push each feature."""
        definitions = self._definitions()
        pushed = {name: definitions.push(name) for name in definitions.selected(self.features)}
        definitions.close()
        return {
            name: {"version": each.version, "written": each.written, "deleted": each.deleted}
            for name, each in pushed.items()
        }


class ValidateOperator(_ProjectOperator):
    """Read, compute and check what a build would, without making a version; fails where a file or a feature does."""

    def execute(self, context: Context) -> dict[str, dict[str, Any]]:
        """Check each feature's source; returns the entries of `mlforge validate --json` by feature."""
        definitions = self._definitions()
        checks = [check_source(definitions, name) for name in definitions.selected(self.features)]
        problems = [problem.message for check in checks for problem in check.problems]
        if problems:
            raise AirflowException("\n".join(problems))
        return {check.feature: as_json(check) for check in checks}


class TrainingSetOperator(_ProjectOperator):
    """Make a training set of a spine's files; returns its folder, rows and versions.

    spine: the path of a parquet file or of a folder of them. out: a folder that does not exist yet. Relative paths start
    from the folder of the definitions. service, or features: whose columns it has. known_at: as in `training_set`.
    """

    template_fields: Sequence[str] = ("features", "spine", "out", "service", "known_at")

    def __init__(
        self,
        *,
        spine: str,
        out: str,
        service: str | None = None,
        known_at: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if (service is None) == (self.features is None):
            raise ValueError("TrainingSetOperator: give service=... or features=[...]")
        self.spine, self.out, self.service, self.known_at = spine, out, service, known_at

    def execute(self, context: Context) -> dict[str, Any]:
        """Make the set."""
        definitions = self._definitions()
        chosen = (
            [*(self.features or ())]
            if self.service is None
            else service_named(definitions.services, self.service, definitions.store)
        )
        out = self.out if is_bucket(self.out) else str(definitions.folder / path_of(self.out))
        check_output(definitions, out, part_name(0), may_be_source=True)
        stored_set = training_set(
            definitions.folder / self.spine,
            chosen,
            definitions.store,
            out,
            known_at=self.known_at,
        )
        return {
            "folder": stored_set.address,
            "rows": stored_set.rows,
            "versions": dict(stored_set.versions),
        }


class FreshnessSensor(BaseSensorOperator):
    """Wait until a feature's served version has events that are new enough; returns that version.

    within: how old the newest event may be, as in "1h". after: or the instant that it must have reached, as in
    "{{ data_interval_end }}". deferrable: wait in the triggerer, which looks at the store every `poke_interval`
    seconds and runs no code of the project, instead of in a worker's slot.
    """

    template_fields: Sequence[str] = ("feature", "within", "after")

    def __init__(
        self,
        *,
        feature: str,
        within: str | None = None,
        after: str | None = None,
        conn_id: str = CONNECTION,
        deferrable: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        Fresh(within, after)
        self.feature, self.within, self.after = feature, within, after
        self.conn_id, self.deferrable = conn_id, deferrable

    def poke(self, context: Context) -> Any:
        """Look once."""
        met = self._met(MlforgeHook(self.conn_id).get_conn())
        return PokeReturnValue(met is not None, met)

    def execute(self, context: Context) -> Any:
        """Return at once if it is fresh; else wait, in the triggerer where the store can be opened there."""
        definitions = MlforgeHook(self.conn_id).get_conn()
        place = definitions.store.address
        if not self.deferrable or place is None:
            return super().execute(context)
        if met := self._met(definitions):
            return met
        folder = str(definitions.folder)
        every = float(self.poke_interval)
        trigger = FreshnessTrigger(place, folder, self.feature, self.within, self.after, every)
        return self.defer(trigger=trigger, method_name="resume", timeout=self.timeout or None)

    def resume(self, context: Context, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """The version that the trigger saw."""
        return event

    def _met(self, definitions: Definitions) -> dict[str, Any] | None:
        definitions.feature(self.feature)
        return Fresh(self.within, self.after).met(definitions.store, self.feature)


class FreshnessTrigger(BaseTrigger):
    """Looks at a store every so many seconds until a feature's events are new enough.

    store: as `store_at` takes it; a bucket's cache lies below `folder`. The arguments are all that it knows of the
    project: neither its code nor a password.
    """

    def __init__(
        self,
        store: str,
        folder: str,
        feature: str,
        within: str | None,
        after: str | None,
        every: float,
    ) -> None:
        super().__init__()
        self.store, self.folder, self.feature = store, folder, feature
        self.within, self.after, self.every = within, after, every

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class's path and its arguments."""
        names = ("store", "folder", "feature", "within", "after", "every")
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return path, {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """The event that the feature is fresh, with its version."""
        while (met := await asyncio.to_thread(self._look)) is None:
            await asyncio.sleep(self.every)
        yield TriggerEvent(met)

    def _look(self) -> dict[str, Any] | None:
        store = store_at(self.store).located_at(Path(self.folder))
        return Fresh(self.within, self.after).met(store, self.feature)
