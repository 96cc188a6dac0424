"""Files that another process ingests on behalf of this one: what it is told of them, and what it tells of each.

The other process reads, hashes, validates and writes events; what becomes of a file that is refused is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeAlias

from mlforge import errors
from mlforge.core.manifest import Manifest, Partial
from mlforge.core.schema import Schema
from mlforge.errors import MlforgeError
from mlforge.features.feature import Feature
from mlforge.ingest.amended import AmendedFiles
from mlforge.ingest.by_file import pair_of, read_each
from mlforge.ingest.file_states import FileStates
from mlforge.ingest.function_process import FunctionProcess
from mlforge.ingest.intake import FAULTS, NotProvenError
from mlforge.ingest.null_columns import NullColumns
from mlforge.ingest.partial_cache import PartialCache
from mlforge.ingest.quarantine import Quarantine
from mlforge.ingest.session import Session
from mlforge.ingest.side_tables import SideTables
from mlforge.ingest.transform import Transform
from mlforge.ingest.unchanged import FilePartial
from mlforge.sources.listing import Listing
from mlforge.sources.source_file import SourceFile, Stat
from mlforge.sources.source_reading import SourceReading
from mlforge.store import FileState, FileStateMap, Store
from mlforge.store.file_tasks import PartialWrite
from mlforge.store.partial_json import (
    column_to_json,
    partial_from_json,
    partial_to_json,
    schema_from_json,
)

Adopted = Mapping[str, Mapping[str, str]]
"""The dtypes that columns without a value take from other files, by column, for each shape of a file that has some."""


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """A file's content as another process read it, and its partial, or the error for which the file is refused.

    A file that has neither waits for the dtypes that others have. is_settled: as `HashedFile` tells.
    """

    hash: str
    rows: int
    shape: str
    is_settled: bool
    partial: Partial | None
    error: MlforgeError | None

    def state(self, stat: Stat) -> FileState:
        """The state of the file, which was listed under that stat."""
        size, mtime, ctime, inode = stat
        seen = mtime if self.is_settled else -1
        return FileState(size, seen, ctime, inode, self.hash, self.rows, shape=self.shape)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The outcomes of files, by path; a file that is not there is left to whoever asked.

    unproven: why the function must see the whole source; then no file has an outcome.
    """

    files: Mapping[str, FileOutcome] = field(default_factory=dict)
    files_read: int = 0
    warnings: tuple[str, ...] = ()
    unproven: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The outcomes as a document, in which files name their shapes and schemas by number."""
        shapes, schemas = dict[str, int](), dict[Schema, int]()

        def entry(path: str, told: FileOutcome) -> list[Any]:
            shape = shapes.setdefault(told.shape, len(shapes))
            partial, error = told.partial, told.error
            described = partial and [
                schemas.setdefault(partial.schema, len(schemas)),
                partial_to_json(partial, partial.schema),
            ]
            why = error and [type(error).__name__, str(error)]
            return [path, told.hash, told.rows, shape, told.is_settled, described, why]

        return {
            "files": [entry(*each) for each in self.files.items()],
            "shapes": [*shapes],
            "schemas": [[column_to_json(column) for column in schema] for schema in schemas],
            "files_read": self.files_read,
            "warnings": [*self.warnings],
            "unproven": self.unproven,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; raises KeyError, TypeError or ValueError for anything else."""
        schemas = [schema_from_json(columns) for columns in document["schemas"]]
        files = {}
        for path, hash_, rows, number, is_settled, described, why in document["files"]:
            partial = described and partial_from_json(described[1], schemas[described[0]])
            error = why and getattr(errors, why[0])(why[1])
            shape = document["shapes"][number]
            files[path] = FileOutcome(hash_, rows, shape, is_settled, partial, error)
        warnings, unproven = tuple(document["warnings"]), document["unproven"]
        return cls(files, document["files_read"], warnings, unproven)


Elsewhere: TypeAlias = Callable[[Sequence[SourceFile], Mapping[str, str], Adopted | None], Outcomes]
"""Has other processes ingest files: the outcomes of those that they read; of none where the files are too few to ask others.

Called with the files, the content hashes of the function's tables, and the dtypes that columns without a value take; None lets
files with such columns wait.
"""


def nowhere(*_: object) -> Outcomes:
    """No outcomes: this process reads every file."""
    return Outcomes()


@dataclass(frozen=True)
class GuestSession(Session):
    """A session of some files for another process: files that are refused are noted with their errors, and no more."""

    adopted: Adopted = field(default_factory=dict)
    refused: dict[str, MlforgeError] = field(default_factory=dict)

    @property
    def is_first(self) -> bool:
        """Never: its process, one of several that share the files, starts none to read them."""
        return False

    @cached_property
    def nulls(self) -> NullColumns:
        """The dtypes that the other process names."""
        return NullColumns({}, self.adopted)

    def reject(self, file: SourceFile, error: MlforgeError, among: str = "") -> None:
        """Note the error."""
        self.refused[file.path] = error


@dataclass(frozen=True)
class Circumstances:
    """All that the outcomes of some files depend on besides their bytes and the feature.

    hive: the columns that only folders' names hold. tables: listings of the function's tables. hashes: the tables' content
    hashes. forgotten: the digest of the entities that are forgotten. latest: the served version. adopted: as in `Elsewhere`.
    """

    hive: frozenset[str]
    tables: Mapping[str, Listing]
    hashes: Mapping[str, str]
    forgotten: str
    latest: Manifest | None
    adopted: Adopted | None


class Guest:
    """An ingestion of files on behalf of another process, as `ingest` does it, taking no stored events for granted.

    write: keeps partials for the other process. reading: through which other features of the source read the files.
    Raises MlforgeError for a missing table, DefinitionError for a function that reads files by itself.
    """

    def __init__(
        self,
        feature: Feature,
        circumstances: Circumstances,
        store: Store,
        write: Callable[[Sequence[PartialWrite]], None],
        reading: SourceReading,
        process: FunctionProcess | None,
    ) -> None:
        tables = SideTables.of(feature, circumstances.tables, reading)
        forgotten, latest, max_bytes = store.forgotten(), circumstances.latest, reading.max_bytes
        self._is_alike = (tables.hashes, forgotten.digest) == (
            circumstances.hashes,
            circumstances.forgotten,
        )
        self._waits = circumstances.adopted is None
        self._unproven: str | None = None
        self._pairs: dict[str, FilePartial] = {}
        self._waiting: set[str] = set()
        self._session = GuestSession(
            feature=feature,
            listing=Listing(Path(), exists=True, hive=circumstances.hive),
            latest=latest,
            states=FileStates(FileStateMap(), (), careful=False, reading=reading),
            cache=PartialCache(feature, store, latest, tables.hashes, afresh=True, write=write),
            transform=Transform(feature, circumstances.hive, tables, max_bytes, process, forgotten),
            quarantine=Quarantine({}),
            amended=AmendedFiles(store, feature.name),
            max_bytes=max_bytes,
            adopted=circumstances.adopted or {},
        )

    def read(self, files: Sequence[SourceFile]) -> None:
        """Ingest some of the files; none where tables, or forgotten entities, are others here."""
        if self._unproven is not None or not self._is_alike:
            return
        try:
            if self._waits:
                self._waiting |= {*read_each(self._session, files, self._pairs)}
            else:
                _with_dtypes(self._session, files, self._pairs)
        except NotProvenError as error:
            self._unproven = error.reason

    def outcomes(self, files: Sequence[SourceFile]) -> Outcomes:
        """The outcomes of all files that were read, once their events are kept; a file that cannot be read here is left out."""
        if self._unproven is not None:
            return Outcomes(unproven=self._unproven)
        self._session.cache.finish()
        told = dict(_told(self._session, files, self._pairs, self._waiting))
        return Outcomes(told, self._session.states.files_read, tuple(self._session.warnings))


def _with_dtypes(
    session: GuestSession, files: Sequence[SourceFile], pairs: dict[str, FilePartial]
) -> None:
    """Put the record and the partial of each file into `pairs`; none waits."""
    for file in files:
        try:
            content = session.states.read(file)
            pairs[file.path] = pair_of(session, file, content)
        except FAULTS as error:
            session.reject(file, error)


def _told(
    session: GuestSession,
    files: Sequence[SourceFile],
    pairs: Mapping[str, FilePartial],
    waiting: set[str],
) -> Iterator[tuple[str, FileOutcome]]:
    """The outcomes of the files that could be read here."""
    for file in files:
        path = file.path
        state, error, pair = (
            session.states.now.get(path),
            session.refused.get(path),
            pairs.get(path),
        )
        is_known = pair is not None or path in waiting or (error is not None and _travels(error))
        if state is None or not is_known:
            continue
        is_settled = state.mtime_ns == file.stat.mtime_ns
        partial = pair and pair[1]
        yield path, FileOutcome(state.hash, state.rows, state.shape, is_settled, partial, error)


def _travels(error: MlforgeError) -> bool:
    """Whether an error is the file's own, wherever it is read."""
    return getattr(errors, type(error).__name__, None) is type(error)
