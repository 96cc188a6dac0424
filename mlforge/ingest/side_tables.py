"""Tables that a feature's function is given beside its rows, as they are now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl

from mlforge.core.manifest import Manifest, TableRecord
from mlforge.errors import DataError, MlforgeError, SourceError, Unavailable
from mlforge.features.feature import Feature
from mlforge.frames.common_form import in_common_form
from mlforge.ingest import partials, union
from mlforge.ingest.fit import fit
from mlforge.ingest.partial_cache import PartialCache
from mlforge.sources.listing import Listing
from mlforge.sources.source_file import SourceFile
from mlforge.sources.source_reading import SourceReading
from mlforge.store import Store


@dataclass(frozen=True)
class SideTables:
    """The tables of one feature: the content hash and the files of each, and its rows, read when first needed."""

    owner: str
    files: Mapping[str, tuple[SourceFile, ...]]
    hashes: Mapping[str, str]
    reading: SourceReading
    records: Mapping[str, tuple[TableRecord, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        feature: Feature,
        listings: Mapping[str, Listing],
        reading: SourceReading,
    ) -> SideTables:
        """The tables of these listings, by their names. Raises MlforgeError for a table without a file, or with an unreadable one."""
        files, hashes, records = {}, {}, {}
        for name, table in listings.items():
            files[name] = table.files
            if not files[name]:
                texts = ", ".join(feature.tables[name])
                raise MlforgeError(
                    f"{feature.name}: its table {name!r} is not there: no parquet file at {texts}"
                )
            with _blaming(feature.name, name):
                contents = [reading.hashed(file).hash for file in files[name]]
            hashes[name] = partials.whole_content(contents)
            records[name] = tuple(map(_record, files[name], contents))
        return cls(feature.name, files, hashes, reading, records)

    @cached_property
    def frames(self) -> dict[str, pl.DataFrame]:
        """The rows of each table: the union of its files', by their paths. Raises MlforgeError."""
        return {name: self._read(name) for name in self.files}

    def _read(self, name: str) -> pl.DataFrame:
        with _blaming(self.owner, name):
            contents = [self.reading.read(file).content for file in self.files[name]]
        if partials.whole_content(content.hash for content in contents) != self.hashes[name]:
            raise MlforgeError(
                f"{self.owner}: its table {name!r} changed while it was read; try again"
            )
        paths = [file.path for file in self.files[name]]
        frames = {path: content.frame for path, content in zip(paths, contents, strict=True)}
        if len(frames) == 1:
            return contents[0].frame
        with _blaming(self.owner, name):
            return _as_one(frames)

    @cached_property
    def schemas(self) -> dict[str, pl.Schema]:
        """The schema of each table. Raises MlforgeError."""
        return {name: frame.schema for name, frame in self.frames.items()}

    def gave(self, feature: Feature, version: Manifest, store: Store) -> bool:
        """Whether a version was made with these tables, judged by one of its partials."""
        if not version.sources or not self.hashes:
            return True
        cache = PartialCache(feature, store, version, self.hashes, afresh=False)
        first = version.sources[0]
        contents = (record.hash for record in version.sources)
        key = cache.key(first.hash) if version.rowwise else cache.whole_key(contents)
        return first.partial in (key, cache.key_in_use(key))


def _as_one(frames: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The rows of a table's files. Raises SourceError for a file whose dtypes go with no other's without loss."""
    frames = in_common_form(frames)
    shapes = {path: union.shape(path, frame) for path, frame in frames.items()}
    fitted = fit(shapes.values(), strict=None)
    assert fitted is not None
    for path, shape in shapes.items():
        if misfit := fitted.misfits.get(id(shape.schema)):
            raise SourceError(f"{path}: {misfit}")
    return pl.concat(union.alike(frames, shapes, fitted).values())


def _record(file: SourceFile, content: str) -> TableRecord:
    return TableRecord(file.path, file.stat.size, file.stat.mtime_ns // 1000, content)


@contextmanager
def _blaming(owner: str, table: str) -> Iterator[None]:
    """Turn what is wrong with a table's file into an error about the table: no file of the source is at fault."""
    try:
        yield
    except (SourceError, DataError) as error:
        kind = Unavailable if isinstance(error, Unavailable) else MlforgeError
        raise kind(f"{owner}: its table {table!r}: {error}") from error
