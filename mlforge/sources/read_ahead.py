"""Small files that threads or processes read, hash and decode before they are asked for, while the ones before are worked on.

Nothing depends on it: what cannot be read or decoded so is left to whoever asks for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from mlforge.core.side_by_side import CORES, begin
from mlforge.sources.decoded_files import DecodedFiles, bytes_of_each, decoded
from mlforge.sources.file_bytes import FileBytes
from mlforge.sources.parquet_reader import Content
from mlforge.sources.reading_process import ReadingProcess, reading_processes
from mlforge.sources.source_file import SourceFile

_FEW_FILES = 4  # are read sooner than threads are woken
_VERY_MANY_FILES = 5_000  # take longer than processes to start
_TINY_BYTES = 32 << 10  # of a file: to hand over more costs more than to take turns
_RUN_FILES, _RUN_BYTES = 16, 4 << 20
_RUNS = CORES + 1  # at a time


@dataclass(frozen=True, slots=True)
class Early:
    """A file's bytes, and their content if it was decoded, too."""

    raw: FileBytes
    content: Content | None


@dataclass(frozen=True, slots=True)
class Wishes:
    """The files that will be read, and the hashes of contents that will be decoded.

    Both are asked by threads. are_first: whether nothing is known of any file, so that each that is read is decoded, too.
    """

    reads: Callable[[SourceFile], bool]
    decodes: Callable[[str], bool]
    are_first: bool = False


@dataclass(frozen=True, slots=True)
class _Run:
    """Files whose reading has begun, and what was read of them by their paths, which is waited for; nothing by default."""

    files: Sequence[SourceFile]
    read: Callable[[], Mapping[str, Early]] = dict
    cancel: Callable[[], object] = dict


class ReadAhead:
    """An iterator over files in their order, for each of which `take` tells what was read of it meanwhile.

    Very many tiny ones are read by processes, which takes half the time where nothing is known of them. While a large file is worked on none is
    read ahead. max_bytes: the memory that a file may take.
    """

    def __init__(
        self, files: Sequence[SourceFile], wishes: Wishes, max_bytes: int | None = None
    ) -> None:
        self._files, self._wishes, self._max_bytes = files, wishes, max_bytes
        self._early: dict[str, Early] = {}

    def __iter__(self) -> Generator[SourceFile]:
        if len(self._files) < _FEW_FILES:
            yield from self._files
            return
        waiting, begun = deque(_runs(self._files)), deque[_Run]()
        with self._processes() as processes:
            try:
                while waiting or begun:
                    self._fill(begun, waiting, processes)
                    run = begun.popleft()
                    self._early = dict(run.read())
                    yield from run.files
            finally:
                self._early = {}
                for run in begun:
                    run.cancel()

    def take(self, file: SourceFile) -> Early | None:
        """The file as it was read ahead; None if it was not, or was asked for before."""
        return self._early.pop(file.path, None)

    def _processes(self) -> AbstractContextManager[Sequence[ReadingProcess]]:
        if self._wishes.are_first and sum(map(_is_tiny, self._files)) >= _VERY_MANY_FILES:
            return reading_processes()
        return nullcontext(())

    def _fill(
        self,
        begun: deque[_Run],
        waiting: deque[Sequence[SourceFile]],
        processes: Sequence[ReadingProcess],
    ) -> None:
        """Begin with further runs, up to a large file."""
        while waiting and len(begun) < max(_RUNS, 2 * len(processes)):
            if _is_small(waiting[0][0]):
                begun.append(self._begun(waiting.popleft(), processes))
                continue
            if not begun:
                begun.append(_Run(waiting.popleft()))
            break

    def _begun(self, files: Sequence[SourceFile], processes: Sequence[ReadingProcess]) -> _Run:
        """A run that the process reads which has the least to do; a thread, where there is none."""
        running = [process for process in processes if not process.has_ended]
        if running and all(map(_is_tiny, files)):
            process = min(running, key=lambda each: each.waiting)
            wished = [file for file in files if self._wishes.reads(file)]
            if process.ask(wished, self._max_bytes):
                return _Run(files, lambda: _told(process.answer()))
        reading = begin(_read, files, self._wishes, self._max_bytes)
        return _Run(files, reading.result, reading.cancel)


def _is_small(file: SourceFile) -> bool:
    return file.remote is None and file.stat.size <= _RUN_BYTES


def _is_tiny(file: SourceFile) -> bool:
    return file.remote is None and file.stat.size <= _TINY_BYTES


def _runs(files: Sequence[SourceFile]) -> Iterator[Sequence[SourceFile]]:
    """The files in runs: small ones some at a time, every other alone."""
    run: list[SourceFile] = []
    size = 0
    for file in files:
        is_full = len(run) == _RUN_FILES or size + file.stat.size > _RUN_BYTES
        if run and (is_full or not _is_small(file)):
            yield run
            run, size = [], 0
        run.append(file)
        size += file.stat.size
    if run:
        yield run


def _told(read: Iterable[DecodedFiles]) -> dict[str, Early]:
    """The files that a process has read, by path."""
    early: dict[str, Early] = {}
    for each in read:
        contents = each.contents()
        early |= {r.path: Early(r, contents[r.path]) for r in each.files if r.path in contents}
    return early


def _read(files: Sequence[SourceFile], wishes: Wishes, max_bytes: int | None) -> dict[str, Early]:
    """The files of a run that can be read, by path."""
    raws = bytes_of_each(filter(wishes.reads, files), max_bytes)
    by_hash = {raw.hash: raw for raw in reversed(raws)}  # of files alike the first
    new = [raw for raw in by_hash.values() if wishes.decodes(raw.hash)]
    contents: dict[str, Content] = {}
    for each in decoded(new[::-1], max_bytes):
        contents |= each.contents()
    return {raw.path: Early(raw, contents.get(raw.path)) for raw in raws}
