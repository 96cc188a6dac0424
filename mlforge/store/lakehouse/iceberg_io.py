"""Files of Iceberg tables in buckets, for pyiceberg: by the client that stores and sources in buckets have, with its credentials."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.io import PY_IO_IMPL, FileIO, InputFile, OutputFile, load_file_io
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import StaticTable

from mlforge.store.addresses import as_path
from mlforge.store.lakehouse.private_names import private
from mlforge.store.objects.bucket import Bucket

_NO_BUCKETS = ("file", "memory", "http", "https")


def files_at(address: str) -> FileIO:
    """The files by which pyiceberg reads and writes a table: these where it lies in a bucket, else its own.

    The table has no say in it: a property of a table, `py-io-impl`, names a class that pyiceberg would import and call.
    """
    return BucketIO() if as_path(address) else load_file_io({}, address)


def table_of(document: str) -> StaticTable:
    """The table that a document of its metadata describes, by the document's address."""
    files = files_at(document)
    metadata = FromInputFile.table_metadata(files.new_input(document))
    catalog = NoopCatalog("static-table")
    return StaticTable(("static-table", document), metadata, document, files, catalog)


def catalog_of(name: str) -> Catalog:
    """A catalog that pyiceberg is configured for; of classes that read files it takes those alone that its configuration names."""
    catalog = load_catalog(name)
    loaded = private(catalog, "_load_file_io")

    def load(properties: Mapping[str, Any] | None = None, location: str | None = None) -> FileIO:
        own = {k: v for k, v in (properties or {}).items() if k != PY_IO_IMPL}
        return loaded(own, location)

    catalog._load_file_io = load
    return catalog


class BucketIO(FileIO):  # type: ignore[misc]  # pyiceberg is seen untyped
    """Files by the addresses that an Iceberg table has in a bucket."""

    def __init__(self, properties: Any = {}) -> None:  # noqa: B006 - as pyiceberg's own have it
        super().__init__(properties)
        self._buckets: dict[str, Bucket] = {}

    def new_input(self, location: str) -> BucketFile:
        """The file at an address, for reading."""
        return self._file(location)

    def new_output(self, location: str) -> BucketFile:
        """The file at an address, for writing."""
        return self._file(location)

    def delete(self, location: Any) -> None:
        """Delete the file at an address."""
        file = self._file(location if isinstance(location, str) else location.location)
        file.bucket.delete([file.key])

    def _file(self, location: str) -> BucketFile:
        scheme, _, rest = location.partition("://")
        if not rest or scheme in _NO_BUCKETS:
            raise ValueError(f"{location} lies in no bucket, other than the table that names it")
        name, _, key = rest.partition("/")
        address = f"{'s3' if scheme in ('s3a', 's3n') else scheme}://{name}"
        bucket = self._buckets.setdefault(address, Bucket(address))
        return BucketFile(location, bucket, key)


class BucketFile(InputFile, OutputFile):  # type: ignore[misc]  # pyiceberg is seen untyped
    """An object. Raises FileNotFoundError where there is none, StoreError where no answer comes."""

    def __init__(self, location: str, bucket: Bucket, key: str) -> None:
        super().__init__(location)
        self.bucket, self.key = bucket, key

    def __len__(self) -> int:
        entry = self.bucket.look(self.key)
        if entry is None:
            raise FileNotFoundError(self.location)
        return entry.size

    def exists(self) -> bool:
        """Whether there is such an object."""
        return self.bucket.look(self.key) is not None

    def open(self, seekable: bool = True) -> io.BytesIO:
        """Its bytes, as a file that can be read."""
        blob = self.bucket.read(self.key)
        if blob is None:
            raise FileNotFoundError(self.location)
        return io.BytesIO(blob.data)

    def create(self, overwrite: bool = False) -> io.BytesIO:
        """A file to write, which becomes the object when it is closed."""
        if not overwrite and self.exists():
            raise FileExistsError(self.location)
        return _Upload(self)

    def to_input_file(self) -> BucketFile:
        """Itself."""
        return self


class _Upload(io.BytesIO):
    def __init__(self, file: BucketFile) -> None:
        super().__init__()
        self._file = file

    def close(self) -> None:
        if not self.closed:
            self._file.bucket.put(self._file.key, self.getvalue())
        super().close()
