"""The files of a source: a parquet file, a folder of them, a glob, or a list of such places.

A scan lists files without opening them; `mlforge.sources.parquet_reader` reads one.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType

from mlforge.errors import near_names
from mlforge.sources.glob import EVERYTHING
from mlforge.sources.listing import Listing
from mlforge.sources.named_files import look_at
from mlforge.sources.place import Place
from mlforge.sources.row_source import RowSource
from mlforge.sources.source_file import SourceFile, Stat
from mlforge.sources.walk import Walk, hive_of


@dataclass(frozen=True, slots=True)
class Source(RowSource):
    """Where a feature's files come from.

    A file has one path, in listings and manifests. In a source of one place it starts from that place's
    root. In a source of several it starts as the place is written (`a/x.parquet` of `a/`), whatever
    the order of the places; a file in two of them counts once.

    base: the folder that relative texts start from. follow: whether links may lead out of a root: to
    files, and to folders, which are walked too. tables: the sources of a function's further arguments.
    """

    places: tuple[Place, ...]
    base: Path
    follow: bool = False
    tables: tuple[tuple[str, RowSource], ...] = ()

    @classmethod
    def of(
        cls,
        texts: str | Sequence[str],
        base: Path,
        *,
        follow: bool = False,
        tables: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> Source:
        """Understand a source as a feature writes it, one text or several (see `Place.of`).

        tables: the texts of the feature's tables, by their names.
        Raises DefinitionError for a text that can name no file.
        """
        several = (texts,) if isinstance(texts, str) else texts
        places = tuple(Place.of(text, base, alone=len(several) == 1) for text in several)
        further = ((name, cls.of(tables[name], base, follow=follow)) for name in tables)
        return cls(places, base, follow, tuple(further))

    def anew(self) -> Source:
        """The same source as the disk has it now: a name without a suffix is a file or a folder."""
        texts = [place.text for place in self.places]
        return replace(self, places=Source.of(texts, self.base).places)

    @property
    def text(self) -> str:
        """The source as it was written; several texts are divided by commas."""
        return ", ".join(place.text for place in self.places)

    @property
    def root(self) -> Path:
        """The folder that paths start from."""
        return self.places[0].root if len(self.places) == 1 else Path(os.path.abspath(self.base))  # noqa: PTH100

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders to watch."""
        return tuple(place.root for place in self.places)

    def absolute(self, path: str) -> Path:
        """Where the file of a path is."""
        return self.root / path

    def path_of(self, absolute: Path) -> str | None:
        """The path, in listings, of a file or folder; None for one outside all roots."""
        for place in self.places:
            parts = place.below(absolute)
            if parts is not None:
                return (place.prefix + "/".join(parts)).rstrip("/") or "."
        return None

    def matches(self, absolute: Path) -> bool:
        """Whether a file at this absolute path would be one of the source's; looks at the name alone."""
        return any(
            place.takes(absolute.relative_to(place.root).parts)
            for place in self.places
            if absolute.is_relative_to(place.root)
        )

    def file(self, path: str) -> SourceFile:
        """The file at a path below the root."""
        return SourceFile.under(self.root, path)

    def absence(self, listing: Listing) -> str:
        """A root is missing."""
        return f"its source {listing.root} is not there"

    def scan(self, known: Mapping[str, Stat] | None = None) -> Listing:
        """List the source's files; an empty listing if a root is missing.

        known: earlier stats by path; the listing reuses the objects of unchanged stats.
        Raises SourceError for a folder that cannot be listed, or that belongs to a table with a log.
        """
        walks = [Walk(place, self.follow, known or {}).run() for place in self.places]
        for walk in walks:
            if not walk.exists:
                return Listing(walk.place.root, exists=False)
        stats = walks[0].stats if len(walks) == 1 else self._each_once(walks)
        ignored = dict.fromkeys(entry for walk in walks for entry in walk.ignored)
        return Listing(
            self.root,
            exists=True,
            stats=stats,
            ignored=tuple(sorted(ignored, key=attrgetter("path"))),
            hive=frozenset().union(*(walk.hive for walk in walks)),
            tables={name: table.scan() for name, table in self.tables},
            folders={folder: at for walk in walks for folder, at in walk.looked_into.items()},
        )

    def look(self, paths: Collection[str], known: Mapping[str, Stat]) -> Listing | None:
        """As in `RowSource`; only of a source of one place, whose links lead nowhere out of it."""
        if self.follow or len(self.places) != 1:
            return None
        stats = look_at(self.places[0], paths, known)
        if stats is None:
            return None
        tables = {name: table.scan() for name, table in self.tables}
        return Listing(
            self.root,
            exists=True,
            stats=stats,
            hive=hive_of(paths),
            tables=tables,
            known=known,
            looked_at=frozenset(paths),
        )

    def why_nothing(self, listing: Listing) -> str | None:
        """The likely mistake in the source's text that left a listing without files; else None.

        An existing empty folder is no mistake: its files are yet to come.
        """
        if not listing.exists:
            near = _near(listing.root)
            return f"its source {listing.root} is not there; correct source=, or make it{near}"
        if listing.stats or all(place.pattern is EVERYTHING for place in self.places):
            return None
        near = _near(self.root / self.places[0].text) if len(self.places) == 1 else ""
        return f"no file is there that its source {self.text!r} names; correct source=, or put one there{near}"

    def _each_once(self, walks: Sequence[Walk]) -> dict[str, Stat]:
        """The files of several places; of two paths to one file the first counts."""
        place_of = os.path.realpath if self.follow else str
        counted: set[str] = set()
        stats: dict[str, Stat] = {}
        for walk in walks:
            for path, stat in walk.stats.items():
                place = place_of(self.absolute(path))
                if place not in counted:
                    counted.add(place)
                    stats[path] = stat
        return stats


def _near(path: Path) -> str:
    """A "did you mean" question, if something with a similar name lies beside a missing path; else empty."""
    try:
        near = near_names(path.name, os.listdir(path.parent), most=1)  # noqa: PTH208 - names alone
    except OSError:
        return ""
    return f" (did you mean {near[0]!r}?)" if near else ""
