"""A source whose files are objects of a bucket: `s3://bucket/transactions/`, `gs://…`, `az://…`.

An object is there whole or not at all. It is known by its ETag or version, its size and when it was written: one that is
written over shows. Its bytes are read from the bucket into memory, some ahead of their turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlforge.core import clock
from mlforge.errors import SourceUnavailable, StoreError
from mlforge.sources.glob import EVERYTHING
from mlforge.sources.lake_table import check_key, check_store_key
from mlforge.sources.listing import Listing
from mlforge.sources.place import SUFFIXES, Place, is_skipped
from mlforge.sources.row_source import RowSource
from mlforge.sources.source_file import FileStat, SourceFile, Stat
from mlforge.sources.time_partitions import period_of
from mlforge.sources.walk import HIVE, Ignored, hive_of, wrong_type
from mlforge.store.bucket_place import BucketPlace, stat_of
from mlforge.store.object_reader import ObjectReader
from mlforge.store.objects.objects import Entry, NotReadable, each
from mlforge.store.sealing import Seal

_ASKED_FOR = 1000
"""Objects that a listing lacks are asked for one by one up to so many."""


@dataclass(frozen=True)
class ObjectSource(RowSource):
    """The objects of some places. tables: as those of any source.

    sealed_after: how long the time of a partition is over, in microseconds, before it is not listed again; None for never.
    seal: what an earlier listing left sealed.
    """

    buckets: tuple[BucketPlace, ...]
    tables: tuple[tuple[str, RowSource], ...] = ()
    places: tuple[Place, ...] = field(default=(), init=False)
    seal: Seal | None = field(default=None, compare=False)
    sealed_after: int | None = None

    @classmethod
    def of(cls, texts: Sequence[str], sealed_after: int | None = None) -> ObjectSource:
        """Understand the addresses that a feature names. Raises DefinitionError."""
        alone = len(texts) == 1
        places = tuple(BucketPlace.of(text, alone=alone) for text in texts)
        return cls(places, sealed_after=sealed_after)

    @property
    def text(self) -> str:
        """The addresses as they were written, divided by commas."""
        return ", ".join(place.text for place in self.buckets)

    @property
    def addresses(self) -> tuple[Path, ...]:  # type: ignore[override]
        """The addresses of its places."""
        return tuple(Path(place.bucket, place.below) for place in self.buckets)

    @property
    def is_polled(self) -> bool:
        """True: a bucket tells nobody of its changes."""
        return True

    @property
    def is_told_of(self) -> bool:
        """True, unless a table lies elsewhere: a bucket may send notices of its changes."""
        return all(table.is_told_of for _, table in self.tables)

    def sealed(
        self, until: int, known: Mapping[str, Stat], *, is_believed: bool = True
    ) -> ObjectSource:
        """The source, of which partitions are not listed again that were sealed by then."""
        if self.sealed_after is None:
            return self
        return replace(self, seal=Seal(self.sealed_after, until, known, is_believed))

    def is_sealed(self, path: str, until: int) -> bool:
        """Whether the names of the path's folders tell a time that had been over for long enough by then."""
        return self.sealed_after is not None and Seal(self.sealed_after, until).is_sealed(
            period_of(self._within(path).split("/")[:-1])
        )

    def scan(self, known: Mapping[str, Stat] | None = None) -> Listing:
        """List the objects. A prefix without any does not exist. Raises SourceError where no answer comes."""
        began = clock.now()
        seal = (self.seal or Seal(self.sealed_after or 0)).by(began)
        stats: dict[str, Stat] = {}
        ignored: list[Ignored] = []
        hive: set[str] = set()
        is_there = False
        for place in self.buckets:
            entries, believed = self._listed(place, seal)
            is_there = is_there or bool(entries or believed)
            _take_in(place, entries, known or {}, stats, ignored, hive)
            stats |= {path: (known or {}).get(path, stat) for path, stat in believed.items()}
            hive.update(hive_of(believed))
        first = self.buckets[0]
        root = first.bucket + str(first.place.root) if len(self.buckets) == 1 else self.text
        return Listing(
            Path(root),
            exists=is_there,
            stats=stats,
            ignored=tuple(sorted(ignored, key=lambda entry: entry.path)),
            hive=frozenset(hive),
            tables={name: table.scan() for name, table in self.tables},
            remote=ObjectReader(self.buckets, stats, known or {}),
            notes=tuple(seal.notes(stats, self._within)) if self.sealed_after else (),
            sealed_until=seal.next(stats, self._within, began) if self.sealed_after else 0,
        )

    def _within(self, path: str) -> str:
        """The path of a file within its place."""
        for place in self.buckets:
            if (key := place.key(path)) is not None:
                return place.within(key)
        return path

    def _listed(self, place: BucketPlace, seal: Seal) -> tuple[list[Entry], Mapping[str, Stat]]:
        try:
            entries, believed = seal.listed(place)
            alone = place.looked_at(place.start) if place.one else None
        except StoreError as error:
            raise _not_listed(place, error) from error
        return [*entries, *([alone] if alone else [])], believed

    def with_unlisted(self, listing: Listing, paths: Iterable[str]) -> Listing:
        """Ask for each object of the paths that the listing lacks: a proxy may list what was there a while ago.

        Of very many some are asked for first, and the others only if one of these is there. Raises SourceError where no answer comes.
        """
        absent = [path for path in paths if path not in listing.stats]
        some = absent[:: -(-len(absent) // _ASKED_FOR) or 1]
        stats, columns = self._stats_now(some)
        if not stats:
            return listing
        more, columns_of_more = self._stats_now([path for path in absent if path not in {*some}])
        stats = {**listing.stats, **stats, **more}
        remote = listing.remote.among(stats) if isinstance(listing.remote, ObjectReader) else None
        hive = listing.hive | columns | columns_of_more
        return replace(listing, exists=True, stats=stats, hive=hive, remote=remote)

    def _stats_now(self, paths: Sequence[str]) -> tuple[dict[str, Stat], set[str]]:
        """The stats of objects that are there and count, as they are now, and the columns that their paths hold."""
        stats: dict[str, Stat] = {}
        hive: set[str] = set()
        for place in self.buckets:
            object_keys = [key for path in paths if (key := place.key(path))]
            try:
                entries = [
                    entry for entry in each(place.looked_at, object_keys) if entry is not None
                ]
            except StoreError as error:
                raise _not_listed(place, error) from error
            _take_in(place, entries, {}, stats, [], hive)
        return stats, hive

    def file(self, path: str) -> SourceFile:
        """The object as it is now; FileNotFoundError where there is none, PermissionError for one that may not be read.

        Raises StoreError if no answer comes.
        """
        for place in self.buckets:
            key = place.key(path)
            try:
                entry = place.objects.look(key) if key else None
            except NotReadable as error:
                raise PermissionError(str(error)) from error
            if entry is not None:
                stat = FileStat(*stat_of(entry))
                remote = ObjectReader(self.buckets, {path: stat}, {})
                return SourceFile(path, self.absolute(path), stat, remote)
        raise FileNotFoundError(path)

    def files_as_listed(self, stats: Mapping[str, Stat]) -> list[SourceFile]:
        """All of them: an object that is another by now is not read."""
        remote = ObjectReader(self.buckets, stats, {})
        return [
            SourceFile(path, self.absolute(path), FileStat(*stat), remote)
            for path, stat in stats.items()
        ]

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


def _not_listed(place: BucketPlace, error: StoreError) -> SourceUnavailable:
    return SourceUnavailable(f"source {place.text!r} cannot be listed: {error}")


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
            above = tuple(folder.split("/")[:-1])
            if takes_all or (above and place.place.pattern.leads(above)):
                check_store_key(place.text, place.bucket, entry.key)
            continue
        parts = tuple(within.split("/"))
        if not (takes_all and name.endswith(SUFFIXES)) and not place.place.takes(parts):
            if place.place.pattern.fits(parts):
                ignored.append(Ignored(prefix + within, wrong_type(name)))
            continue
        now, was = stat_of(entry), known.get(prefix + within)
        stats[prefix + within] = was if was == now else now
        hive.update(match[1] for part in parts[:-1] if (match := HIVE.fullmatch(part)))
