"""Definitions: the features of a project, where they are stored, and what can be done with them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from mlforge.build.refresh import refresh
from mlforge.build.result import HOLD_ABOVE, MAX_FILE_MEMORY, BuildResult, Options
from mlforge.build.runner import Runner
from mlforge.core.arguments import text
from mlforge.core.keeper import Keeper
from mlforge.core.signatures import named_methods
from mlforge.core.values import Duration
from mlforge.definitions.building import build_each, engine_name_of, engine_of, options_of
from mlforge.definitions.calls import check_arguments, check_optional
from mlforge.definitions.chains import check_chains, in_order
from mlforge.definitions.collection import (
    describe_store,
    feature_named,
    features_by_name,
    hash_of,
    selected,
    sizes,
)
from mlforge.definitions.keeping import take_over
from mlforge.definitions.places import (
    absolute,
    calling_folder,
    checked_online_store,
    checked_store,
    described_places,
    given_online_store,
    parsed_root,
)
from mlforge.definitions.planned_keys import with_keys
from mlforge.definitions.pushing import PushAhead
from mlforge.definitions.runners import check_runner, push_distribution_of
from mlforge.definitions.services import services_by_name
from mlforge.definitions.settings import DISTRIBUTE_ABOVE, GONE_AFTER, LOCAL, RESIDENT, Settings
from mlforge.definitions.sources import check_place, check_places, source_of
from mlforge.definitions.tasks import task_run
from mlforge.definitions.together import Drafts, Readings, each_in_turn
from mlforge.engines import MEMORY_LIMIT
from mlforge.engines.versions_diff import VersionsDiff
from mlforge.features.feature import Feature
from mlforge.maintenance.audit import audit
from mlforge.maintenance.operations import rollback
from mlforge.maintenance.sampling import SOME, Share
from mlforge.online import OnlineStore
from mlforge.online.push import PushResult, owner_of, push
from mlforge.retrieval.training import stored_values
from mlforge.services.service import Service
from mlforge.sources.row_source import RowSource
from mlforge.sources.source_reading import SourceReading
from mlforge.store import Audit, Pointer, Store


@named_methods
class Definitions:
    """A project's features and stores.

    store: the store of versions, or the address of a bucket for an ObjectStore. features: features, and modules of features.
    online_store: the target of `push`. engine: the default of features that name none.
    name: by default the root's folder name. root: the folder that relative sources start from, by default that of the
        file that makes the Definitions, or the current one, as in a REPL; a relative root starts there too.
    hold_above: the share of files or rows, from 0 to 1, that a worker's refresh may lose before it is
        held. max_file_memory: bytes that one file may take in memory; a larger one is set aside.
        memory_limit: bytes that DuckDB takes half of before it spills; how a table is cut never depends on it.
        resident_memory: bytes that events of windows may take in a worker's process; with 0 drops read them from files.
    follow_links: take links in a source that lead out of it, which are ignored otherwise.
    gone_after: how long the rows of a feature that vanishes from the definitions stay online as they are.
    partial: other definitions have features in the same store: each has workers of its own. Without it a
        watcher refuses a store that a watcher of other definitions is at work on.
    services: named lists of columns of these features, for training and online answers.
    runner: who takes part in a full build or a push of all rows, of more than `distribute_above` events, and in `mlforge train`: "local"
        for the process alone, "rq" for the project's workers and itself, or a Runner. The bytes are the same whoever does.
        fallback: "local" lets a build go on alone where nobody else is there, which is an error otherwise.
    publish_every: the least time from one version of a feature that workers publish to the next ("10s"; an hour at most); drops meanwhile become one.

    A relative `LocalStore` of a file that `mlforge` or a worker loads lies in that file's folder, whatever
    the root. In a script that you run yourself it starts from the current folder, as paths do in Python;
    `LocalStore(Path(__file__).parent / "feature_store")` is the same place for both.

    Raises DefinitionError for two features or services of one name, also if only case tells them apart, an
    unknown engine, a service of columns that there are not, or a setting out of bounds; UnsupportedStore for a store within a source.
    """

    def __init__(
        self,
        store: Store | str,
        features: Iterable[Feature | ModuleType],
        online_store: OnlineStore | str | None = None,
        engine: str = "polars",
        name: str | None = None,
        root: str | Path | None = None,
        *,
        hold_above: float = HOLD_ABOVE,
        max_file_memory: int = MAX_FILE_MEMORY,
        memory_limit: int = MEMORY_LIMIT,
        follow_links: bool = False,
        gone_after: str | timedelta | Duration = GONE_AFTER,
        partial: bool = False,
        services: Iterable[Service] = (),
        runner: str | Runner = LOCAL,
        distribute_above: int = DISTRIBUTE_ABOVE,
        fallback: str | None = None,
        resident_memory: int = RESIDENT,
        publish_every: str | timedelta | Duration | None = None,
    ) -> None:
        store, online_store = checked_store(store), checked_online_store(online_store)
        if publish_every is not None:
            publish_every = Duration.parse(publish_every, "Definitions: publish_every")
        self.loaded_from: tuple[str | None, Path] | None = None
        self.profile: str | None = None
        self.settings = Settings(
            engine=engine,
            hold_above=hold_above,
            max_file_memory=max_file_memory,
            memory_limit=memory_limit,
            follow_links=follow_links,
            gone_after=Duration.parse(gone_after, "Definitions: gone_after"),
            partial=partial,
            runner=check_runner(runner),
            distribute_above=distribute_above,
            fallback=fallback,
            resident_memory=resident_memory,
            publish_every=publish_every,
        )
        self.runner, self.store, self.online_store = runner, store, online_store
        self.features = features_by_name(features)
        check_chains(self.features)
        self.services = services_by_name(services, self.features)
        works = 'write name="shop", or leave it out'
        self._name = None if name is None else text(name, "Definitions: name", works)
        self._root = parsed_root(root)
        folder = calling_folder(__name__)
        self.folder, self.root = folder, absolute(folder / self._root)
        self._described = described_places(store, online_store, folder, self._root)
        for feature in self.features:
            self.source(feature)  # refuses what can name no file
        if self._described[0] == describe_store(store):  # else the store has yet to find its place
            check_places(self)

    def __repr__(self) -> str:
        """Its name, how many features and services it has, and its store."""
        return f"Definitions({self.name!r}: {sizes(self.features, self.services)}, {self.store!r})"

    @property
    def name(self) -> str:
        """The project's name."""
        return self._name or self.root.name

    @property
    def partial(self) -> bool:
        """Whether other definitions have features in the same store."""
        return self.settings.partial

    @property
    def keeper(self) -> Keeper:
        """The name of these definitions, as a store notes who keeps a feature or a service."""
        return Keeper(self.name, self.partial)

    @property
    def online_store(self) -> OnlineStore | None:
        """The target of `push`; its readers accept only rows of these definitions' store."""
        return self._online_store

    @online_store.setter
    def online_store(self, online: OnlineStore | None) -> None:
        self._online_store = None if online is None else online.owned_by(self.store)

    @property
    def hash(self) -> str:
        """SHA-256 over everything that decides what is done and where: workers with the same one agree."""
        services = self.services.values()
        return hash_of(self.features.values(), services, self.settings, self._described)

    def located_at(self, folder: Path) -> Definitions:
        """The same definitions, with all paths that were given as relative ones starting from a folder."""
        check_arguments("located_at", folder=folder)
        located = copy.copy(self)
        located.folder, located.root = absolute(folder), absolute(folder / self._root)
        located.store = self.store.located_at(folder)
        located.online_store = self.online_store
        check_places(located)
        return located

    def placed(
        self, store: Store | None, online_store: OnlineStore | None, root: str | None
    ) -> Definitions:
        """The same definitions over other stores or another root; None leaves one as it is. `located_at` follows."""
        other = copy.copy(self)
        other.store = store or self.store
        other._root = self._root if root is None else parsed_root(root)
        other.online_store = online_store or self.online_store
        other._described = described_places(
            other.store, other.online_store, self.folder, other._root
        )
        return other

    def source(self, name: str, store: Store | None = None) -> RowSource:
        """The source of a feature, with the sources of its tables.

        store: where a feature that it reads is looked up, by default the definitions' store.
        """
        check_optional("source", store=store)
        follow = self.settings.follow_links
        return source_of(self.feature(name), self.root, store or self.store, follow_links=follow)

    def feature(self, name: str) -> Feature:
        """The feature with this name; DefinitionError, with near names, if there is none."""
        return feature_named(self.features, name)

    def selected(
        self,
        features: Iterable[str] | str | None = None,
        tags: Iterable[str] | str | None = None,
    ) -> list[str]:
        """Names of the features that are meant by name and tag; all by default.

        Raises DefinitionError for a name or tag that no feature has.
        """
        return selected(self.features, features, tags)

    def build(
        self,
        features: Sequence[str] | str | None = None,
        tags: Sequence[str] | str | None = None,
        version: str | None = None,
        engine: str | None = None,
        online: bool = False,
        full: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> dict[str, BuildResult]:
        """Refresh features, and with `online` push them.

        features, tags: the selection; all by default. version: publish under this number in any case.
        engine: override for this build. full: evaluate everything anew. progress: called with each name before.

        A feature is built behind the features that it is made from. One failing feature does not stop the
        others; BuildError then lists all failures.
        """
        check_arguments("build", online=online, full=full)
        check_optional("build", version=version, engine=engine, progress=progress)
        if online:
            self._online()
        options = replace(self.settings.options, version=version, full=full)

        def built(name: str, reading: SourceReading | None, options: Options) -> BuildResult:
            result = self._refresh(name, self.store, engine, options, reading, is_pushed=online)
            if not online:
                return result
            pushed = self.push(name, engine=engine, diff=result.diff)
            # Events in memory, for the push alone: those of many features would be kept until the last is built.
            diff = result.diff and result.diff.alone
            return replace(result, keys_written=pushed.written + pushed.deleted, diff=diff)

        return build_each(self, self.selected(features, tags), built, options, engine, progress)

    def plan(
        self,
        features: Sequence[str] | str | None = None,
        tags: Sequence[str] | str | None = None,
        version: str | None = None,
        engine: str | None = None,
        full: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> dict[str, BuildResult]:
        """Results that `build` would give right now: the same work, stopped before publishing.

        With an online store, `keys_written` is the number of keys that a push would touch; if it does not answer,
        a warning says so. A feature that is made from another is planned on what the other's plan would publish.
        Nothing is written to the store: the right to read it is enough. Raises BuildError as
        `build` does.
        """
        check_arguments("plan", full=full)
        check_optional("plan", version=version, engine=engine, progress=progress)
        options = replace(self.settings.options, publish=False, version=version, full=full)
        names = in_order(self.features, self.selected(features, tags))
        readings = Readings(self.features, names, options.max_file_memory)

        def plan_one(name: str) -> BuildResult:
            draft = drafts.of(name)
            result = self._refresh(name, draft, engine, options, readings.of(name), is_pushed=False)
            return with_keys(result, draft, self.online_store, engine_of(self, name, engine))

        with Drafts(self.store, self.features) as drafts:
            return each_in_turn(names, plan_one, progress)

    def rollback(self, name: str, version: str | None = None) -> Pointer:
        """Serve an older version, offline and, where there is an online store, online at once."""
        check_arguments("rollback", name=name)
        check_optional("rollback", version=version)
        pointer = rollback(self.store, name, version)
        if self.online_store is not None:
            self._push(name)
        return pointer

    def refresh(
        self,
        name: str,
        *,
        attended: bool = True,
        engine: str | None = None,
        version: str | None = None,
        full: bool = False,
        careful: bool = False,
        options: Options | None = None,
        reading: SourceReading | None = None,
    ) -> BuildResult:
        """Bring one feature's offline store to the present state of its source.

        careful: decode new files in processes of their own, e.g. since one has ended this process before.
        options: all the ways at once, in place of the others and of the definitions' settings.
        reading: through which other features of the source have read its files.
        Attended, it takes constants and helpers of the function as they are now, as a notebook changes them;
        else as they were when the definitions were loaded.
        """
        check_arguments("refresh", attended=attended, full=full, careful=careful)
        check_optional("refresh", version=version, engine=engine, options=options, reading=reading)
        chosen = options or replace(
            self.settings.options, attended=attended, version=version, full=full, careful=careful
        )
        return self._refresh(name, self.store, engine, chosen, reading)

    def _refresh(
        self,
        name: str,
        store: Store,
        engine: str | None,
        options: Options,
        reading: SourceReading | None,
        is_pushed: bool = True,
    ) -> BuildResult:
        feature, source = self.feature(name), self.source(name, store)
        check_place(self, name, source)
        engine_ = engine_of(self, name, engine)
        ahead = PushAhead(self.online_store if is_pushed else None, engine_)
        options = options_of(self, name, store, options, engine, ahead.on_gathered)
        with feature.code.looked_at() if options.attended else nullcontext():
            result = refresh(feature, source, store, engine_, options, reading)
        warnings = feature.code.warnings() if options.attended else ()
        return ahead.handed_on(replace(result, warnings=(*result.warnings, *warnings)))

    def run_task(self, task: str) -> str:
        """Run a task of a build, given and returned as JSON; its parts go to the store.

        Raises TaskRefused where these are not the definitions or the releases of the task; otherwise as a build does.
        """
        check_arguments("run_task", task=task)
        return task_run(self, task)

    def push(
        self, name: str, *, engine: str | None = None, diff: VersionsDiff | None = None
    ) -> PushResult:
        """Bring the online store to one feature's served version, as of now.

        diff: that of the refresh before it, so that events need not be compared again.
        """
        self.feature(name)
        check_optional("push", engine=engine, diff=diff)
        return self._push(name, engine, diff=diff)

    def adopt(self, name: str) -> PushResult:
        """Push a feature whose rows online another store owns, and own them from now on.

        The other's pushes are refused from then on, as are other definitions of it in this store. Readers get NotServed until this push has ended.
        """
        self._online()
        take_over(self, self.feature(name).name)
        return self._push(name, adopt=True)

    def _push(self, name: str, engine: str | None = None, **how: Any) -> PushResult:
        online, by = self._online(), engine_of(self, name, engine)
        owner = owner_of(self.store, self.name, str(self.root))
        sharing = push_distribution_of(self, engine_name_of(self, name, engine))
        return push(name, self.store, online, by, owner, sharing=sharing, **how)

    def audit(self, name: str, share: Share = SOME) -> Audit:
        """Hold a feature's served version against the raw files; the result is kept in the store."""
        feature, source = self.feature(name), self.source(name)
        check_arguments("audit", share=share)
        training, most = stored_values, self.settings.max_file_memory
        with feature.code.looked_at():
            return audit(feature, source, self.store, training, self.online_store, share, most)

    def close(self) -> None:
        """Let go of connections."""
        if self.online_store is not None:
            self.online_store.close()

    def _online(self) -> OnlineStore:
        return given_online_store(self.online_store)
