"""A project as an orchestrator sees it: where its definitions are, and the deeds that a schedule may do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlforge.build.result import BuildResult, Options
from mlforge.core import clock
from mlforge.core.arguments import shown
from mlforge.core.expression.kinds import instant_of
from mlforge.core.paths import path_of
from mlforge.core.values import Duration, to_iso
from mlforge.definitions.building import build_each
from mlforge.definitions.loader import load
from mlforge.definitions.registry import Definitions
from mlforge.definitions.running import workers_url_of
from mlforge.errors import BuildError, DefinitionError
from mlforge.registry.deeds import SCHEDULED
from mlforge.registry.live import live_of, note_deeds, published
from mlforge.sources.source_reading import SourceReading
from mlforge.store import Store


@dataclass(frozen=True, slots=True)
class Project:
    """A project by the place of its definitions.

    definitions: the absolute path of a file or a folder, or `module:name`. profile: of the `mlforge.toml` beside
    them, if not the one that it names as its default. Raises DefinitionError for a relative path: a task may run in any
    folder.
    """

    definitions: str
    profile: str | None = None

    def __post_init__(self) -> None:
        is_path = "/" in self.definitions or self.definitions.endswith(".py")
        if not self.definitions or (is_path and not path_of(self.definitions).is_absolute()):
            raise DefinitionError(
                f"{shown(self.definitions)} is not where definitions are: a task may run in any folder; "
                "write an absolute path such as '/srv/shop/definitions.py', or 'shop.definitions:defs' for a module"
            )

    def load(self) -> Definitions:
        """The definitions, read afresh, with a relative store and sources in their own folder; raises as the loader."""
        return load(self.definitions, here=Path.cwd(), profile=self.profile)


def build(
    definitions: Definitions, names: Sequence[str] | None = None, *, full: bool = False
) -> dict[str, BuildResult]:
    """Refresh features as a worker does: nobody looks on, so what asks for a person is held.

    names: all by default. Raises BuildError as `Definitions.build`.
    """

    def built(name: str, reading: SourceReading | None, options: Options) -> BuildResult:
        return definitions.refresh(name, options=options, reading=reading)

    options = replace(definitions.settings.options, attended=False, full=full)
    return build_each(definitions, definitions.selected(names), built, options)


def note(definitions: Definitions, results: Mapping[str, BuildResult]) -> None:
    """Add the versions that a build has published to the event log of the project's workers, if there are any: it tells of theirs alone."""
    changed = {name: result for name, result in results.items() if result.changed}
    live = live_of(definitions, workers_url_of(definitions)) if changed else None
    if live is not None:
        with closing(live):
            note_deeds(live, SCHEDULED, published(changed))


@dataclass(frozen=True, slots=True)
class Attempt:
    """The outcome of a build. results: by feature, of those that could be built. failures: a sentence for each of the others."""

    results: Mapping[str, BuildResult]
    failures: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, definitions: Definitions, names: Sequence[str] | None = None, *, full: bool = False
    ) -> Attempt:
        """Build as `build`, and go on with what could be built where something could not."""
        try:
            return cls(build(definitions, names, full=full))
        except BuildError as error:
            return cls(error.results, tuple(map(str, error.failures.values())))

    def pushed(self, definitions: Definitions) -> Attempt:
        """The attempt, once the online store has what is served, be it new or held."""
        results = {**self.results}
        for name, result in self.served.items():
            push = definitions.push(name, diff=result.diff)
            results[name] = replace(result, keys_written=push.written + push.deleted)
        return replace(self, results=results)

    @property
    def served(self) -> dict[str, BuildResult]:
        """The results of features that have a version; of one that is held it is the version before."""
        return {name: result for name, result in self.results.items() if result.version is not None}

    @property
    def holds(self) -> list[str]:
        """A sentence for each feature whose version is held back until a person has looked."""
        return [
            f"{name} is held: {result.held}; 'mlforge approve {name}' publishes it"
            for name, result in self.results.items()
            if result.held
        ]


def outcome(result: BuildResult) -> dict[str, Any]:
    """A build's outcome for one feature as JSON."""
    return {
        "feature": result.feature,
        "version": result.version,
        "rows": result.rows,
        "changed": result.changed,
        "reason": result.reason,
        "held": result.held,
        "quarantined": {bad.path: bad.reason for bad in result.quarantined},
        "rows_dropped": dict(result.rows_dropped),
        "warnings": list(result.warnings),
    }


@dataclass(frozen=True, slots=True)
class Fresh:
    """How new a feature's events must be: the newest at most `within` old, or at or after the instant `after`.

    after: text in ISO format, of UTC where it names no zone. Raises DefinitionError unless one of the two is given.
    """

    within: str | None = None
    after: str | None = None

    def __post_init__(self) -> None:
        if (self.within is None) == (self.after is None):
            raise DefinitionError(
                'say how fresh: within="1h" for events at most so old, or after="2026-11-28T00:00" for events since then'
            )

    def since(self, now: int) -> int:
        """The instant, in UTC microseconds, that the newest event must have reached; DefinitionError for no such text."""
        if self.within is not None:
            return now - Duration.parse(self.within, "within").us
        instant = instant_of(str(self.after))
        if instant is None:
            raise DefinitionError(
                f"after={shown(self.after)} is no instant; write '2026-11-28T00:00'"
            )
        return instant

    def met(self, store: Store, feature: str) -> dict[str, Any] | None:
        """The version that is fresh, as JSON; None while there is none. Raises StoreError where the store cannot be read."""
        served, now = store.latest(feature), clock.now()
        newest = None if served is None else served.reached(now)
        if served is None or newest is None or newest < self.since(now):
            return None
        return {
            "feature": feature,
            "version": str(served.version),
            "rows": served.row_count,
            "newest": to_iso(newest),
        }
