"""The last known state of each source file: a file whose stat is the same has the same content."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress

from mlforge.core.manifest import SourceRecord
from mlforge.errors import UnreadableFile
from mlforge.ingest.null_columns import UNREADABLE, Shapes
from mlforge.sources.parquet_reader import Content
from mlforge.sources.read_ahead import Wishes
from mlforge.sources.source_file import SourceFile
from mlforge.sources.source_reading import HashedFile, SourceReading
from mlforge.store import FileState, FileStateMap

_AMPLE_BYTES = 512 << 20  # allowed for a file; decoding bounds the whole process by a multiple


def is_ample(max_bytes: int | None) -> bool:
    """Whether files are allowed so much memory that the bound on decoding one leaves enough for work beside it."""
    return max_bytes is None or max_bytes >= _AMPLE_BYTES


class FileStates:
    """The states of a source's files before this ingestion and in it; files are read through it.

    careful: decode in processes of their own. reading: what the files are read through.
    """

    def __init__(
        self,
        before: FileStateMap,
        sources: Iterable[SourceRecord],
        *,
        careful: bool,
        reading: SourceReading,
    ) -> None:
        self.before, self.now = before, FileStateMap()
        self.files_read = 0
        self._shapes = Shapes()
        self._sources, self._careful, self._reading = sources, careful, reading

    def start_without(self, paths: Iterable[str]) -> None:
        """Begin with the known states but for those of these files, which are looked at again."""
        self.now = self.before.without(paths)

    def content(self, file: SourceFile) -> str:
        """The hash of the file's bytes, which are read only if its stat is new. Raises NotReadNow."""
        state = self.before.get(file.path)
        if state is None or state[:4] != file.stat:
            hashed = self._reading.hashed(file)
            rows, shape = self._of_content(hashed.hash)
            self._note(file, hashed, rows, shape)
        else:
            self.now[file.path] = state
        return self.now[file.path].hash

    def is_to_be_hashed(self, file: SourceFile) -> bool:
        """Whether `content` reads the file's bytes."""
        state = self.before.get(file.path)
        return (state is None or state[:4] != file.stat) and not self._reading.knows(file)

    def read(self, file: SourceFile) -> Content:
        """The file's rows; its content is noted with its stat. Raises UnreadableFile or NotReadNow."""
        try:
            read = self._reading.read(file, in_own_process=self._careful)
        except UnreadableFile:
            if file.path in self.now:
                self.now[file.path] = self.now[file.path]._replace(shape=UNREADABLE)
            raise
        self.files_read += 1
        content = read.content
        self._note(file, read.file, content.frame.height, self._shapes.of(content.frame))
        return content

    def is_at_hand(self, file: SourceFile) -> bool:
        """Whether another feature has decoded the file's content, so that its rows are in memory."""
        state = self.now.get(file.path)
        return state is not None and self._reading.holds(state.hash)

    def ahead(
        self,
        files: Sequence[SourceFile],
        decodes: Callable[[str], bool],
        but: Collection[str],
        *,
        are_first: bool = False,
    ) -> AbstractContextManager[Iterable[SourceFile]]:
        """The files in their order, of which those that come next are read while some are worked on.

        decodes: whether a content of this hash is to be decoded. but: paths that are not read unless asked for. are_first: as
        in `Wishes`. None is read early where files are decoded in processes of their own, or where so little memory is allowed that
        decoding might leave too little for the work beside it.
        """

        def reads(file: SourceFile) -> bool:
            state = self.before.get(file.path)
            is_new = state is None or state[:4] != file.stat or decodes(state.hash)
            return is_new and file.path not in but

        if self._careful or not self.is_ample:
            return nullcontext(files)
        wishes = Wishes(reads, decodes, are_first=are_first)
        return self._reading.ahead(files, wishes)

    @property
    def is_ample(self) -> bool:
        """As `is_ample` of what a file may take."""
        return is_ample(self._reading.max_bytes)

    def note(self, file: SourceFile, state: FileState) -> None:
        """Know the state of a file that another process has read."""
        self.now[file.path] = state

    def learn_shapes(self, files: Iterable[SourceFile]) -> None:
        """Read the files whose columns are not known, as they were last seen by an earlier release."""
        for file in files:
            state = self.now.get(file.path)
            if state is not None and not state.shape:
                with suppress(UnreadableFile):
                    self.read(file)

    def forget(self, path: str) -> None:
        """Drop a file's state, as if the file had never been seen."""
        if path in self.now:
            del self.now[path]

    def stand_for_good(self, path: str) -> None:
        """Note a file that cannot be read now, so that the next ingestion still knows its last good content, if it has any."""
        if path not in self.now and self.last_good(path):
            self.now[path] = FileState(-1, -1, -1, -1, "", shape=UNREADABLE)

    def last_good(self, path: str) -> str:
        """The hash of the path's last content that was not quarantined, empty if there is none.

        It may be what the file holds now: that was good as long as other files were as they were.
        """
        if self.before:
            state = self.before.get(path)
            return state.good if state else ""
        # The states are lost: the latest version tells.
        return next((record.hash for record in self._sources if record.path == path), "")

    def conclude(self, read: Iterable[str], set_aside: Iterable[str]) -> None:
        """Note for each file that was looked at which content counts from now on.

        A content that is set aside now does not count, whatever it did while other files were as they were.
        """
        bad = set(set_aside)
        for path in read:
            state = self.now[path]
            good = state.hash
            if path in bad:
                before = self.last_good(path)
                good = before if before != state.hash else ""
            self.now[path] = state._replace(good=good)

    def _of_content(self, content: str) -> tuple[int, str]:
        """Rows and columns of a content that some file had before, as after a rename; 0 and empty for a new one."""
        known = self.before.of_content(content)
        return (known.rows, known.shape) if known else (0, "")

    def _note(self, file: SourceFile, hashed: HashedFile, rows: int, shape: str) -> None:
        """Note a file's stat and content, unless the stat is so recent that a further write might not change it."""
        stat = file.stat
        mtime = stat.mtime_ns if hashed.is_settled else -1  # its content is hashed again next time
        self.now[file.path] = FileState(
            stat.size, mtime, stat.ctime_ns, stat.inode, hashed.hash, rows, shape=shape
        )
