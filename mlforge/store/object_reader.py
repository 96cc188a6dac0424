"""Reading the objects of a listing into memory, some ahead of their turn; one that is refused stops no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlforge.sources.file_bytes import NotReadNow
from mlforge.sources.source_file import FileStat, Remote, Stat
from mlforge.store.bucket_place import BucketPlace, mark_of
from mlforge.store.objects.objects import NotReadable, each

_AHEAD, _AHEAD_BYTES = 32, 64 << 20
"""Files that are fetched at once, ahead of their turn: so many, and bytes, at most."""


class ObjectReader(Remote):
    """Fetches the objects of a listing, those that nobody knows yet several at a time."""

    def __init__(
        self,
        buckets: Sequence[BucketPlace],
        stats: Mapping[str, Stat],
        known: Mapping[str, Stat],
    ) -> None:
        self._buckets, self._stats, self._known = buckets, stats, known
        self._turns: dict[str, int] | None = None
        self._paths: list[str] = []
        self._ahead: dict[str, bytes | NotReadNow | None] = {}

    def among(self, stats: Mapping[str, Stat]) -> ObjectReader:
        """A reader of the objects of another listing, of which the same are known."""
        return ObjectReader(self._buckets, stats, self._known)

    def fetch(self, path: str, stat: FileStat) -> bytes | None:
        """Ask for it and for some of those after it, or take it from what was fetched before."""
        if self._stats.get(path) != stat:
            return _unless_refused(self._fetched(path, stat))
        if path not in self._ahead:
            batch = self._batch(path)
            contents = each(lambda one: self._fetched(one, self._stats[one]), batch)
            self._ahead = dict(zip(batch, contents, strict=True))
        return _unless_refused(self._ahead.pop(path))

    def has(self, path: str) -> bool:
        """Look at the object; one that may not be looked at is there."""
        return any(
            place.looked_at(key) is not None for place in self._buckets if (key := place.key(path))
        )

    def _batch(self, path: str) -> list[str]:
        """The file and new ones after it, as their turns come."""
        if self._turns is None:
            stats, known = self._stats, self._known
            self._paths = sorted(one for one, stat in stats.items() if known.get(one) != stat)
            self._turns = {one: turn for turn, one in enumerate(self._paths)}
        batch, room = [path], _AHEAD_BYTES - self._stats[path][0]
        turn = self._turns.get(path, len(self._paths))
        for one in self._paths[turn + 1 : turn + _AHEAD]:
            room -= self._stats[one][0]
            if room < 0:
                break
            batch.append(one)
        return batch

    def _fetched(self, path: str, stat: Stat) -> bytes | NotReadNow | None:
        """The bytes of an object, None where it is gone or another by now, or why it alone is not read."""
        for place in self._buckets:
            key = place.key(path)
            try:
                blob = place.objects.read(key) if key else None
            except NotReadable as error:
                return NotReadNow(
                    f"{path}: its bucket lists it, and refuses to read it ({error}); allow reading it, restore it, as from its "
                    "archive, or delete it"
                )
            if blob is not None:
                is_same = len(blob.data) == stat[0] and mark_of(blob.tag) in (stat[3], 0)
                return blob.data if is_same else None
        return None


def _unless_refused(content: bytes | NotReadNow | None) -> bytes | None:
    if isinstance(content, NotReadNow):
        raise content
    return content
