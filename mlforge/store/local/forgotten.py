"""`_metadata/forgotten.json`: salted hashes of the entities that the store has forgotten."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from mlforge.core.failpoints import reach
from mlforge.core.forgotten import Forgotten
from mlforge.errors import StoreBusy
from mlforge.store.local import io
from mlforge.store.local.file_memo import FileMemo
from mlforge.store.local.lock import exclusive
from mlforge.store.local.paths import check_format, no_link, well_formed

FORMAT = 1


class ForgottenFile:
    """The document of a store's folder, read once while the file stays as it is."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._memo = FileMemo[Forgotten]()

    @property
    def path(self) -> Path:
        """Where it lies."""
        return no_link(self._store / "_metadata") / "forgotten.json"

    def read(self) -> Forgotten:
        """The document; nothing is forgotten where there is none."""
        forgotten = self._memo.of(self.path, self._parsed)
        return Forgotten() if forgotten is None else forgotten

    def write(self, forgotten: Forgotten) -> None:
        """Replace the document, whole or not at all; what another process has forgotten meanwhile stays forgotten."""
        with io.storage_errors(self._store):
            self._store.mkdir(parents=True, exist_ok=True)
        with exclusive(self._store / ".forgetting"):
            now = self.read()
            if now and now.salt != forgotten.salt:
                raise StoreBusy(
                    f"{self.path}: another process has begun it at the same time; run the same command again"
                )
            self._replace(forgotten.together(now))
        reach("forgotten.written")

    def end(self, features: Collection[str], forgotten: Forgotten) -> None:
        """Strike features out of those that may hold rows of entities, unless more was forgotten meanwhile."""
        with exclusive(self._store / ".forgetting"):
            now = self.read()
            ended = now.ended(features, forgotten)
            if ended != now:
                self._replace(ended)

    def _parsed(self) -> Forgotten:
        path = self.path
        with well_formed(path):
            document = io.read_json(path) or {}
            check_format(document, path, FORMAT)
            return Forgotten.from_json(document)

    def _replace(self, forgotten: Forgotten) -> None:
        io.write_json(self.path, {"format": FORMAT, **forgotten.to_json()})
