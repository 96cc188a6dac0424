"""The folders that rows may be sent to: those of the sources of a project's features."""

from __future__ import annotations

import re
import time
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from mlforge.definitions.registry import Definitions
from mlforge.errors import MlforgeError, StoreError
from mlforge.sources.damage import DAMAGE
from mlforge.sources.row_source import RowSource

NAME = re.compile(r"http-[0-9a-f-]{12,80}")
"""The names of the files that are made of requests, without their suffix."""
_A_NAME = "http-0123456789ab"
_FOR_S = 60.0


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of a source. name: in URLs. readers: the features that read it, with the keys and the time they need."""

    name: str
    path: Path
    readers: tuple[str, ...]
    needs: tuple[str, ...]

    def file(self, drop: str) -> Path:
        """The file of a drop."""
        return self.path / f"{drop}.parquet"


def folders(definitions: Definitions) -> dict[str, Folder]:
    """The folders that take files of any name, by their names: paths from the definitions' root.

    A source that is one file, a glob that no name of ours fits, or a table of another system takes none.
    """
    paths: dict[Path, None] = {}
    sources = {name: definitions.source(name) for name in definitions.features}
    for source in sources.values():
        for each in (source, *(table for _, table in source.tables)):
            fitting = [place.root for place in each.places if place.takes((f"{_A_NAME}.parquet",))]
            paths.update(dict.fromkeys(fitting))
    return {folder.name: folder for folder in (_folder(definitions, sources, p) for p in paths)}


def _folder(definitions: Definitions, sources: Mapping[str, RowSource], path: Path) -> Folder:
    file, root = path / f"{_A_NAME}.parquet", definitions.root
    readers = tuple(name for name, source in sources.items() if source.feeds(file))
    needs: dict[str, None] = {}
    for name in readers:
        if sources[name].matches(file):
            spec = definitions.features[name].spec
            needs.update(dict.fromkeys(spec.keys))
            needs.update(dict.fromkeys([spec.timestamp] if spec.timestamp else []))
    below = path.relative_to(root) if path.is_relative_to(root) else path
    return Folder(below.as_posix().strip("/"), path, readers, tuple(needs))


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a folder's rows: their dtypes, and those that each row must hold a value of.

    usual: those that all files looked at have: a request that names one in no row means null, as one that names it in some does.
    """

    dtypes: Mapping[str, pl.DataType]
    needed: tuple[str, ...]
    usual: tuple[str, ...] = ()


@dataclass
class Schemas:
    """The columns of folders, as their newest files have them; looked up once a minute."""

    definitions: Definitions
    _known: dict[str, tuple[float, Columns]] = field(default_factory=dict)

    def of(self, folder: Folder) -> Columns:
        """The columns: what features need and the newest file has is needed, as a function may make the others.

        A column that it lacks has the dtype of the newest file with it. Of a folder without a file
        that can be read, the time of its features alone is known.
        """
        at, known = self._known.get(folder.name, (-_FOR_S, None))
        if known is None or not known.dtypes or time.monotonic() - at > _FOR_S:
            known = self._read(folder)
            self._known[folder.name] = time.monotonic(), known
        return known

    def _read(self, folder: Folder) -> Columns:
        left_out = self._left_out(folder)
        schemas: list[dict[str, pl.DataType]] = []
        usual: list[str] = []
        for file in _newest_first(folder.path):
            if file in left_out:  # perhaps for its dtypes: the next rows are not to have them
                continue
            try:
                schema = pl.read_parquet_schema(file)
            except DAMAGE:  # not ours to tell: the build does
                continue
            typed = {name: dtype for name, dtype in schema.items() if dtype != pl.Null}
            usual = [name for name in (usual if schemas else typed) if name in typed]
            schemas.append(typed)
        if not schemas:
            specs = [self.definitions.features[name].spec for name in folder.readers]
            instant = pl.Datetime("us", "UTC")
            schemas = [{spec.timestamp: instant for spec in specs if spec.timestamp}]
        dtypes = dict(ChainMap(*schemas))
        needed = tuple(name for name in folder.needs if name in schemas[0])
        return Columns(dtypes, needed, tuple(usual))

    def _left_out(self, folder: Folder) -> set[Path]:
        """The folder's files that a feature has in quarantine."""
        left_out: set[Path] = set()
        for name in folder.readers:
            source = self.definitions.source(name)
            try:
                paths = self.definitions.store.books(name).quarantine
            except StoreError:  # rows are taken all the same: they go to the source's folder
                continue
            left_out.update(map(source.absolute, paths))
        return left_out


def _newest_first(path: Path) -> list[Path]:
    try:
        files = [file for file in path.iterdir() if file.suffix in (".parquet", ".pq")]
        return sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True)[:5]
    except OSError as error:
        raise MlforgeError(f"{path} cannot be listed: {error.strerror}") from error
