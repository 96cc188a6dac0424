"""The event log and state of a project, as its workers have them: a contract that the package of the workers fills."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from typing import Any, TypeAlias

from mlforge.build.result import BuildResult
from mlforge.core.logs import get_logger
from mlforge.core.values import to_iso
from mlforge.definitions.registry import Definitions
from mlforge.errors import NoQueue, OnlineError

GROUP = "mlforge.live"
"""The entry point group of functions `(definitions, redis_url) -> Live`."""
Document: TypeAlias = Mapping[str, Any]
Noted: TypeAlias = tuple[str, Document]
"""A feature, and the details of what was done to it."""
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Happening:
    """An entry of the event log.

    id: entries are read on from it. at: UTC microseconds. kind: `refreshed`, `failed`, `held`, `rolled_back`, ...
    feature: None where it concerns none. details: by kind, as the worker wrote them: input.
    """

    id: str
    at: int
    kind: str
    feature: str | None
    details: Document

    @property
    def document(self) -> dict[str, Any]:
        """The entry as JSON has it: its instant in ISO 8601."""
        return {**asdict(self), "details": dict(self.details), "at": to_iso(self.at)}


class Live(ABC):
    """The event log, the state and the queue of a project. Each call blocks, and raises OnlineUnavailable without a server."""

    @abstractmethod
    def status(self) -> Document:
        """The document of `mlforge status --json`."""

    @abstractmethod
    def recent(self, count: int) -> list[Happening]:
        """The last entries of the event log, at most `count`, the last first."""

    @abstractmethod
    def after(self, id: str, wait_ms: int | None = None) -> list[Happening]:
        """The entries after that id, the first first; waits for one for so long, None asks and does not wait."""

    @abstractmethod
    def last_id(self) -> str:
        """The id of the last entry, `0` before the first."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections; the next call makes new ones."""

    @abstractmethod
    def has_their_definitions(self) -> bool:
        """Whether this process has the definitions that workers are at work by; True where none are."""

    @abstractmethod
    def retry(self, feature: str, path: str | None = None) -> None:
        """Ask workers to try a feature again, or a quarantined file of it, by its path within the source."""

    @abstractmethod
    def write(self, kind: str, feature: str, details: Document) -> None:
        """Add an entry to the event log."""

    @abstractmethod
    def hint(self, addresses: Sequence[str]) -> None:
        """Have the watcher list the sources that objects of these addresses, such as `s3://shop/drops/a.parquet`, belong to."""


def note_deeds(live: Live | None, kind: str, deeds: Iterable[Noted]) -> None:
    """Add what a person did to the event log, if there is one that answers: the deeds themselves are done. kind: one of `mlforge.registry.deeds`."""
    if live is None:
        return
    try:
        for feature, details in deeds:
            live.write(kind, feature, details)
    except NoQueue as error:  # no worker can be there, nor anybody who reads an event log
        _log.debug("there is no event log", why=str(error))
    except OnlineError as error:  # the next one would wait as long
        _log.warning("what was done is not in the event log", error=str(error))


def published(results: Mapping[str, BuildResult]) -> Iterator[Noted]:
    """The versions that were published, as entries of the event log tell them."""
    for name, result in results.items():
        if result.changed:
            facts = {"bump": result.bump, "rows_changed": result.rows_changed, "rows": result.rows}
            done = {"version": result.version, "reason": result.reason, **facts}
            yield name, {**done, "keys_written": result.keys_written}


def live_of(definitions: Definitions, url: str | None) -> Live | None:
    """The workers' view of a project at a URL of Redis; None without a URL, or where their package is not installed."""
    if url is None:
        return None
    for plugin in entry_points(group=GROUP):
        try:
            live: Live = plugin.load()(definitions, url)
        except ModuleNotFoundError as error:  # of the extra 'worker'
            _log.warning("what workers do is not shown", missing=error.name)
        else:
            return live
    return None
