"""The contract of a feature's source: which files its rows lie in now, and what may be asked of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

from mlforge.sources.listing import Listing
from mlforge.sources.place import Place
from mlforge.sources.source_file import SourceFile, Stat


class RowSource(ABC):
    """Where a feature's rows come from, a frozen dataclass. A scan lists files without opening them."""

    tables: tuple[tuple[str, RowSource], ...]
    """The sources of the function's further arguments, by their names."""
    places: tuple[Place, ...]
    """The places that a scan walks over; empty of a source that lists its files otherwise."""
    addresses: tuple[Path, ...] = ()
    """The addresses in buckets that its objects lie below, as paths of that many parts."""
    sealed_after: int | None = None
    """How long a partition's time is over, in microseconds, before it is not listed again; None for never."""

    @property
    @abstractmethod
    def text(self) -> str:
        """The source as a feature names it."""

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders to watch; by default none, as of a source whose changes are announced or asked for otherwise."""
        return ()

    @property
    def rows(self) -> Self:
        """The source without the tables."""
        return replace(self, tables=())  # type: ignore[type-var]

    def anew(self) -> RowSource:
        """The same source as the disk has it now; by default itself, as its name alone says what is meant."""
        return self

    @abstractmethod
    def scan(self, known: Mapping[str, Stat] | None = None) -> Listing:
        """List the source's files; `exists` is False where there is nothing to list yet.

        known: earlier stats by path; the listing reuses the objects of unchanged stats. Raises SourceError
        for what cannot be listed.
        """

    @contextmanager
    def reading(self, known: Mapping[str, Stat] | None = None) -> Iterator[Listing]:
        """A listing as `scan` gives it, whose files stay for as long as the block runs, where the source can promise it.

        By default it cannot: the files are other people's, and may go at any time.
        """
        yield self.scan(known)

    def look(self, paths: Collection[str], known: Mapping[str, Stat]) -> Listing | None:
        """A listing of the known files with those at these paths as they are now, without a look at any other; None where only a scan can tell.

        Tables are scanned. Raises SourceError as `scan` does.
        """
        return None

    def with_unlisted(self, listing: Listing, paths: Iterable[str]) -> Listing:
        """The listing with those of the paths that it lacks though they are there; the very listing of a source that lists exactly."""
        return listing

    @abstractmethod
    def file(self, path: str) -> SourceFile:
        """The file at a path of the source's listings, as it is now; raises OSError where it is gone."""

    def files_as_listed(self, stats: Mapping[str, Stat]) -> list[SourceFile]:
        """The files of these paths that are here as another process has listed them, each with this stat, in their order.

        A source that would have to ask for each may leave that to whoever reads it.
        """
        files = []
        for path, stat in stats.items():
            with suppress(OSError):
                file = self.file(path)
                if file.stat == stat and self.matches(file.absolute):
                    files.append(file)
        return files

    def path_of(self, absolute: Path) -> str | None:
        """The path, in listings, of a file or folder; None for one outside the source, as all are of a source in which nobody drops files."""
        return None

    @abstractmethod
    def absolute(self, path: str) -> Path:
        """Where the file of a path is."""

    def matches(self, absolute: Path) -> bool:
        """Whether a file at this absolute path would be one of the source's; looks at the name alone. By default nobody drops files there."""
        return False

    @abstractmethod
    def absence(self, listing: Listing) -> str:
        """Why a listing does not exist, in words."""

    @abstractmethod
    def why_nothing(self, listing: Listing) -> str | None:
        """The likely mistake that left a listing without files; None where there is none."""

    def sealed(
        self, until: int, known: Mapping[str, Stat], *, is_believed: bool = True
    ) -> RowSource:
        """The source, of which partitions are not listed again that were sealed by an instant; itself, where it seals none.

        until: the `sealed_until` of the listing before, UTC microseconds. known: the stats of files at that listing, by path.
        is_believed: False to list all once more, and to note what came into sealed partitions.
        """
        return self

    def is_sealed(self, path: str, until: int) -> bool:
        """Whether a path lies in a partition that was sealed by an instant."""
        return False

    @property
    def is_polled(self) -> bool:
        """Whether its changes show only to who lists it again, as nothing on this machine tells of them."""
        return False

    @property
    def is_told_of(self) -> bool:
        """Whether a bucket's notices name what changes in it and in its tables."""
        return False

    @property
    def missing(self) -> tuple[Path, ...]:
        """The roots that do not exist."""
        return tuple(root for root in self.roots if not root.exists())

    def feeds(self, absolute: Path) -> bool:
        """Whether a file at this absolute path would belong to the source, or to one of its tables."""
        return self.matches(absolute) or any(table.matches(absolute) for _, table in self.tables)
