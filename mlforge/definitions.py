"""Definitions: the features of a project, where they are stored, and what can be done with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from mlforge.build import refresh
from mlforge.engines import engine_named
from mlforge.errors import BuildError, DefinitionError, MlforgeError, OnlineError, UnsupportedStore
from mlforge.features import Feature, check_engine
from mlforge.manifest import config_of
from mlforge.online import OnlineStore
from mlforge.operations import rollback
from mlforge.outcomes import BuildResult, Options
from mlforge.push import PushResult, planned, push
from mlforge.sources import Source
from mlforge.store import LocalStore, Pointer, Store


class Definitions:
    """A project's features and stores.

    store: where versions go. features: features, and modules whose features are taken.
    online_store: where `push` goes. engine: the default of features that name none.
    name: by default the root's folder name. root: what relative sources start from; by default the
        folder of the definitions file, else the current one.

    Raises DefinitionError for two features of one name, an unknown engine, or a store within a source.
    """

    def __init__(
        self,
        store: Store,
        features: Sequence[Feature | ModuleType],
        online_store: OnlineStore | None = None,
        engine: str = "polars",
        name: str | None = None,
        root: str | Path | None = None,
    ) -> None:
        if not isinstance(store, Store):
            raise DefinitionError(
                f"Definitions: store must be a Store such as LocalStore('feature_store'), not {store!r}"
            )
        self.store = store
        self.online_store = online_store
        self.engine = check_engine(engine, "Definitions")
        self.features = _named(features)
        self.root = None if root is None else Path(root).expanduser().absolute()
        self._name = name
        if self.root is not None:
            self._check_places()

    @property
    def name(self) -> str:
        """The project's name."""
        return self._name or self._base.name

    @property
    def hash(self) -> str:
        """Over everything that decides what a refresh does: two workers with the same one agree."""
        described = {name: _fingerprint(feature) for name, feature in self.features.items()}
        text = json.dumps([described, self.engine, repr(self.store)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def located_at(self, folder: Path) -> Definitions:
        """The same definitions with a root for relative paths, unless they have one."""
        if self.root is not None:
            return self
        store = self.store
        if isinstance(store, LocalStore):
            store = store.located_at(folder)
        features = list(self.features.values())
        return Definitions(store, features, self.online_store, self.engine, self._name, folder)

    def source(self, name: str) -> Source:
        """Where a feature's files are."""
        return Source.of(self.feature(name).source, self._base)

    def feature(self, name: str) -> Feature:
        """The feature of that name; DefinitionError naming those there are."""
        if name not in self.features:
            raise DefinitionError(
                f"no feature {name!r}; there are {', '.join(sorted(self.features)) or 'none'}"
            )
        return self.features[name]

    def selected(
        self, features: Iterable[str] | None = None, tags: Iterable[str] | None = None
    ) -> list[str]:
        """Names of the features asked for by name and tag; all by default."""
        names = (
            list(self.features)
            if features is None
            else [self.feature(name).name for name in features]
        )
        if tags is None:
            return names
        wanted = set(tags)
        unknown = wanted - {tag for feature in self.features.values() for tag in feature.tags}
        if unknown:
            raise DefinitionError(f"no feature has the tag {', '.join(sorted(map(repr, unknown)))}")
        return [name for name in names if wanted & set(self.features[name].tags)]

    def build(
        self,
        features: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
        version: str | None = None,
        engine: str | None = None,
        online: bool = False,
        full: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> dict[str, BuildResult]:
        """Refresh features, and with `online` push them.

        features, tags: which; all by default. version: publish under this number in any case.
        engine: override for this build. full: evaluate everything anew. progress: called with each
            feature's name before it is built.

        One failing feature does not stop the others; BuildError then lists all failures.
        """
        if engine is not None:
            check_engine(engine, "build")
        if online:
            self._online()
        results: dict[str, BuildResult] = {}
        failures: dict[str, Exception] = {}
        for name in self.selected(features, tags):
            if progress is not None:
                progress(name)
            try:
                results[name] = self.refresh(name, engine=engine, version=version, full=full)
                if online:
                    pushed = self.push(name, engine=engine)
                    results[name] = replace(
                        results[name], keys_written=pushed.written + pushed.deleted
                    )
            except MlforgeError as error:
                failures[name] = error
        if failures:
            raise BuildError(
                failures, {name: r for name, r in results.items() if name not in failures}
            )
        return results

    def plan(
        self,
        features: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
        version: str | None = None,
        engine: str | None = None,
        full: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> dict[str, BuildResult]:
        """What `build` would do right now: the same work, stopped before publishing.

        With an online store, `keys_written` tells how many keys a push would touch; if it does not answer,
        a warning does. Partials are kept, so the build that follows computes no file twice. Raises BuildError
        as `build` does.
        """
        results: dict[str, BuildResult] = {}
        failures: dict[str, Exception] = {}
        for name in self.selected(features, tags):
            if progress is not None:
                progress(name)
            try:
                results[name] = self._planned(
                    name, engine, Options(publish=False, version=version, full=full)
                )
            except MlforgeError as error:
                failures[name] = error
        if failures:
            raise BuildError(failures, results)
        return results

    def rollback(self, name: str, version: str | None = None) -> Pointer:
        """Serve an older version, offline and, where there is an online store, online at once."""
        pointer = rollback(self.store, name, version)
        if self.online_store is not None:
            push(name, self.store, self.online_store, engine_named(self.engine))
        return pointer

    def _planned(self, name: str, engine: str | None, options: Options) -> BuildResult:
        result = self.refresh(name, engine=engine, options=options)
        if self.online_store is None or result.manifest is None:
            return result
        chosen = engine_named(self._engine(self.feature(name), engine))
        try:
            keys = planned(result.manifest, self.store, self.online_store, chosen)
        except OnlineError as error:
            warning = f"how many keys a push would write is not known: {error}"
            return replace(result, warnings=(*result.warnings, warning))
        return replace(result, keys_written=keys)

    def refresh(
        self,
        name: str,
        *,
        attended: bool = True,
        engine: str | None = None,
        version: str | None = None,
        full: bool = False,
        options: Options | None = None,
    ) -> BuildResult:
        """Bring one feature's offline store to the present state of its source.

        options: all the ways at once, in place of attended, version and full.
        """
        chosen = options or Options(attended=attended, version=version, full=full)
        feature = self.feature(name)
        self._check_place(feature)
        return refresh(
            feature,
            self.source(name),
            self.store,
            engine_named(self._engine(feature, engine)),
            chosen,
        )

    def push(self, name: str, *, engine: str | None = None) -> PushResult:
        """Bring the online store to one feature's served version, as of now."""
        feature = self.feature(name)
        return push(name, self.store, self._online(), engine_named(self._engine(feature, engine)))

    def close(self) -> None:
        """Let go of connections."""
        if self.online_store is not None:
            self.online_store.close()

    def _engine(self, feature: Feature, override: str | None) -> str:
        return override or feature.engine or self.engine

    def _online(self) -> OnlineStore:
        if self.online_store is None:
            raise OnlineError(
                "these definitions have no online store; give Definitions(online_store=RedisStore(...))"
            )
        return self.online_store

    @property
    def _base(self) -> Path:
        return self.root or Path.cwd()

    def _check_places(self) -> None:
        for feature in self.features.values():
            self._check_place(feature)

    def _check_place(self, feature: Feature) -> None:
        """A store inside a source would feed on itself."""
        if not isinstance(self.store, LocalStore):
            return
        source = Source.of(feature.source, self._base)
        if source.matches(self.store.path / feature.name / "1.0.0" / "data.parquet"):
            raise UnsupportedStore(
                f"{feature.name}: the store {self.store.path} lies inside the source {source.root}; "
                "put them side by side"
            )


def _named(features: Sequence[Feature | ModuleType]) -> dict[str, Feature]:
    found: dict[str, Feature] = {}
    for entry in features:
        if isinstance(entry, Feature):
            listed = [entry]
        elif isinstance(entry, ModuleType):
            listed = [value for value in vars(entry).values() if isinstance(value, Feature)]
        else:
            raise DefinitionError(
                f"Definitions: {entry!r} is not a feature; decorate the function with @feature(...)"
            )
        for feature in listed:
            if found.setdefault(feature.name, feature) is not feature:
                raise DefinitionError(
                    f"Definitions: two features are named {feature.name!r}; give one of them name="
                )
    return found


def _fingerprint(feature: Feature) -> Mapping[str, object]:
    return {
        "config": config_of(feature.spec),
        "code": feature.code_hash,
        "source": feature.source,
        "validators": [[column, *map(str, rules)] for column, rules in feature.validators.items()],
        "tags": feature.tags,
        "description": feature.description,
        "engine": feature.engine,
        "incremental": feature.incremental,
    }
