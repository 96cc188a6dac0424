"""The packs of a feature that are live, as `_packs/CURRENT` names them.

    {"format": 1, "packs": [<file names, ascending>], "retired": {<file name>: <seconds since 1970>}}

The document is replaced in one step: before it new packs are written whole, after it packs that hold nothing of
their own are retired. Readers that have looked up a retired pack go on reading it; it is deleted after a while.

A partial that lies in several packs counts in the last. So where the document is missing, damaged or does not know
a pack, as after a kill or in a store of a release before it, all packs in the folder say the same: an older pack
may then hold more than versions name, which pruning deletes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

from mlforge.core.disk import sync
from mlforge.core.failpoints import reach
from mlforge.errors import IntegrityError
from mlforge.store.file_tasks import PartialLocation, Told
from mlforge.store.local import io, packs
from mlforge.store.local.file_memo import FileMemo
from mlforge.store.local.packs import Pack
from mlforge.store.local.paths import check_format, entries_of, no_link, state_of

DOCUMENT = "CURRENT"
FORMAT = 1


@dataclass(frozen=True)
class Current:
    """Names of live packs, ascending, and the retirement time of each retired pack."""

    packs: tuple[str, ...] = ()
    retired: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The document of a folder, None where there is none or it is damaged.

        Raises UnsupportedStore if a newer release wrote it, and StoreError if it is a link.
        """
        path = folder / DOCUMENT
        try:
            document = io.read_json(path)
            if document is None:
                return None
            if not isinstance(document, dict):
                raise IntegrityError(f"{path} is damaged")
            check_format(document, path, FORMAT)
            return cls.from_json(document)
        except (IntegrityError, KeyError, TypeError, ValueError, AttributeError):
            return None

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Raises ValueError or a like error for a document of another shape, or that leads elsewhere."""
        retired = {str(name): float(when) for name, when in document["retired"].items()}
        live = tuple(sorted(map(str, document["packs"])))
        if any(packs.NAME.fullmatch(name) is None for name in (*live, *retired)):
            raise ValueError("a name is not that of a pack")
        return cls(live, retired)

    def to_json(self) -> dict[str, Any]:
        """The document."""
        return {"format": FORMAT, "packs": list(self.packs), "retired": dict(self.retired)}


@dataclass(frozen=True)
class Packed:
    """Readable live packs, ascending, and the pack of each partial."""

    packs: tuple[Pack, ...] = ()
    places: Mapping[str, PartialLocation] = field(default_factory=dict)

    @cached_property
    def whole(self) -> tuple[Pack, ...]:
        """Packs in which every partial is live."""
        return tuple(pack for pack in self.packs if len(self.live_hashes(pack)) == len(pack.hashes))

    @classmethod
    def of(cls, live: tuple[Pack, ...]) -> Self:
        """Of packs in ascending order: the last one that holds a partial counts."""
        places: dict[str, PartialLocation] = {}
        for pack in live:
            places.update(pack.places)
        return cls(live, places)

    def live_hashes(self, pack: Pack) -> list[str]:
        """Hashes of the partials that are read from this pack."""
        file = pack.file
        return [hash_ for hash_ in pack.hashes if self.places[hash_].file == file]

    def pack_of(self, hash_: str) -> Pack | None:
        """The pack that a partial is read from, None if it is in no pack."""
        place = self.places.get(hash_)
        return next((p for p in self.packs if place and p.file == place.file), None)


class LivePacks:
    """Reads and replaces the `CURRENT` of a feature's packs; who changes anything holds the feature's lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._packed = Packed()  # of the last look: footers are read once, for a pack never changes
        self._told: Told | None = None
        self._document = FileMemo[Current]()

    @property
    def folder(self) -> Path:
        """The folder of packs; StoreError if it is a link."""
        return no_link(self._folder)

    def look(self) -> Packed:
        """See what live packs hold by now; a pack that is missing or damaged holds nothing."""
        names, looked_for = self._names(), None
        while names != looked_for:
            self._packed, looked_for = self._read(names), names
            if len(self._packed.packs) < len(names):
                names = self._names()  # a pack may have gone because another has taken its place
        return self._packed

    @contextmanager
    def telling(self, told: Told) -> Iterator[None]:
        """Within the block, tell of each pack before it is written."""
        self._told = told
        try:
            yield
        finally:
            self._told = None

    def write(self, runs: Iterable[packs.Run], dropped: Collection[str] = ()) -> None:
        """Write runs of partials as a pack each, make them live, and retire the packs that now hold nothing.

        dropped: names of packs that are retired whatever they hold.
        """
        folder, told = self.folder, self._told
        added = self._added(partial(packs.write, folder, run=run, told=told) for run in runs)
        if added or dropped:
            self._replace(added, dropped)

    def adopt(self, files: Iterable[Path]) -> None:
        """Have packs of another folder, too, and make them live."""

        def linked(sequence: int, file: Path) -> Path:
            path = self.folder / packs.new_name(sequence)
            with io.replacing(path, folder=False) as temporary:
                io.link_or_copy(file, temporary)
            return path

        self._replace(self._added(partial(linked, file=file) for file in files))

    def _added(self, writes: Iterable[Callable[[int], Path]]) -> list[str]:
        """The names of new packs, each written under the next number by one of the calls."""
        with io.storage_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
            last = max(map(packs.sequence_of, self._listed()), default=0)
            added = []
            for sequence, write in enumerate(writes, last + 1):
                added.append(write(sequence).name)
                reach("pack.written")
            if added:
                sync(self.folder)
        return added

    def recover(self) -> None:
        """Take up packs that `CURRENT` does not know, and delete what a killed writer left half-written."""
        for entry in entries_of(self.folder):
            if entry.name.startswith("."):
                Path(entry.path).unlink(missing_ok=True)
        known = self._current()
        listed = self._listed()
        if listed and (known is None or not {*known.packs, *known.retired}.issuperset(listed)):
            self._replace(listed if known is None else {*listed} - {*known.packs, *known.retired})

    def expired(self, grace_s: float) -> list[str]:
        """Names of packs that were retired at least this many seconds ago."""
        known = self._current()
        now = time.time()
        return (
            [name for name, when in known.retired.items() if now - when >= grace_s] if known else []
        )

    def sweep(self, grace_s: float) -> None:
        """Delete packs that were retired at least this many seconds ago."""
        expired = self.expired(grace_s)
        for name in expired:
            path = self.folder / name
            with io.storage_errors(path):
                path.unlink(missing_ok=True)
            reach("pack.swept")
        if expired:
            self._replace()

    def _current(self) -> Current | None:
        """`CURRENT` as it is now; it is read again only once it has been replaced, as a refresh asks for it several times."""
        return self._document.of(f"{self._folder}/{DOCUMENT}", lambda: Current.read(self._folder))

    def _names(self) -> tuple[str, ...]:
        known = self._current()
        return tuple(self._listed()) if known is None else known.packs

    def _listed(self) -> list[str]:
        return sorted(e.name for e in entries_of(self.folder) if packs.NAME.fullmatch(e.name))

    def _read(self, names: Iterable[str]) -> Packed:
        before = {pack.state: pack for pack in self._packed.packs}
        readable = []
        for name in names:
            with suppress(FileNotFoundError, NotADirectoryError, IntegrityError):
                known = before.get(state_of(f"{self._folder}/{name}"))  # no link has a pack's state
                readable.append(known or Pack.read(no_link(self._folder / name)))
        live = tuple(readable)
        return self._packed if live == self._packed.packs else Packed.of(live)

    def _replace(self, added: Collection[str] = (), dropped: Collection[str] = ()) -> None:
        """Replace `CURRENT`; a pack retires when it is dropped, or when all its partials lie in later packs."""
        known = self._current() or Current()
        there = set(self._listed())
        live = sorted(there.intersection((*known.packs, *added)).difference(dropped))
        packed = self._read(live)
        empty = {pack.path.name for pack in packed.packs if not packed.live_hashes(pack)}
        now = time.time()
        retired = dict.fromkeys(sorted(empty.union(dropped)), now) | dict(known.retired)
        current = Current(
            tuple(name for name in live if name not in empty),
            {name: when for name, when in retired.items() if name in there},
        )
        with io.storage_errors(self.folder):
            io.write_json(self.folder / DOCUMENT, current.to_json())
        reach("packs.listed")
