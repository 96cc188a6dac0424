"""The project as pages read it: entries, state and the event log, each kept for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Generic, TypeVar

from mlforge.definitions.registry import Definitions
from mlforge.errors import OnlineError
from mlforge.online import OnlineStore
from mlforge.registry.catalogue import Registry
from mlforge.registry.entries import FeatureEntry, ServiceEntry
from mlforge.registry.graph import Node
from mlforge.registry.live import Happening, Live

T = TypeVar("T")
KEPT_S, ENTRIES_KEPT_S = 1.0, 10.0
"""How long what was read is shown, at least: several readers who ask at once are answered by one reading."""
_REST = 4
"""Times as long as a reading took that pass before the next: readers of a large project do not keep it busy."""
RECENT = 30


@dataclass
class _Kept(Generic[T]):
    """A value that is read anew once it is older than a while."""

    read: Callable[[], T]
    seconds: float = KEPT_S
    _value: T | None = None
    _until: float = float("-inf")
    _lock: Lock = field(default_factory=Lock)

    def get(self) -> T:
        with self._lock:
            began = time.monotonic()
            if self._value is None or began > self._until:
                self._value = self.read()
                ended = time.monotonic()
                self._until = ended + max(self.seconds, _REST * (ended - began))
            return self._value

    def forget(self) -> None:
        self._until = float("-inf")


@dataclass(frozen=True, slots=True)
class State:
    """The project's state: the document of its status, None where no workers are known; problem: why it is not known."""

    document: Mapping[str, Any] | None
    problem: str | None = None

    def of(self, feature: str) -> Mapping[str, Any] | None:
        """The state of one feature; None where it is not known."""
        features = self.document["features"] if self.document else ()
        return next((each for each in features if each["feature"] == feature), None)

    def of_service(self, service: str) -> Mapping[str, Any] | None:
        """The state of a service; None where it is not known."""
        services = self.document["services"] if self.document else ()
        return next((each for each in services if each["service"] == service), None)


class ProjectView:
    """The sides of a project that pages show. All calls block."""

    def __init__(self, definitions: Definitions, online: OnlineStore, live: Live | None) -> None:
        self.definitions, self.online, self.live = definitions, online, live
        self._entries = _Kept(lambda: Registry.of(definitions).entries(), ENTRIES_KEPT_S)
        self._last_id: str | None = None
        self._state = _Kept(self._read_state)

    @property
    def name(self) -> str:
        """The project's name."""
        return self.definitions.name

    def entries(self) -> Mapping[Node, FeatureEntry | ServiceEntry]:
        """The entries of all features and services: read anew once something has happened, or after a while."""
        last_id = self._newest()
        if last_id != self._last_id:
            self._last_id = last_id
            self.forget_entries()
        return self._entries.get()

    def places(self, feature: str) -> tuple[str, ...]:
        """Where files of a feature are dropped; none for one that is made from another, or is only stored."""
        own = self.definitions.features.get(feature)
        if own is None or own.upstream is not None:
            return ()
        return tuple(map(str, self.definitions.source(feature).roots))

    def registry(self) -> Registry:
        """The registry as it is now: for one entry of it, with all that is around."""
        return Registry.of(self.definitions)

    def state(self) -> State:
        """The state of the project."""
        return self._state.get()

    def forget(self) -> None:
        """Read all anew at the next call, as a deed has changed it."""
        self.forget_entries()
        self._state.forget()

    def forget_entries(self) -> None:
        """Read the entries anew at the next call, as something has happened."""
        self._entries.forget()

    def recent(self) -> list[Happening]:
        """The last entries of the event log, the last first; none where no workers are known, or their server is away."""
        try:
            return self.live.recent(RECENT) if self.live else []
        except OnlineError:
            return []

    def _newest(self) -> str | None:
        """The id of the event log's last entry; None where it is not known, or was not known a moment ago."""
        if self.live is None or self.state().document is None:
            return None
        try:
            return self.live.last_id()
        except OnlineError:
            return None

    def _read_state(self) -> State:
        if self.live is None:
            return State(None)
        try:
            return State(self.live.status())
        except OnlineError as error:
            return State(None, str(error))
