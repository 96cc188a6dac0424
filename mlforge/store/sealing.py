"""Sealed partitions: folders of a bucket whose time has been over for so long that they are not listed again.

What is known of a sealed partition is believed. It is sealed by the listing that finds it as the one before did, after its
time, and none of its objects younger than a day: until then, and where nothing is known of it, it is listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from mlforge.sources.source_file import Stat
from mlforge.sources.time_partitions import Period, period_of
from mlforge.store.bucket_place import BucketPlace
from mlforge.store.objects.objects import Entry, each

_WHOLE = ("day", "hour")
_SHOWN = 3
_QUIET_US = 86_400_000_000
"""A partition to which something came within so long, or within `after` where that is less, may be being filled yet."""


@dataclass(frozen=True)
class Seal:
    """The partitions that an earlier listing left sealed.

    after: how long a partition's time is over before it is sealed, in microseconds. until: the instant, in UTC microseconds,
    from before which partitions were sealed. known: stats of files by path, as the last refresh has them. is_believed: False
    where all is to be listed again.
    """

    after: int
    until: int = 0
    known: Mapping[str, Stat] = field(default_factory=dict)
    is_believed: bool = True

    def by(self, now: int) -> Seal:
        """The seal as it is by now; of no partition where `until` has yet to come: a clock that was ahead sealed what may be being filled."""
        return replace(self, until=0) if self.until > now else self

    @cached_property
    def _folders(self) -> set[str]:
        """The folders of known files, at every depth."""
        folders: set[str] = set()
        for path in self.known:
            above = path.rpartition("/")[0]
            while above and above not in folders:
                folders.add(above)
                above = above.rpartition("/")[0]
        return folders

    def is_sealed(self, period: Period | None) -> bool:
        """Whether a partition of that time is sealed."""
        return period is not None and period.end + self.after <= self.until

    def listed(self, place: BucketPlace) -> tuple[list[Entry], dict[str, Stat]]:
        """The objects of a place, but for those of sealed partitions, and the stats of the latter as they are known."""
        if not (self.until and self.known and self.is_believed) or place.one:
            return place.objects.entries(place.start), {}
        entries, whole, believed = list[Entry](), list[str](), list[str]()
        folders = [place.below]
        while folders:
            levels, folders = each(place.objects.level, folders), []
            for level in levels:
                entries += level.entries
                for folder in level.folders:
                    period = period_of(place.within(folder).split("/"))
                    if self.is_sealed(period) and place.path(folder) in self._folders:
                        believed.append(f"{place.path(folder)}/")
                    else:
                        is_whole = period is not None and period.unit in _WHOLE
                        (whole if is_whole else folders).append(folder)
        for more in each(place.objects.entries, whole):
            entries += more
        return entries, dict(self._below(tuple(believed)))

    def _below(self, folders: tuple[str, ...]) -> Iterator[tuple[str, Stat]]:
        return ((p, stat) for p, stat in self.known.items() if p.startswith(folders))

    def next(self, stats: Mapping[str, Stat], within: Callable[[str], str], now: int) -> int:
        """The instant before which partitions are sealed from now on, after a listing that began then.

        within: the path of a file within its place. A partition that the listing found changed, or with a young object, is not sealed, nor are
        later ones, however old its time is: one that comes late comes object by object, and with pauses.
        """
        young = (now - min(self.after, _QUIET_US)) * 1_000
        over, changed = {self.until}, set[int]()
        periods: dict[str, int | None] = {}
        for path in {*stats, *self.known}:
            folder = path.rpartition("/")[0]
            if folder not in periods:
                period = _period_of(within(path))
                periods[folder] = period.end + self.after if period else None
            sealed_at = periods[folder]
            if sealed_at is not None and sealed_at <= now:
                over.add(sealed_at)
                stat = stats.get(path)
                if stat != self.known.get(path) or (stat is not None and stat[1] > young):
                    changed.add(sealed_at)
        first = min(changed, default=now + 1)
        return max((at for at in over if at < first), default=0)

    def notes(self, stats: Mapping[str, Stat], within: Callable[[str], str]) -> Iterator[str]:
        """Sentences about a listing: objects that it found in sealed partitions, or that there is nothing to seal."""
        if stats and not any(map(_period_of, map(within, _one_of_each_folder(stats)))):
            yield "sealed_after has nothing to seal, as no folder is named after a time, such as date=2026-11-01"
        if not self.until or not self.known or self.is_believed:
            return
        late = sorted(
            path
            for path, stat in stats.items()
            if stat != self.known.get(path) and self.is_sealed(_period_of(within(path)))
        )
        if late:
            more = f" and {len(late) - _SHOWN:,} more" if len(late) > _SHOWN else ""
            count = "1 object" if len(late) == 1 else f"{len(late):,} objects"
            named = ", ".join(late[:_SHOWN])
            yield f"{count} came, or changed, in partitions that were sealed, and count now: {named}{more}"


def _one_of_each_folder(paths: Iterable[str]) -> Iterable[str]:
    return {path.rpartition("/")[0]: path for path in paths}.values()


def _period_of(path: str) -> Period | None:
    """The period that the folders of a path tell."""
    return period_of(path.split("/")[:-1])
