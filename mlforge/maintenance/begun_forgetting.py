"""The end of a `mlforge forget` that was killed, by whoever refreshes the feature next."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Self
from weakref import WeakKeyDictionary

from mlforge.core.forgotten import Forgotten
from mlforge.core.logs import get_logger
from mlforge.core.values import Version
from mlforge.engines import Engine
from mlforge.errors import IntegrityError
from mlforge.maintenance.forgetting import publish_without, scrub
from mlforge.store import Store

PAUSE_S, _SHARE = 60.0, 100
"""The least pause between two tries where old versions have to stay, and the pause in times of what a try takes: it reads all that is stored."""

log = get_logger(__name__)


def end_begun(store: Store, name: str, engine: Engine) -> None:
    """End what a killed `mlforge forget` has left of a feature: publish a version without the rows, then delete what holds them.

    Notes that name an entity stay: its value is not known here. Versions that somebody reads, or of which events are damaged, stay,
    too, and with them the note that the feature may hold rows: this process tries again once that may have changed, not at
    each refresh. Raises as `publish_without`.
    """
    forgotten, left = store.forgotten(), _LEFT.setdefault(store, {})
    if name in left and left[name].stays(store, name, forgotten):
        return
    left.pop(name, None)
    began = time.monotonic()
    diff = publish_without(store, name, engine)
    try:
        scrubbed = scrub(store, name, ())
    except IntegrityError as error:
        log.error("versions may hold rows of forgotten entities", feature=name, error=str(error))
        left[name] = _Left.of(store, name, forgotten, began)
        return
    if scrubbed.in_use:
        left[name] = _Left.of(store, name, forgotten, began)
    else:
        store.end_forgetting([name], forgotten)
    log.warning(
        "a forgetting that was killed is ended",
        feature=name,
        rows=diff.events.rows if diff else 0,
        versions=scrubbed.versions,
        in_use=scrubbed.in_use,
    )


@dataclass(frozen=True, slots=True)
class _Left:
    """The state in which a try has left a feature: what is served holds no row of forgotten entities, and versions before may."""

    forgotten: str
    served: Version | None
    versions: frozenset[Version]
    until_s: float

    @classmethod
    def of(cls, store: Store, name: str, forgotten: Forgotten, began: float) -> Self:
        """After a try that began so, by the monotonic clock."""
        pointer, ended = store.pointer(name), time.monotonic()
        until_s = ended + max(PAUSE_S, _SHARE * (ended - began))
        versions = frozenset(store.versions(name))
        return cls(forgotten.digest, pointer.version if pointer else None, versions, until_s)

    def stays(self, store: Store, name: str, forgotten: Forgotten) -> bool:
        """Whether another try would come to no more: nothing further was forgotten, no version has gone, none of those before is served, and little time has passed."""
        pointer = store.pointer(name)
        return (
            time.monotonic() < self.until_s
            and forgotten.digest == self.forgotten
            and (pointer is None or self.served is None or pointer.version >= self.served)
            and self.versions.issubset(store.versions(name))
        )


_LEFT: MutableMapping[Store, dict[str, _Left]] = WeakKeyDictionary()
