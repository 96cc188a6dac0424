"""The file states of features in a bucket, as compressed lines."""

from __future__ import annotations

import zlib

from mlforge.store.local import state_files
from mlforge.store.objects import keys
from mlforge.store.objects.objects import NotChanged, Objects, Tag
from mlforge.store.records import FileStateMap

_GZIP = 31


class FileStates:
    """The file states of all features, by their folders, each read once while its object stays as it is. They only save work."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._known: dict[str, tuple[Tag, FileStateMap]] = {}

    def read(self, folder: str) -> FileStateMap:
        """The states as they are now; the very mapping that was written or read last, if they are the same."""
        tag, before = self._known.get(folder, (None, FileStateMap()))
        try:
            blob = self._objects.read(f"{folder}/{keys.SOURCES}", tag)
        except NotChanged:
            return before
        if blob is None:
            self._known.pop(folder, None)
            return FileStateMap()
        states = _unpacked(blob.data)
        self._known[folder] = blob.tag, before if before == states else states
        return self._known[folder][1]

    def known(self, folder: str) -> FileStateMap:
        """The states as they were read last."""
        return self._known[folder][1] if folder in self._known else FileStateMap()

    def write(self, folder: str, states: FileStateMap) -> None:
        """Replace the states; the mapping is kept, not copied."""
        text = "".join(state_files.lines_of(states)).encode()
        tag = self._objects.put(f"{folder}/{keys.SOURCES}", zlib.compress(text, 1, wbits=_GZIP))
        states.before = None  # else those of all refreshes would stay in memory
        self._known[folder] = tag, states

    def forget(self, folder: str) -> None:
        """Know nothing of a feature any more."""
        self._known.pop(folder, None)


def _unpacked(data: bytes) -> FileStateMap:
    try:
        text = zlib.decompress(data, wbits=_GZIP).decode(errors="replace")
    except zlib.error:
        return FileStateMap()
    return state_files.understood(text)
