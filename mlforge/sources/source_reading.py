"""Files read once for all features of a source: what one of them has read, the others are handed."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from mlforge.sources import parquet_reader
from mlforge.sources.parquet_reader import Content, FileBytes
from mlforge.sources.source_file import FileStat, SourceFile

KEPT_BYTES = 256 << 20
"""Bytes of rows that a shared reading keeps in memory, by default."""
SMALL_BYTES = 8 << 20
"""Files of at most so many bytes, and all of other machines, are kept in memory from their hashing to their decoding, which mostly comes next."""
SETTLED_NS = 50_000_000
"""So long after its last change a further change of a file shows in its stat: file systems' clocks tick."""


@dataclass(frozen=True, slots=True)
class HashedFile:
    """The SHA-256 of a file's bytes, the stat under which it was listed, and when it was read (ns since the epoch)."""

    hash: str
    stat: FileStat
    begun: int

    @property
    def is_settled(self) -> bool:
        """Whether any change since shows in the file's stat."""
        return self.begun - self.stat.ctime_ns > SETTLED_NS


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file's content, and what was hashed with it."""

    content: Content
    file: HashedFile


class SourceReading:
    """A reading of files on behalf of one feature after another, by which each content is decoded once.

    A file that has the stat under which it was read is not opened again once that stat has settled; until then
    its bytes are, and bytes of a known hash are not decoded. All features allow a file the same memory. At most `keep_bytes` of rows stay in memory: what does
    not fit is read again by the next feature.
    """

    def __init__(self, keep_bytes: int = KEPT_BYTES) -> None:
        self._room = keep_bytes
        self._files: dict[Path, HashedFile] = {}
        self._contents: dict[str, Content] = {}
        self._bytes: tuple[Path, FileBytes] | None = None  # of the file that was hashed last
        self.decoded = 0

    def hashed(self, file: SourceFile) -> HashedFile:
        """The file's hash. Raises NotReadNow."""
        known = self._known(file)
        if known is not None:
            return known
        if file.remote is not None or file.stat.size <= SMALL_BYTES:
            raw = parquet_reader.file_bytes(file)
            self._bytes = file.absolute, raw
            return self._note(file, raw.hash, raw.begun)
        begun = time.time_ns()
        return self._note(file, parquet_reader.content_hash(file.absolute), begun)

    def read(
        self, file: SourceFile, max_bytes: int | None = None, *, in_own_process: bool = False
    ) -> ReadFile:
        """The file's content, as `parquet_reader.read` gives it, with the same errors."""
        known = self._known(file)
        if known is not None and known.hash in self._contents:
            return ReadFile(self._again(known.hash, known.stat), known)
        raw = self._undecoded(file, max_bytes)
        if raw.hash in self._contents:
            content = self._again(raw.hash, raw.stat)
        else:
            content = self._decoded(raw, max_bytes, in_own_process=in_own_process)
        return ReadFile(content, self._note(file, raw.hash, raw.begun))

    def _undecoded(self, file: SourceFile, max_bytes: int | None) -> FileBytes:
        """The file's bytes: those that were hashed a moment ago, if it is small and was the last."""
        hashed, self._bytes = self._bytes, None
        if hashed is not None:
            path, raw = hashed
            fits = max_bytes is None or raw.stat.size <= max_bytes
            if path == file.absolute and raw.stat == file.stat and fits:
                return raw
        return parquet_reader.file_bytes(file, max_bytes)

    def _decoded(self, raw: FileBytes, max_bytes: int | None, *, in_own_process: bool) -> Content:
        content = parquet_reader.decode(raw, max_bytes, in_own_process=in_own_process)
        self.decoded += 1
        size = int(content.frame.estimated_size())
        if size <= self._room:
            self._room -= size
            self._contents[raw.hash] = content
            return self._again(raw.hash, raw.stat)
        return content

    def _again(self, hash_: str, stat: FileStat) -> Content:
        """A kept content; its frame is a clone, so that a function that changes its own changes no other's."""
        content = self._contents[hash_]
        return replace(content, frame=content.frame.clone(), stat=stat)

    def _known(self, file: SourceFile) -> HashedFile | None:
        known = self._files.get(file.absolute)
        return known if known and known.is_settled and known.stat == file.stat else None

    def _note(self, file: SourceFile, hash_: str, begun: int) -> HashedFile:
        hashed = HashedFile(hash_, file.stat, begun)
        self._files[file.absolute] = hashed
        return hashed
