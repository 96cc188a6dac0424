"""A source whose files are objects of a bucket: `s3://bucket/transactions/`, `gs://…`, `az://…`.

An object is there whole or not at all. It is known by its ETag or version, its size and when it was written: one that is
written over shows. Its bytes are read from the bucket into memory, some ahead of their turn.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from mlforge.errors import DefinitionError, SourceError, StoreError
from mlforge.sources.glob import EVERYTHING, is_magic
from mlforge.sources.lake_table import check_key
from mlforge.sources.listing import Listing
from mlforge.sources.place import SUFFIXES, Place, is_skipped
from mlforge.sources.row_source import RowSource
from mlforge.sources.source_file import FileStat, Remote, SourceFile, Stat
from mlforge.sources.walk import HIVE, Ignored, wrong_type
from mlforge.store.addresses import SCHEMES
from mlforge.store.objects.bucket import Bucket
from mlforge.store.objects.objects import Entry, Objects, Tag, each

_ADDRESS = re.compile(rf"((?:{'|'.join(SCHEMES)})://[^/\s?#]+)(/.*)?", re.DOTALL)
_AHEAD, _AHEAD_BYTES = 32, 64 << 20
"""Files that are fetched at once, ahead of their turn: so many, and bytes, at most."""


@dataclass(frozen=True)
class BucketPlace:
    """A text of a source: a bucket, and which of its objects count, as `place` says of paths below it.

    one: the name of the only object that is meant, '' where several may be.
    """

    text: str
    bucket: str
    place: Place
    one: str = ""

    @classmethod
    def of(cls, text: str, *, alone: bool = True) -> BucketPlace:
        """The place that a text names: one object that ends in .parquet, a glob, or else all below a prefix.

        Raises DefinitionError for a text that can name no object.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise DefinitionError(
                f"source {text!r} is not the address of objects; write 's3://bucket/transactions/' (or gs://, az://)"
            )
        bucket, key = match[1], (match[2] or "").strip("/")
        last = key.rpartition("/")[2]
        is_folder = text.endswith("/") or not (last.lower().endswith(SUFFIXES) or is_magic(last))
        local = f"/{key}/" if is_folder and key else f"/{key}"
        try:
            place = Place.of(local, Path("/"))
        except DefinitionError as error:
            raise DefinitionError(str(error).replace(repr(local), repr(text))) from None
        one = "" if is_folder or any(map(is_magic, key.split("/"))) else last
        return cls(
            text, bucket, place if alone else replace(place, prefix=_prefix(bucket, place)), one
        )

    @property
    def below(self) -> str:
        """The key that all objects of the place begin with; '' for a whole bucket."""
        return str(self.place.root).strip("/")

    @property
    def start(self) -> str:
        """How all keys begin that may count, without a final slash: narrower than `below` where one object is named."""
        return "/".join(filter(None, (self.below, self.one)))

    def key(self, path: str) -> str | None:
        """The key of a path of listings; None for a path of another place."""
        if not path.startswith(self.place.prefix):
            return None
        return "/".join(filter(None, (self.below, path.removeprefix(self.place.prefix))))

    def path(self, key: str) -> str:
        """The path, in listings, of a key."""
        return self.place.prefix + self.within(key)

    def within(self, key: str) -> str:
        """The key below the place's root."""
        return key[len(self.below) + 1 :] if self.below else key

    def key_of_address(self, address: Path) -> str | None:
        """The key of an address such as `Path("s3://bucket/a.parquet")`; None for one outside the place."""
        scheme, bucket = self.bucket.split("://")
        parts = address.parts
        if parts[:2] != (f"{scheme}:", bucket) or not Path("/", *parts[2:]).is_relative_to(
            self.place.root
        ):
            return None
        return "/".join(parts[2:])


def _prefix(bucket: str, place: Place) -> str:
    return f"{bucket}{str(place.root).rstrip('/')}/"


@cache
def _bucket(url: str) -> Objects:
    """The bucket at an address, with one client for all sources of the process."""
    return Bucket(url)


@dataclass(frozen=True)
class ObjectSource(RowSource):
    """The objects of some places. tables: as those of any source."""

    buckets: tuple[BucketPlace, ...]
    tables: tuple[tuple[str, RowSource], ...] = ()
    places: tuple[Place, ...] = field(default=(), init=False)

    @classmethod
    def of(cls, texts: Sequence[str]) -> ObjectSource:
        """Understand the addresses that a feature names. Raises DefinitionError."""
        alone = len(texts) == 1
        return cls(tuple(BucketPlace.of(text, alone=alone) for text in texts))

    @property
    def text(self) -> str:
        """The addresses as they were written, divided by commas."""
        return ", ".join(place.text for place in self.buckets)

    @property
    def roots(self) -> tuple[Path, ...]:
        """None: there is no folder to watch."""
        return ()

    @property
    def is_polled(self) -> bool:
        """True: a bucket tells nobody of its changes."""
        return True

    @property
    def rows(self) -> ObjectSource:
        """The source without the tables."""
        return replace(self, tables=())

    def anew(self) -> ObjectSource:
        """Itself: its texts alone say what is meant."""
        return self

    def scan(self, known: Mapping[str, Stat] | None = None) -> Listing:
        """List the objects. A prefix without any does not exist. Raises SourceError where no answer comes."""
        stats: dict[str, Stat] = {}
        ignored: list[Ignored] = []
        hive: set[str] = set()
        is_there = False
        for place in self.buckets:
            entries = self._entries(place)
            is_there = is_there or bool(entries)
            _take_in(place, entries, known or {}, stats, ignored, hive)
        first = self.buckets[0]
        root = first.bucket + str(first.place.root) if len(self.buckets) == 1 else self.text
        return Listing(
            Path(root),
            exists=is_there,
            stats=stats,
            ignored=tuple(sorted(ignored, key=lambda entry: entry.path)),
            hive=frozenset(hive),
            tables={name: table.scan() for name, table in self.tables},
            remote=_Reader(self.buckets, stats, known or {}),
        )

    def _entries(self, place: BucketPlace) -> list[Entry]:
        bucket = _bucket(place.bucket)
        try:
            entries = bucket.entries(place.start)
            alone = bucket.look(place.start) if place.one else None
        except StoreError as error:
            raise SourceError(f"source {place.text!r} cannot be listed: {error}") from error
        return [*entries, *([alone] if alone else [])]

    @contextmanager
    def reading(self, known: Mapping[str, Stat] | None = None) -> Iterator[Listing]:
        """A scan; the objects are other people's, and may go at any time."""
        yield self.scan(known)

    def file(self, path: str) -> SourceFile:
        """The object as it is now; FileNotFoundError where there is none, StoreError if no answer comes."""
        for place in self.buckets:
            key = place.key(path)
            entry = _bucket(place.bucket).look(key) if key else None
            if entry is not None:
                stat = FileStat(*_stat(entry))
                remote = _Reader(self.buckets, {path: stat}, {})
                return SourceFile(path, self.absolute(path), stat, remote)
        raise FileNotFoundError(path)

    def path_of(self, absolute: Path) -> str | None:
        """The path, in listings, of an object's address."""
        for place in self.buckets:
            key = place.key_of_address(absolute)
            if key is not None:
                return place.path(key)
        return None

    def absolute(self, path: str) -> Path:
        """The address, as a path of that many parts."""
        for place in self.buckets:
            key = place.key(path)
            if key is not None:
                return Path(place.bucket, key)
        return Path(path)

    def matches(self, absolute: Path) -> bool:
        """Whether an object of this address would be one of the source's; looks at the name alone."""
        for place in self.buckets:
            key = place.key_of_address(absolute)
            if key is not None and place.place.takes(tuple(place.within(key).split("/"))):
                return True
        return False

    def absence(self, listing: Listing) -> str:
        """There is no object."""
        return f"no object is there that its source {self.text} names"

    def why_nothing(self, listing: Listing) -> str | None:
        """A mistyped address, most likely."""
        if listing.stats:
            return None
        return f"no object is there that its source {self.text!r} names; correct source=, or put one there"


def _take_in(
    place: BucketPlace,
    entries: Sequence[Entry],
    known: Mapping[str, Stat],
    stats: dict[str, Stat],
    ignored: list[Ignored],
    hive: set[str],
) -> None:
    """Add a place's objects to what is listed."""
    takes_all, prefix = place.place.pattern is EVERYTHING, place.place.prefix
    folders: dict[str, bool] = {}
    cut = len(place.below) + 1 if place.below else 0
    for entry in entries:
        within = entry.key[cut:]
        folder, _, name = within.rpartition("/")
        if folder not in folders:
            check_key(place.text, place.bucket, entry.key)
            folders[folder] = not any(map(is_skipped, filter(None, folder.split("/"))))
        elif name.endswith(".json"):
            check_key(place.text, place.bucket, entry.key)
        if not folders[folder] or not name or is_skipped(name):
            continue
        parts = tuple(within.split("/"))
        if not (takes_all and name.endswith(SUFFIXES)) and not place.place.takes(parts):
            if place.place.pattern.fits(parts):
                ignored.append(Ignored(prefix + within, wrong_type(name)))
            continue
        now, was = _stat(entry), known.get(prefix + within)
        stats[prefix + within] = was if was == now else now
        hive.update(match[1] for part in parts[:-1] if (match := HIVE.fullmatch(part)))


class _Reader(Remote):
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
        self._ahead: dict[str, bytes | None] = {}

    def fetch(self, path: str, stat: FileStat) -> bytes | None:
        """Ask for it and for some of those after it, or take it from what was fetched before."""
        if self._stats.get(path) != stat:
            return self._fetched(path, stat)
        if path not in self._ahead:
            batch = self._batch(path)
            contents = each(lambda one: self._fetched(one, self._stats[one]), batch)
            self._ahead = dict(zip(batch, contents, strict=True))
        return self._ahead.pop(path)

    def has(self, path: str) -> bool:
        """Look at the object."""
        return any(
            _bucket(place.bucket).look(key) is not None
            for place in self._buckets
            if (key := place.key(path))
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

    def _fetched(self, path: str, stat: Stat) -> bytes | None:
        for place in self._buckets:
            key = place.key(path)
            blob = _bucket(place.bucket).read(key) if key else None
            if blob is not None:
                is_same = len(blob.data) == stat[0] and _mark(blob.tag) in (stat[3], 0)
                return blob.data if is_same else None
        return None


def _stat(entry: Entry) -> Stat:
    """A stat that tells the object's state."""
    return entry.size, entry.modified * 1_000, 0, _mark(entry.tag)


def _mark(tag: Tag) -> int:
    """A number for the state of an object; 0 where its server does not tell."""
    text = (tag.e_tag or "").removeprefix("W/").strip(
        '"'
    ) or tag.version  # a listing has no version
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16) if text else 0
