"""A source that is a table with a log: `delta:path` or `iceberg:path`, in a folder or a bucket.

Each commit to the table is a drop, of which the files are read that came; the rows of files that went do not count any more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlforge.core.paths import path_of
from mlforge.errors import DefinitionError, SourceError, SourceUnavailable, StoreError, Unavailable
from mlforge.sources.listing import Listing
from mlforge.sources.place import Place
from mlforge.sources.row_source import RowSource
from mlforge.sources.source_file import FileStat, Remote, SourceFile, Stat, reused
from mlforge.store.addresses import as_path
from mlforge.store.lakehouse.delta import open_delta
from mlforge.store.lakehouse.iceberg import NAMED, open_iceberg
from mlforge.store.lakehouse.snapshot import Snapshot

Open = Callable[[str, str, Snapshot | None], Snapshot | None]
FORMATS: dict[str, Open] = {"delta": open_delta, "iceberg": open_iceberg}
_TEXT = re.compile(rf"({'|'.join(FORMATS)}):(.+)", re.DOTALL)
_newest: dict[str, Snapshot] = {}
"""The snapshot of each table that was opened last, which serves again as long as it is the newest."""


def names_a_table(text: str) -> bool:
    """Whether a text of a source begins as the name of a table does."""
    return text.startswith(tuple(f"{each}:" for each in FORMATS))


@dataclass(frozen=True)
class LakeSource(RowSource):
    """The rows of a table. name: as the feature names it; format: a key of FORMATS; address: the folder, absolute, or what else it opens."""

    name: str
    format: str
    address: str
    tables: tuple[tuple[str, RowSource], ...] = ()
    places: tuple[Place, ...] = field(default=(), init=False)

    @classmethod
    def of(cls, texts: Sequence[str], base: Path) -> LakeSource:
        """Understand the name of a table; a relative path starts from `base`. Raises DefinitionError."""
        match = _TEXT.fullmatch(texts[0])
        if len(texts) > 1 or match is None:
            raise DefinitionError(
                f"source {', '.join(texts)!r}: a table is a source by itself: write 'delta:events', 'iceberg:s3://bucket/events', "
                "or 'iceberg:CATALOG:NAMESPACE.TABLE'"
            )
        kind, place = match.groups()
        is_path = as_path(place) is None and not (kind == "iceberg" and NAMED.fullmatch(place))
        if is_path:
            place = os.path.abspath(base / path_of(place))  # noqa: PTH100 - links stay
        return cls(texts[0], kind, place.rstrip("/"))

    @property
    def text(self) -> str:
        """The name as it was written."""
        return self.name

    @property
    def is_polled(self) -> bool:
        """True: a commit shows in the table's log."""
        return True

    def scan(self, known: Mapping[str, Stat] | None = None) -> Listing:
        """List the files of the table's newest snapshot. Raises SourceError for a table that cannot be read."""
        snapshot = self._open()
        if snapshot is None:
            return Listing(Path(self.address), exists=False)
        stats = {path: _stat(snapshot, path) for path in snapshot.files}
        return Listing(
            Path(self.address),
            exists=True,
            stats=reused(stats, known or {}),
            tables={name: table.scan() for name, table in self.tables},
            remote=_Reader(snapshot),
            version=f"{self.name}@{snapshot.version}",
        )

    def file(self, path: str) -> SourceFile:
        """The file as the newest snapshot has it; FileNotFoundError where it has none of that path."""
        snapshot = self._open()
        if snapshot is None or path not in snapshot.files:
            raise FileNotFoundError(path)
        stat = FileStat(*_stat(snapshot, path))
        return SourceFile(path, self.absolute(path), stat, _Reader(snapshot))

    def absolute(self, path: str) -> Path:
        """A name for the file, its place in a local table."""
        return Path(self.address, path)

    def absence(self, listing: Listing) -> str:
        """There is no table."""
        return f"no table is at its source {self.name}"

    def why_nothing(self, listing: Listing) -> str | None:
        """A mistyped name, most likely; a table without rows is none."""
        if listing.exists:
            return None
        return f"no {self.format.title()} table is at its source {self.name!r}; correct source=, or make the table"

    def _open(self) -> Snapshot | None:
        key = f"{self.format}:{self.address}"
        try:
            snapshot = FORMATS[self.format](self.name, self.address, _newest.get(key))
        except StoreError as error:
            kind = SourceUnavailable if isinstance(error, Unavailable) else SourceError
            raise kind(f"source {self.name!r} cannot be listed: {error}") from error
        if snapshot is not None:
            _newest[key] = snapshot
        return snapshot


@dataclass(frozen=True)
class _Reader(Remote):
    """Reads the files of a snapshot."""

    snapshot: Snapshot

    def fetch(self, path: str, stat: FileStat) -> bytes | None:
        """The file as the snapshot has it."""
        if path not in self.snapshot.files or _stat(self.snapshot, path) != stat:
            return None
        return self.snapshot.read(path)

    def has(self, path: str) -> bool:
        """Whether it is there yet."""
        return path in self.snapshot.files and self.snapshot.has(path)


def _stat(snapshot: Snapshot, path: str) -> Stat:
    """A stat that tells which rows of the file count."""
    file = snapshot.files[path]
    return file.size, file.written * 1_000, 0, int(file.state[:15], 16)
