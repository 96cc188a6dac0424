"""A source whose rows are those of another feature's served version.

Its files are the parts of that version's table. A part is immutable, and known by its hash: one that several
versions share is the same file of the same stat, one that a version replaces is another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mlforge.core.manifest import Manifest, Part
from mlforge.core.values import FEATURE
from mlforge.errors import VersionNotFound
from mlforge.sources.listing import Listing
from mlforge.sources.place import Place
from mlforge.sources.row_source import RowSource
from mlforge.sources.source_file import FileStat, SourceFile, Stat, reused
from mlforge.store.base import Store
from mlforge.store.integrity import intact

_TRIES = 5
_DIGITS = 16


@dataclass(frozen=True)
class FeatureSource(RowSource):
    """The rows of the version of `feature` that a store serves. tables: as those of any source."""

    store: Store
    feature: str
    tables: tuple[tuple[str, RowSource], ...] = ()
    places: tuple[Place, ...] = ()

    @property
    def text(self) -> str:
        """`feature:user_spend`."""
        return f"{FEATURE}{self.feature}"

    def scan(self, known: Mapping[str, Stat] | None = None) -> Listing:
        """List the parts of the served version. Raises IntegrityError where one is gone."""
        served = self.store.latest(self.feature)
        if served is None or served.version is None:
            return Listing(Path(self.feature), exists=False)
        located = self._located(served)
        with intact(self.feature):
            stats = {path: self._stat_of(part, file) for path, (part, file) in located.items()}
        return Listing(
            Path(self.store.location(self.feature, served.version)),
            exists=True,
            stats=reused(stats, known or {}),
            version=f"{self.text}@{served.version}",
            located={path: file for path, (_, file) in located.items()},
            tables={name: table.scan() for name, table in self.tables},
        )

    @contextmanager
    def reading(self, known: Mapping[str, Stat] | None = None) -> Iterator[Listing]:
        """A scan, and a lease of the version, so that no part of it is pruned meanwhile."""
        for attempt in range(_TRIES):
            listing = self.scan(known)
            with ExitStack() as lease:
                if listing.exists:
                    served = self.store.resolve(self.feature)
                    assert served.version is not None
                    if listing.version != f"{self.text}@{served.version}":
                        continue  # another is served by now
                    try:
                        lease.enter_context(self.store.lease(self.feature, served.version))
                    except VersionNotFound:
                        if attempt == _TRIES - 1:
                            raise
                        continue
                yield replace(listing, notes=self._notes(listing))
                return
        raise VersionNotFound(f"{self.feature}: its versions come and go faster than they are read")

    def file(self, path: str) -> SourceFile:
        """The part of that path in the newest version that has it; FileNotFoundError where none has."""
        for version in reversed(self.store.versions(self.feature)):
            manifest = self.store.manifest(self.feature, version)
            # Below the feature's name, which may have been another when the path was noted.
            located = {Path(own).name: here for own, here in self._located(manifest).items()}
            if Path(path).name in located:
                part, file = located[Path(path).name]
                return SourceFile(path, file, FileStat(*self._stat_of(part, file)))
        raise FileNotFoundError(path)

    def absolute(self, path: str) -> Path:
        """Where the part is."""
        return self.file(path).absolute

    def absence(self, listing: Listing) -> str:
        """The feature has no version."""
        return (
            f"its source, the feature {self.feature}, has no version yet; 'mlforge build' makes one"
        )

    def why_nothing(self, listing: Listing) -> str | None:
        """None: a feature without a version is one that is yet to be built."""
        return None

    def _located(self, manifest: Manifest) -> dict[str, tuple[Part, Path]]:
        """The parts of a version and where they lie, by path."""
        assert manifest.version is not None
        files = self.store.files(self.feature, manifest.version, manifest.parts)
        paths = paths_of(self.feature, manifest.parts)
        return {
            paths[place]: (part, Path(file))
            for place, (part, file) in enumerate(zip(manifest.parts, files, strict=True))
        }

    def _stat_of(self, part: Part, file: Path) -> Stat:
        """A stat that tells the part's content, however often it is linked or copied; raises OSError where it is gone.

        Without a time where files are fetched: each machine has fetched them at another one, and marks when it used them last.
        """
        stat = file.stat()
        written = 0 if self.store.fetches_files else stat.st_mtime_ns
        return (stat.st_size, written, 0, int(part.hash[:15], 16))

    def _notes(self, listing: Listing) -> tuple[str, ...]:
        hold = self.store.books(self.feature).hold
        if hold is None:
            return ()
        served = listing.version.removeprefix(FEATURE)
        return (f"its source is held, so {served} is what is read: {hold}",)


def paths_of(feature: str, parts: tuple[Part, ...]) -> dict[int, str]:
    """The path of each part by its place: after its hash, numbered where several are alike."""
    seen: Counter[str] = Counter()
    paths = {}
    for place, part in enumerate(parts):
        name, number = part.hash[:_DIGITS], seen[part.hash]
        seen[part.hash] += 1
        paths[place] = f"{feature}/{name}{f'-{number}' if number else ''}.parquet"
    return paths
