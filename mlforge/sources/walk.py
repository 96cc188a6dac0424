"""A walk over one place of a source: it lists, it does not open."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlforge.errors import SourceError, SourceUnavailable
from mlforge.sources.glob import EVERYTHING, Parts
from mlforge.sources.lake_table import METADATA, STORE, check_above, check_log, check_store
from mlforge.sources.place import HIDDEN, READERS, SUFFIXES, UNFINISHED, Place
from mlforge.sources.source_file import Stat, stat_of

FolderState = tuple[int, int]
"""The inode and modification time of a folder: while they stay no entry came, went or was renamed."""
_SETTLED_NS = 2_000_000_000  # coarse clocks of file systems, and those of other hosts
HIVE = re.compile(r"([^=]+)=.*", re.DOTALL)
"""A folder whose name holds a column's value."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """Something in a source that is not one of its files, and why."""

    path: str
    reason: str


class Walk:
    """A walk over a place: the stats of its files, what is ignored, and columns in folders' names.

    exists: whether the place's root existed. looked_into: the state of each folder that was listed, from before it
    was; None for one that changed so lately that a further change might not show.
    """

    def __init__(self, place: Place, follow: bool, known: Mapping[str, Stat]) -> None:
        self.place, self.follow, self.known = place, follow, known
        self.pattern, self.exists = place.pattern, True
        self.stats: dict[str, Stat] = {}
        self.ignored: list[Ignored] = []
        self.hive: set[str] = set()
        self.folders: list[tuple[Path, Parts]] = []
        self.followed: set[Path] = set()
        self.looked_into: dict[str, FolderState | None] = {}

    def run(self) -> Walk:
        """Walk the whole place. Raises SourceError if a folder cannot be listed or belongs to a table with a log, or to a store."""
        root = self.place.root
        check_above(self.place.text, root)
        try:
            self._look_into(root, ())
        except FileNotFoundError:
            self.exists = False
            return self
        except OSError as error:
            raise self._failed(root, error) from error
        while self.folders:
            folder, parts = self.folders.pop()
            try:
                self._look_into(folder, parts)
            except OSError as error:
                self._cannot(folder, parts, error)
        if self.follow:
            self._count_once()
        return self

    def _look_into(self, folder: Path, above: Parts) -> None:
        """Raises OSError if the folder cannot be listed."""
        # While it is open, no stat of an entry has to find the way to it again.
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            state = os.fstat(descriptor)
            settled = time.time_ns() - state.st_mtime_ns > _SETTLED_NS
            self.looked_into[str(folder)] = _state(state) if settled else None
            with os.scandir(descriptor) as listed:
                entries = list(listed)  # at once: what is renamed meanwhile could be missed
            self._look_at(folder, entries, above)
        finally:
            os.close(descriptor)

    def _look_at(self, folder: Path, entries: list[os.DirEntry[str]], above: Parts) -> None:
        stats, known, takes_all = self.stats, self.known.get, self.pattern is EVERYTHING
        before = len(stats)
        prefix = self.place.prefix + "".join(f"{part}/" for part in above)
        while entries:
            entry = entries.pop()  # it keeps its stat, and all of them take megabytes
            name = entry.name
            try:
                # What most are, by the shortest way.
                if (
                    takes_all
                    and name.endswith(SUFFIXES)
                    and name[0] not in HIDDEN
                    and name.isascii()
                    and entry.is_file(follow_symlinks=False)
                ):
                    now = stat_of(entry.stat(follow_symlinks=False))
                    path = prefix + name
                    was = known(path)
                    stats[path] = was if was == now else now
                    continue
                if name[0] in HIDDEN or name == METADATA:
                    check_log(self.place.text, folder, name)
                    if name == STORE and (above or takes_all):
                        check_store(self.place.text, folder)
                if name[0] not in HIDDEN and not name.endswith(UNFINISHED):
                    self._entry(entry, folder / name, (*above, name))
            except OSError as error:
                self._cannot(folder / name, (*above, name), error)
        if len(self.stats) > before:
            self.hive.update(match[1] for part in above if (match := HIVE.fullmatch(part)))

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
        elif not self.place.is_parquet(parts):
            self._ignore(parts, wrong_type(parts[-1]))
        else:
            self._see(self.place.prefix + "/".join(parts), result)

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
        root = Path(os.path.realpath(self.place.root))
        target = Path(os.path.realpath(path))
        to = _printable(str(target))
        result = target.stat()
        is_folder = stat.S_ISDIR(result.st_mode)
        if self.pattern.is_one and len(parts) == 1:
            if is_folder:
                self._folder(path, parts)
            else:
                self._file(parts, result)
        elif not target.is_relative_to(root) and self.follow:
            self._follow(path, parts, target, result)
        elif not target.is_relative_to(root):
            self._ignore(
                parts,
                f"a link out of the source, to {to}; put the data here, name that place, or say "
                "Definitions(follow_links=True)",
            )
        elif is_folder:
            self._ignore(parts, f"a link to the folder {to}; links to folders are not followed")
        elif self.place.takes(target.relative_to(root).parts):
            self._ignore(parts, f"a link to {to}, which counts already")
        elif self.pattern.fits(parts):
            self._file(parts, result)

    def _count_once(self) -> None:
        """Keep only the first of several names of one file."""
        counted: set[str] = set()
        for path in sorted(self.stats):
            parts = tuple(path.removeprefix(self.place.prefix).split("/"))
            real = os.path.realpath(self.place.root.joinpath(*parts))
            if real in counted:
                del self.stats[path]
                self._ignore(parts, f"a link to {_printable(real)}, which counts already")
            counted.add(real)

    def _follow(self, path: Path, parts: Parts, target: Path, result: os.stat_result) -> None:
        """Follow a link that leads outside: each folder once, and never a folder above this source."""
        root = Path(os.path.realpath(self.place.root))
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
        shown = f"source {self.place.text!r}: {_printable(str(path))}"
        if path == self.place.root and os.path.isfile(path):  # noqa: PTH113 - False where pathlib raises
            return SourceError(f"{shown} is {wrong_type(path.name)}")
        return SourceUnavailable(
            f"{shown} cannot be listed ({error.strerror}); see that its disk is there and may be read"
        )

    def _ignore(self, parts: Parts, reason: str) -> None:
        self.ignored.append(Ignored(_printable(self.place.prefix + "/".join(parts)), reason))


def hive_of(paths: Iterable[str]) -> frozenset[str]:
    """The columns that the folders of paths hold."""
    folders = {path.rpartition("/")[0] for path in paths}
    parts = (part for folder in folders for part in folder.split("/"))
    return frozenset(match[1] for part in parts if (match := HIVE.fullmatch(part)))


def folder_state(folder: str) -> FolderState:
    """The state of a folder now; of nothing where there is none."""
    try:
        return _state(os.stat(folder))  # noqa: PTH116 - asked for each folder every few seconds
    except OSError:
        return 0, 0


def _state(result: os.stat_result) -> FolderState:
    return result.st_ino, result.st_mtime_ns


def _printable(text: str) -> str:
    """The text with bytes that are not UTF-8 spelled out, so that it can be printed and stored."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def wrong_type(name: str) -> str:
    """Why a file of this name is not read, and what to do."""
    suffix = Path(name).suffix.lower()
    if suffix in READERS:
        return f"not parquet; convert it: {READERS[suffix]}({name!r}).write_parquet({Path(name).stem + '.parquet'!r})"
    return (
        "not parquet by its name, which ends in .parquet or .pq: if it is parquet, rename it, or name such files in "
        "source=, as 'part-*' and '*.parq' do; else move it away"
    )
