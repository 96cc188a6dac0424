"""Files set aside, in the books alone: each with its reason, and tried again when it or the code changes."""

from __future__ import annotations

from collections.abc import Mapping

from mlforge.core import clock
from mlforge.errors import MlforgeError
from mlforge.store import Quarantined


class Quarantine:
    """The files that were set aside before this ingestion, and those that are in it."""

    def __init__(self, before: Mapping[str, Quarantined]) -> None:
        self.before, self.now = before, dict[str, Quarantined]()
        self.errors: list[MlforgeError] = []

    def repeats(self, path: str, memo: str) -> str | None:
        """The reason for which a file was set aside before, if the same content and code were tried then."""
        known = self.before.get(path)
        return known.reason if known is not None and known.memo == memo else None

    def add(self, path: str, error: MlforgeError, memo: str) -> None:
        """Set a file aside. memo: the content and code that were tried, empty if it was not read."""
        known = self.before.get(path)
        since = known.since if known and known.memo == memo else clock.now()
        self.now[path] = Quarantined(path, str(error), memo, since)
        self.errors.append(error)
