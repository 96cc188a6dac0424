"""Which files a source consists of: a parquet file, a folder of them, or a glob.

A scan lists, it does not open: `mlforge.sources.parquet_reader` reads one file, and its names are at hand here.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from mlforge.errors import DefinitionError, SourceError
from mlforge.sources.glob import EVERYTHING, Parts, Pattern, is_magic
from mlforge.sources.parquet_reader import (
    Content,
    FileStat,
    SourceFile,
    Stat,
    completeness,
    content_hash,
    is_being_written,
    read,
    stat_of,
)

__all__ = [
    "Content",
    "FileStat",
    "Ignored",
    "Listing",
    "Source",
    "SourceFile",
    "completeness",
    "content_hash",
    "is_being_written",
    "read",
]

SUFFIXES = (".parquet", ".pq")
_HIDDEN = (".", "_")
_UNFINISHED = (".tmp", ".part", ".crdownload")
_HIVE = re.compile(r"([^=]+)=.*", re.DOTALL)
_READERS = {
    ".csv": "pl.read_csv",
    ".tsv": "pl.read_csv",
    ".json": "pl.read_json",
    ".jsonl": "pl.read_ndjson",
    ".ndjson": "pl.read_ndjson",
    ".arrow": "pl.read_ipc",
    ".feather": "pl.read_ipc",
    ".ipc": "pl.read_ipc",
    ".avro": "pl.read_avro",
    ".xlsx": "pl.read_excel",
}


@dataclass(frozen=True, slots=True)
class Ignored:
    """Something in a source that is not one of its files, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What a scan found. `hive` names the columns that paths hold: `date` of `date=2024-01-01/`.

    stats: each file's stat as a plain tuple, by its path from the root; in no particular order.
    """

    root: Path
    exists: bool
    stats: Mapping[str, Stat] = field(default_factory=dict)
    ignored: tuple[Ignored, ...] = ()
    hive: frozenset[str] = frozenset()

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """All of them, by their paths."""
        return self.among(self.stats)

    def among(self, paths: Iterable[str]) -> tuple[SourceFile, ...]:
        """Those of these paths, sorted: of thousands of files few are looked at closer."""
        return tuple(
            SourceFile(path, self.root / path, FileStat(*self.stats[path]))
            for path in sorted(paths)
        )


@dataclass(frozen=True, slots=True)
class Source:
    """Where a feature's files come from. `root` is the folder to watch."""

    text: str
    root: Path
    pattern: Pattern = field(repr=False)
    follow: bool = False
    """Whether links may lead out of the root: to files, and to folders, which are walked too."""

    @classmethod
    def of(cls, text: str | tuple[str, ...], base: Path, *, follow: bool = False) -> Source:
        """Understand a source as a feature writes it; relative text is taken from `base`.

        Text with `*`, `?` or `[` is a glob (`**` spans folders). Text that ends in .parquet or .pq is
        one file, or the folder of that name that some tools write. All else is a folder.
        follow: take links that lead out of the root. Raises DefinitionError for what can name no file.
        """
        text = text if isinstance(text, str) else text[0]
        if not text or "\0" in text or "://" in text:
            raise DefinitionError(
                f"source {text!r} is not a path; use a local parquet file, a folder, or a glob"
            )
        parts = Path(os.path.expanduser(text) if text.startswith("~/") else text).parts  # noqa: PTH111 - `~name` is a name
        folder = text.endswith("/")
        magic = next((i for i, part in enumerate(parts) if is_magic(part)), len(parts))
        if magic < len(parts):
            pattern = Pattern.glob((*parts[magic:], "**") if folder else parts[magic:])
        elif parts and not folder and parts[-1].lower().endswith(SUFFIXES):
            magic -= 1
            pattern = Pattern.at(parts[-1])
        else:
            pattern = EVERYTHING
        for part in parts[magic:]:
            if _skipped(part):
                raise DefinitionError(
                    f"source {text!r} names no file, for {part!r} is passed over: names that begin "
                    f"with {' or '.join(_HIDDEN)} or end in {', '.join(_UNFINISHED)} are never read"
                )
        # Lexical, for nothing of it may exist yet.
        return cls(text, Path(os.path.abspath(base.joinpath(*parts[:magic]))), pattern, follow)  # noqa: PTH100

    def matches(self, path: Path) -> bool:
        """Whether a file at this absolute path would be one of the source's; looks at the name alone."""
        try:
            parts = path.relative_to(self.root).parts
        except ValueError:
            return False
        return self._takes(parts)

    def scan(self, known: Mapping[str, Stat] | None = None) -> Listing:
        """List the files there are; a missing root has none. Raises SourceError if it cannot be listed.

        known: stats by path, as they were. Those that are the same are the very same in the listing, too.
        """
        return _Scan(self, known or {}).run()

    def _takes(self, parts: Parts) -> bool:
        return (
            bool(parts)
            and parts[-1].lower().endswith(SUFFIXES)
            and not any(map(_skipped, parts))
            and self.pattern.fits(parts)
        )


class _Scan:
    """One walk over a source's folder."""

    def __init__(self, source: Source, known: Mapping[str, Stat]) -> None:
        self.source, self.known = source, known
        self.pattern = source.pattern
        self.stats: dict[str, Stat] = {}
        self.ignored: list[Ignored] = []
        self.hive: set[str] = set()
        self.folders: list[tuple[Path, Parts]] = []
        self.followed: set[Path] = set()

    def run(self) -> Listing:
        root = self.source.root
        try:
            self._look_into(root, ())
        except FileNotFoundError:
            return Listing(root, exists=False)
        except OSError as error:
            raise self._failed(root, error) from error
        while self.folders:
            folder, parts = self.folders.pop()
            try:
                self._look_into(folder, parts)
            except OSError as error:
                self._cannot(folder, parts, error)
        if self.source.follow:
            self._count_once()
        return Listing(
            root,
            exists=True,
            stats=self.stats,
            ignored=tuple(sorted(self.ignored, key=attrgetter("path"))),
            hive=frozenset(self.hive),
        )

    def _look_into(self, folder: Path, above: Parts) -> None:
        """Raises OSError if the folder cannot be listed."""
        # While it is open, no stat of an entry has to find the way to it again.
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with os.scandir(descriptor) as found:
                entries = list(found)  # at once: what is renamed meanwhile could be missed
            self._look_at(folder, entries, above)
        finally:
            os.close(descriptor)

    def _look_at(self, folder: Path, entries: list[os.DirEntry[str]], above: Parts) -> None:
        before, takes_all = len(self.stats), self.pattern is EVERYTHING
        prefix = "".join(f"{part}/" for part in above)
        while entries:
            entry = entries.pop()  # it keeps its stat, and all of them take megabytes
            name = entry.name
            if name[0] in _HIDDEN:
                continue
            try:
                if (
                    takes_all
                    and name.endswith(SUFFIXES)
                    and name.isascii()
                    and entry.is_file(follow_symlinks=False)
                ):  # what most are, by the shortest way
                    self._see(prefix + name, entry.stat(follow_symlinks=False))
                elif not name.endswith(_UNFINISHED):
                    self._entry(entry, folder / name, (*above, name))
            except OSError as error:
                self._cannot(folder / name, (*above, name), error)
        if len(self.stats) > before:
            self.hive.update(found[1] for part in above if (found := _HIVE.fullmatch(part)))

    def _entry(self, entry: os.DirEntry[str], path: Path, parts: Parts) -> None:
        if entry.is_symlink():
            self._link(path, parts)
        elif entry.is_dir(follow_symlinks=False):
            self._folder(path, parts)
        elif self.pattern.fits(parts):
            self._file(parts, entry.stat(follow_symlinks=False))

    def _folder(self, path: Path, parts: Parts) -> None:
        if self.pattern.leads(parts) and self._nameable(parts):
            self.folders.append((path, parts))

    def _file(self, parts: Parts, result: os.stat_result) -> None:
        if not self._nameable(parts):
            return
        if not stat.S_ISREG(result.st_mode):
            self._ignore(parts, "neither a file nor a folder")
        elif not parts[-1].lower().endswith(SUFFIXES):
            self._ignore(parts, _wrong_type(parts[-1]))
        else:
            self._see("/".join(parts), result)

    def _see(self, path: str, result: os.stat_result) -> None:
        now, was = stat_of(result), self.known.get(path)
        self.stats[path] = was if was == now else now

    def _nameable(self, parts: Parts) -> bool:
        name = parts[-1]
        if name.isascii() or _printable(name) == name:
            return True
        self._ignore(parts, "its name is not valid UTF-8; rename it")
        return False

    def _link(self, path: Path, parts: Parts) -> None:
        """A link counts as a file if its target is one of this folder's that does not count itself."""
        if not (self.pattern.fits(parts) or self.pattern.leads(parts)):
            return
        root = Path(os.path.realpath(self.source.root))
        target = Path(os.path.realpath(path))
        to = _printable(str(target))
        result = target.stat()
        is_folder = stat.S_ISDIR(result.st_mode)
        if self.pattern.is_one and len(parts) == 1:
            if is_folder:
                self._folder(path, parts)
            else:
                self._file(parts, result)
        elif not target.is_relative_to(root) and self.source.follow:
            self._follow(path, parts, target, result)
        elif not target.is_relative_to(root):
            self._ignore(
                parts,
                f"a link out of the source, to {to}; put the data here, name that place, or say "
                "Definitions(follow_links=True)",
            )
        elif is_folder:
            self._ignore(parts, f"a link to the folder {to}; links to folders are not followed")
        elif self.source.matches(self.source.root / target.relative_to(root)):
            self._ignore(parts, f"a link to {to}, which counts already")
        elif self.pattern.fits(parts):
            self._file(parts, result)

    def _count_once(self) -> None:
        """Of several names of one file the first counts."""
        counted: set[str] = set()
        for path in sorted(self.stats):
            real = os.path.realpath(self.source.root / path)
            if real in counted:
                del self.stats[path]
                parts = tuple(path.split("/"))
                self._ignore(parts, f"a link to {_printable(real)}, which counts already")
            counted.add(real)

    def _follow(self, path: Path, parts: Parts, target: Path, result: os.stat_result) -> None:
        """Take what a link outwards leads to; a folder once, and none that this source lies in."""
        root = Path(os.path.realpath(self.source.root))
        if not stat.S_ISDIR(result.st_mode):
            if self.pattern.fits(parts):
                self._file(parts, result)
        elif root.is_relative_to(target) or target in self.followed:
            self._ignore(parts, f"a link to {_printable(str(target))}, which counts already")
        else:
            self.followed.add(target)
            self._folder(path, parts)

    def _cannot(self, path: Path, parts: Parts, error: OSError) -> None:
        """Pass over what may not be looked at; but a failing disk must not look like removed files."""
        if os.path.islink(path):  # noqa: PTH114 - False where pathlib raises
            self._ignore(parts, f"a link that leads nowhere ({error.strerror})")
        elif isinstance(error, PermissionError):
            self._ignore(parts, "permission denied; let mlforge read it, or move it away")
        elif not isinstance(error, FileNotFoundError):  # it went since its folder was listed
            raise self._failed(path, error) from error

    def _failed(self, path: Path, error: OSError) -> SourceError:
        shown = f"source {self.source.text!r}: {_printable(str(path))}"
        if path == self.source.root and os.path.isfile(path):  # noqa: PTH113 - False where pathlib raises
            return SourceError(f"{shown} is {_wrong_type(path.name)}")
        return SourceError(
            f"{shown} cannot be listed ({error.strerror}); see that its disk is there and may be read"
        )

    def _ignore(self, parts: Parts, reason: str) -> None:
        self.ignored.append(Ignored(_printable("/".join(parts)), reason))


def _skipped(name: str) -> bool:
    return name.startswith(_HIDDEN) or name.endswith(_UNFINISHED)


def _printable(text: str) -> str:
    """The text with bytes that are not UTF-8 spelled out, so that it can be printed and stored."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def _wrong_type(name: str) -> str:
    suffix = Path(name).suffix.lower()
    if suffix in _READERS:
        return f"not parquet; convert it: {_READERS[suffix]}({name!r}).write_parquet({Path(name).stem + '.parquet'!r})"
    return (
        "not parquet; files are named *.parquet or *.pq: rename it if it is one, else move it away"
    )
