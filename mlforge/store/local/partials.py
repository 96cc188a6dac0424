"""The partials of one feature: loose, each in a file of its own, or in packs.

    _partials/<hash>.parquet
    _packs/<sequence>-<id>.parquet

A pack's word goes before that of a loose file and of older packs, so what is written anew counts.
What a pack stands in for is kept for a while, for readers that have looked it up, then swept.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from mlforge.core.failpoints import reach
from mlforge.core.manifest import Partial
from mlforge.core.schema import Schema
from mlforge.errors import IntegrityError, StoreError
from mlforge.frames import polars_schema
from mlforge.store import file_tasks
from mlforge.store.file_tasks import FileScanTask, Kept, PartialLocation, PartialWrite
from mlforge.store.local import io, packs
from mlforge.store.local.packs import Pack, Packing
from mlforge.store.local.paths import State, is_link, no_link, state_of
from mlforge.store.manifest_json import partial_from_json, partial_to_json

_DESCRIPTION = "mlforge.partial"
_HASH = re.compile(r"[0-9A-Za-z]{1,100}")
_ROW_GROUP = 32_768
_SUFFIX = ".parquet"
_REMEMBERED = 8


@dataclass(frozen=True)
class Inventory:
    """What there was at a look: loose partials, and whether each is a link; packs, the oldest first."""

    loose: Mapping[str, bool]
    packs: tuple[Pack, ...]
    superseded: tuple[Pack, ...]
    packed: Mapping[str, PartialLocation]


class PartialStore:
    """Keeps the partials of a feature in its folder."""

    def __init__(self, folder: Path, packing: Packing) -> None:
        self.folder, self.packing = folder, packing
        self._read: dict[State, Pack] = {}
        self._lots: list[
            tuple[Sequence[Partial], Mapping[str, PartialLocation], Sequence[FileScanTask]]
        ] = []
        self._counted: tuple[tuple[Pack, ...], dict[str, PartialLocation], tuple[Pack, ...]] = (
            (),
            {},
            (),
        )
        self._whole: dict[str, FileScanTask] = {}
        # By file; None in a process that was never asked to `keep` any, as most are.
        self._memory: dict[str, Kept] | None = None

    def refuse_links(self) -> None:
        """Raise StoreError if its folders are not here but elsewhere."""
        for folder in (self.loose, self.packs):
            no_link(folder)

    @property
    def loose(self) -> Path:
        """Where partials lie alone."""
        return no_link(self.folder / "_partials")

    @property
    def packs(self) -> Path:
        """Where packs lie."""
        return no_link(self.folder / "_packs")

    def alone(self, hash_: str) -> Path:
        """Where a partial lies if it lies alone."""
        if _HASH.fullmatch(hash_) is None:
            raise StoreError(f"{self.folder.name}: {hash_!r} is not a partial's hash")
        return Path(f"{self.folder}/_partials/{hash_}{_SUFFIX}")

    def look(self) -> Inventory:
        """See what there is."""
        found = tuple(self._found())
        packed, counting = self._count(found)
        loose = {
            entry.name.removesuffix(_SUFFIX): entry.is_symlink()
            for entry in _entries(self.loose)
            if entry.name.endswith(_SUFFIX) and _HASH.fullmatch(entry.name.removesuffix(_SUFFIX))
        }
        superseded = tuple(pack for pack in found if pack not in counting)
        return Inventory(loose, counting, superseded, packed)

    def hashes(self) -> set[str]:
        """All that is stored."""
        stock = self.look()
        alone = (hash_ for hash_, link in stock.loose.items() if not link)
        return {*stock.packed, *alone}

    def locate(self, hashes: Iterable[str]) -> list[PartialLocation]:
        """Where each lies or would lie."""
        return self._located(hashes, self.look())

    def plan_files(self, partials: Sequence[Partial]) -> Sequence[FileScanTask]:
        """What is read for these partials; asked twice for one and the same list, the same again."""
        stock = self.look()
        for known, packed, made in self._lots:
            if known is partials and packed is stock.packed:
                return made
        made = self._made(partials, stock)
        if self._memory:
            made = [replace(task, kept=self._memory.get(task.file)) for task in made]
        self._lots = [(partials, stock.packed, made), *self._lots[: _REMEMBERED - 1]]
        return made

    def keep(
        self, partials: Sequence[Partial], columns: Collection[str], time: str, since: int
    ) -> None:
        """Keep these columns of what the partials hold from an instant on in memory, and nothing else."""
        tasks = {task.file: task for task in self.plan_files(partials)}
        wanting = [task for task in tasks.values() if not task.in_memory(columns, since)]
        found = pl.collect_all(
            pl.scan_parquet(task.file, glob=False)
            .filter(pl.col(time) >= polars_schema.instant(since))
            .select(task.stored(columns))
            for task in wanting
        )
        read = {task.file: Kept(rows, since) for task, rows in zip(wanting, found, strict=True)}
        self._memory = {file: task.kept for file, task in tasks.items() if task.kept} | read
        self._lots = []

    def find(self, hash_: str) -> Partial | None:
        """A stored partial's description, None if it is not stored or damaged."""
        stock = self.look()
        if hash_ in stock.packed:
            place = stock.packed[hash_]
            return next(p for p in stock.packs if p.file == place.file).partials.get(hash_)
        path = Path(self._loose_place(hash_, stock).file)
        if not path.is_file():
            return None
        try:
            found = partial_from_json(json.loads(pl.read_parquet_metadata(path)[_DESCRIPTION]))
        except (
            pl.exceptions.PolarsError,
            pl.exceptions.PanicException,
            KeyError,
            TypeError,
            ValueError,
        ):
            return None  # damaged: whoever asked makes it anew
        return found if found.hash == hash_ else None

    def write(self, made: Sequence[PartialWrite], sorted_by: str | None) -> None:
        """Store partials: many small ones of a schema in packs, each of the others alone."""
        stock = self.look()
        by_hash = {write.partial.hash: write for write in made}
        groups: dict[Schema, list[Partial]] = defaultdict(list)
        for hash_, (partial, frame) in by_hash.items():
            path = self.alone(hash_)
            if hash_ not in stock.packed and partial.rows > self.packing.small_rows:
                self._write_alone(path, partial, frame)
            else:
                groups[partial.schema].append(partial)
        for group in groups.values():
            again = any(partial.hash in stock.packed for partial in group)
            if again or len(group) >= self.packing.at_least:
                for run in packs.runs(group, self.packing.pack_rows):
                    self._write_pack([by_hash[partial.hash] for partial in run], sorted_by)
            else:
                for partial in group:
                    self._write_alone(self.alone(partial.hash), *by_hash[partial.hash])

    def sync(self) -> None:
        """Make the names of all that was written durable."""
        for folder in (self.loose, self.packs):
            if folder.is_dir():
                io.sync(folder)

    def faults(self, hashes: Iterable[str]) -> dict[str, str]:
        """What is wrong with the bytes of those of these partials that are not as they were written."""
        asked, found, sealed = list(hashes), {}, {}
        for hash_, place in zip(asked, self._located(asked, self.look()), strict=True):
            path = Path(place.file)
            if not path.is_file():
                found[hash_] = "is missing"
                continue
            if path not in sealed:
                sealed[path] = io.is_sealed(path)
            if not sealed[path]:
                found[hash_] = "is not what was written: its bytes have changed"
        return found

    def is_in_order(self, partials: Sequence[Partial]) -> bool:
        """Whether there is nothing to pack and to sweep now."""
        stock = self.look()
        return not (self._sweepable(stock) or self._packable(stock, partials))

    def sweep(self) -> None:
        """Delete what packs have stood in for long enough."""
        for path in self._sweepable(self.look()):
            with io.storage_errors(path):
                path.unlink(missing_ok=True)
            reach("pack.swept")

    def pack(self, partials: Sequence[Partial], sorted_by: str | None) -> None:
        """Gather those of these partials that lie loose into packs, with small packs that are there."""
        stock = self.look()
        for schema, loose in self._packable(stock, partials).items():
            gathered = packs.runs(loose, self.packing.pack_rows)
            for run in gathered[:-1]:
                self._write_pack(self._loaded(run), sorted_by)
            last = gathered[-1]
            small = {pack.path.name: pack for pack in stock.packs if pack.schema == schema}
            chosen = packs.joined(
                sum(partial.rows for partial in last),
                [(pack.rows, name) for name, pack in small.items()],
                self.packing.pack_rows,
            )
            whole = [small[name] for name in chosen if io.is_sealed(small[name].path)]
            made = self._loaded(last)
            for one in whole:
                made += self._kept(one, stock)
            self._write_pack(made, sorted_by, (one.path.name for one in whole))

    def remove(self, hashes: Iterable[str], sorted_by: str | None, above: float) -> list[str]:
        """Delete partials; returns those that went.

        above: a pack is written anew without them if more than this share of its partials goes.
        """
        stock, unwanted, gone = self.look(), set(hashes), set()
        for hash_ in unwanted:
            path = self.alone(hash_)
            if hash_ in stock.loose:
                with io.storage_errors(path):
                    path.unlink(missing_ok=True)
                gone.add(hash_)
        for pack in stock.packs:
            held = [hash_ for hash_ in pack.hashes if stock.packed[hash_].file == pack.file]
            dead = unwanted.intersection(held)
            if not dead:
                continue
            if len(dead) == len(held):
                with io.storage_errors(pack.path):
                    pack.path.unlink(missing_ok=True)
            elif len(dead) > above * len(held) and io.is_sealed(pack.path):
                kept = [one for one in self._kept(pack, stock) if one.partial.hash not in dead]
                self._write_pack(kept, sorted_by, [pack.path.name])
            else:
                gone -= dead
                continue
            gone |= dead
        return sorted(gone)

    def clean(self) -> None:
        """Delete what a killed writer left half-written."""
        for folder in (self.loose, self.packs):
            for entry in _entries(folder):
                if entry.name.startswith("."):
                    Path(entry.path).unlink(missing_ok=True)

    def _made(self, partials: Sequence[Partial], stock: Inventory) -> Sequence[FileScanTask]:
        """What is read for these partials: of a pack that was read whole before nothing is asked again."""
        asked = {partial.hash for partial in partials}
        if len(asked) < len(partials):  # one that counts twice is read twice
            return file_tasks.plan_files(partials, self._located([p.hash for p in partials], stock))
        whole: list[FileScanTask] = []
        for pack in stock.packs:
            task = self._whole.get(pack.file)
            if task is not None and asked.issuperset(pack.hashes):
                asked.difference_update(pack.hashes)
                whole.append(task)
        rest = [partial for partial in partials if partial.hash in asked] if asked else []
        made = file_tasks.plan_files(rest, self._located([p.hash for p in rest], stock))
        self._whole |= {task.file: task for task in made if task.packed and task.numbers is None}
        return (*whole, *made)

    def _located(self, hashes: Iterable[str], stock: Inventory) -> list[PartialLocation]:
        return [stock.packed.get(hash_) or self._loose_place(hash_, stock) for hash_ in hashes]

    def _loose_place(self, hash_: str, stock: Inventory) -> PartialLocation:
        path = self.alone(hash_)
        if stock.loose.get(hash_):
            raise is_link(path)
        return PartialLocation(str(path))

    def _found(self) -> list[Pack]:
        """All packs, by their sequence; one that is damaged is none: its partials are missing."""
        before, self._read = self._read, {}
        for entry in sorted(_entries(self.packs), key=lambda entry: entry.name):
            if packs.NAME.fullmatch(entry.name):
                path = no_link(Path(entry.path))
                with suppress(FileNotFoundError, IntegrityError):
                    state = state_of(path)
                    self._read[state] = before.get(state) or Pack.read(path)
        return list(self._read.values())

    def _count(
        self, found: tuple[Pack, ...]
    ) -> tuple[dict[str, PartialLocation], tuple[Pack, ...]]:
        """Where packed partials are, and the packs that they are in."""
        if self._counted[0] != found:
            replaced = {name for pack in found for name in pack.stands_for}
            packed: dict[str, PartialLocation] = {}
            for pack in found:
                if pack.path.name not in replaced:
                    packed.update(pack.places)
            used = {place.file for place in packed.values()}
            self._counted = found, packed, tuple(pack for pack in found if pack.file in used)
            self._whole = {}
        return self._counted[1:]

    def _write_alone(self, path: Path, partial: Partial, frame: pl.DataFrame) -> None:
        with io.storage_errors(path):
            self.loose.mkdir(exist_ok=True)
        no_link(path)
        described = json.dumps(partial_to_json(partial))
        io.write_sealed(path, frame, _ROW_GROUP, {_DESCRIPTION: described})
        if self._memory is not None and partial.rows <= self.packing.small_rows:
            self._memory[str(path)] = Kept(frame)
        reach("partial.written")

    def _write_pack(
        self, made: Sequence[PartialWrite], sorted_by: str | None, stands_for: Iterable[str] = ()
    ) -> None:
        if not made:
            return
        with io.storage_errors(self.packs):
            self.packs.mkdir(exist_ok=True)
            last = max((packs.sequence_of(entry.name) for entry in _entries(self.packs)), default=0)
            packs.write(self.packs, last + 1, made, sorted_by, stands_for)
            io.sync(self.packs)
        reach("pack.written")

    def _sweepable(self, stock: Inventory) -> list[Path]:
        """What packs have stood in for since long enough; the oldest first, or it would count again."""
        doubled = [hash_ for hash_ in stock.loose if hash_ in stock.packed]
        if not (doubled or stock.superseded):
            return []
        now = time.time()
        settled = [
            pack
            for pack in (*stock.superseded, *stock.packs)
            if now - pack.path.stat().st_mtime >= self.packing.grace_s
        ]
        held = {hash_ for pack in settled for hash_ in pack.hashes}
        replaced = {name for pack in settled for name in pack.stands_for}
        covering = {pack.file for pack in settled}
        return [
            *(self.alone(hash_) for hash_ in doubled if hash_ in held),
            *(
                pack.path
                for pack in stock.superseded
                if pack.path.name in replaced
                or all(stock.packed[h].file in covering for h in pack.hashes if h in stock.packed)
            ),
        ]

    def _packable(
        self, stock: Inventory, partials: Sequence[Partial]
    ) -> dict[Schema, list[Partial]]:
        groups: dict[Schema, dict[str, Partial]] = defaultdict(dict)
        for partial in partials if len(stock.loose) >= self.packing.at_least else ():
            if (
                partial.rows <= self.packing.small_rows
                and stock.loose.get(partial.hash) is False
                and partial.hash not in stock.packed
            ):
                groups[partial.schema][partial.hash] = partial
        return {
            schema: list(group.values())
            for schema, group in groups.items()
            if len(group) >= self.packing.at_least
        }

    def _loaded(self, partials: Iterable[Partial]) -> list[PartialWrite]:
        """Loose partials with their events; a damaged one is left where it is, for `faults` to find."""
        found = ((partial, self.alone(partial.hash)) for partial in partials)
        return [
            PartialWrite(partial, pl.read_parquet(path, glob=False))
            for partial, path in found
            if io.is_sealed(path)
        ]

    def _kept(self, pack: Pack, stock: Inventory) -> list[PartialWrite]:
        events = pack.frames()
        return [
            PartialWrite(pack.partials[hash_], events[hash_])
            for hash_ in pack.hashes
            if stock.packed[hash_].file == pack.file
        ]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as found:
        return list(found)
    return []
