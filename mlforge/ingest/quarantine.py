"""Files set aside, in the books alone: each with its reason, and tried again when it or the code changes."""

from __future__ import annotations

from collections.abc import Mapping

from mlforge.core import clock
from mlforge.errors import ColumnNotFound, DataError, FunctionError, MlforgeError, RuleMisfit
from mlforge.store import Quarantined

AMONG = "among:"
"""Before the last part of a memo: the hash of all files, where a file was set aside because of what others hold."""
_OF_DEFINITION = (ColumnNotFound, DataError, FunctionError, RuleMisfit)


class Quarantine:
    """The files quarantined before this ingestion, and the files quarantined during it."""

    def __init__(self, before: Mapping[str, Quarantined]) -> None:
        self.before, self.now = before, dict[str, Quarantined]()
        self.errors: list[MlforgeError] = []

    def repeats(self, path: str, memo: str) -> str | None:
        """The reason for which a file was set aside before, if the same content and code were tried then."""
        entry = self.before.get(path)
        return entry.reason if entry is not None and entry.memo == memo else None

    def add(self, path: str, error: MlforgeError, memo: str) -> None:
        """Set a file aside, since the same content was first set aside for the same code, whatever others held.

        memo: the content and code that were tried, empty if it was not read.
        """
        entry = self.before.get(path)
        since = entry.since if entry and _alone(entry.memo) == _alone(memo) else clock.now()
        self.now[path] = Quarantined(path, str(error), memo, since)
        self.errors.append(error)

    def unite(self) -> None:
        """Replace the errors of all files by one about the definition, if every file fails the same way.

        For a source none of whose files has ever fitted. What stands in the way of reading a file, or in
        its values, is the file's own.
        """
        if len(self.errors) < 2 or len(self.now) < len(self.errors):
            return
        causes = {
            (type(error), str(error).replace(path, "").partition(";")[0])
            for path, error in zip(self.now, self.errors, strict=False)
        }
        first = self.errors[0]
        if len(causes) > 1 or not isinstance(first, _OF_DEFINITION):
            return
        message = f"{first}; all {len(self.errors)} files are alike in this: the definition does not fit the source"
        self.errors = [type(first)(message)]
        self.now = {}


def _alone(memo: str) -> str:
    return memo.partition(AMONG)[0].rstrip()
