"""Files read once for all features of a source: what one of them has read, the others are handed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mlforge.sources import file_bytes, parquet_reader
from mlforge.sources.file_bytes import FileBytes
from mlforge.sources.parquet_reader import Content
from mlforge.sources.read_ahead import Early, ReadAhead, Wishes
from mlforge.sources.source_file import FileStat, SourceFile

KEPT_BYTES = 256 << 20
"""Bytes of rows that a shared reading keeps in memory, by default."""
SMALL_BYTES = 64 << 20
"""Files of at most so many bytes, and all of other machines, are kept in memory from their hashing to their decoding, which mostly comes next."""
SETTLED_NS = 50_000_000
"""So long after its last change a further change of a file shows in its stat: file systems' clocks tick."""


@dataclass(frozen=True, slots=True)
class HashedFile:
    """The SHA-256 of a file's bytes, the stat under which it was listed, and when it was read (ns since the epoch).

    opened: the stat of the file that was read: another may have lain there for that while, as where a folder or a link is put in the
    place of one and taken away again.
    """

    hash: str
    stat: FileStat
    begun: int
    opened: FileStat

    @property
    def is_settled(self) -> bool:
        """Whether the file that was read is the listed one, and any change since shows in its stat."""
        # A part of a feature's table, which is known by its hash, has no more in common with the file that it lies in.
        is_part = not self.stat.ctime_ns
        is_listed = self.opened == self.stat or (is_part and self.opened.size == self.stat.size)
        return is_listed and self.begun - self.stat.ctime_ns > SETTLED_NS


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file's content, and what was hashed with it."""

    content: Content
    file: HashedFile


class SourceReading:
    """A reading of files on behalf of one feature after another, by which each content is decoded once.

    A file that has the stat under which it was read is not opened again once that stat has settled; until then
    its bytes are, and bytes of a known hash are not decoded. max_bytes: the memory that a file may take; one that would take more is refused. At most `keep_bytes` of rows stay in
    memory: what does not fit is read again by the next feature.
    """

    def __init__(self, max_bytes: int | None = None, keep_bytes: int = KEPT_BYTES) -> None:
        self.max_bytes = max_bytes
        self._room = self._keep_bytes = keep_bytes
        self._files: dict[Path, HashedFile] = {}
        self._contents: dict[str, Content] = {}
        self._hashed: tuple[Path, Early] | None = None  # the file that was hashed last
        self._ahead: ReadAhead | None = None
        self.decoded = 0

    @contextmanager
    def ahead(self, files: Sequence[SourceFile], wishes: Wishes) -> Iterator[Iterable[SourceFile]]:
        """The files in their order; while the block works on some, threads read those that come next.

        wishes: of files whose rows are not kept from an earlier feature.
        """

        def reads(file: SourceFile) -> bool:
            known = self._known(file)
            return (known is None or known.hash not in self._contents) and wishes.reads(file)

        self._ahead = ReadAhead(files, replace(wishes, reads=reads), self.max_bytes)
        try:
            with closing(iter(self._ahead)) as in_turn:
                yield in_turn
        finally:
            self._ahead = None

    def hashed(self, file: SourceFile) -> HashedFile:
        """The file's hash. Raises NotReadNow."""
        known = self._known(file)
        if known is not None:
            return known
        early = self._ahead.take(file) if self._ahead else None
        if early is None and (file.remote is not None or file.stat.size <= SMALL_BYTES):
            early = Early(file_bytes.read_bytes(file), None)
        if early is not None:
            self._hashed = file.absolute, early
            return self._note_read(file, early.raw)
        begun = time.time_ns()
        hash_, opened = file_bytes.hash_and_stat(file.absolute)
        return self._note(file, HashedFile(hash_, file.stat, begun, opened))

    def read(self, file: SourceFile, *, in_own_process: bool = False) -> ReadFile:
        """The file's content, as `parquet_reader.read` gives it, with the same errors."""
        known = self._known(file)
        if known is not None and known.hash in self._contents:
            return ReadFile(self._again(known.hash, known.stat), known)
        early = self._undecoded(file)
        raw = early.raw
        if raw.hash in self._contents:
            content = self._again(raw.hash, raw.stat)
        else:
            content = self._decoded(early, in_own_process=in_own_process)
        return ReadFile(content, self._note_read(file, raw))

    def forget(self) -> None:
        """Let go of the rows that are kept: all features have been handed them."""
        self._contents.clear()
        self._room = self._keep_bytes

    def knows(self, file: SourceFile) -> bool:
        """Whether the file's hash is known without reading it again."""
        return self._known(file) is not None

    def holds(self, hash_: str) -> bool:
        """Whether the rows of a content are in memory."""
        return hash_ in self._contents

    def _undecoded(self, file: SourceFile) -> Early:
        """The file's bytes: those that were read ahead or hashed a moment ago, if it is small and was the last."""
        hashed, self._hashed = self._hashed, None
        early = self._ahead.take(file) if self._ahead else None
        if hashed is not None and hashed[0] == file.absolute:
            early = hashed[1]
        if early is not None:
            stat, most = early.raw.stat, self.max_bytes
            if stat == file.stat and (most is None or stat.size <= most):
                return early
        return Early(file_bytes.read_bytes(file, self.max_bytes), None)

    def _decoded(self, early: Early, *, in_own_process: bool) -> Content:
        raw, content = early.raw, early.content
        if content is None:
            content = parquet_reader.decode(raw, self.max_bytes, in_own_process=in_own_process)
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

    def _note_read(self, file: SourceFile, raw: FileBytes) -> HashedFile:
        return self._note(file, HashedFile(raw.hash, file.stat, raw.begun, raw.stat))

    def _note(self, file: SourceFile, hashed: HashedFile) -> HashedFile:
        self._files[file.absolute] = hashed
        return hashed
