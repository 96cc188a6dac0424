"""The partials of one feature: loose, each in a file of its own, or in packs.

    _partials/<hash>.parquet
    _packs/<sequence>-<id>.parquet, as _packs/CURRENT names them

A partial that lies in a live pack is read from there, and its loose file is deleted after a while, once readers
that have looked it up are done.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import polars as pl

from mlforge.core.failpoints import reach
from mlforge.core.manifest import Manifest, Partial
from mlforge.core.schema import Schema
from mlforge.errors import StoreError
from mlforge.frames import polars_schema
from mlforge.sources.damage import MISREAD
from mlforge.store import file_tasks
from mlforge.store.file_tasks import FileScanTask, Kept, PartialLocation, PartialWrite
from mlforge.store.local import io, packs
from mlforge.store.local.inventory import Inventory
from mlforge.store.local.live_packs import LivePacks
from mlforge.store.local.loose_files import HASH, SUFFIX, LooseFiles
from mlforge.store.local.packs import Packing, Run
from mlforge.store.local.partial_file import partial_in, write_partial
from mlforge.store.local.paths import is_link, no_link
from mlforge.store.local.reading_plans import ReadingPlans
from mlforge.store.local.sealed_file import is_sealed
from mlforge.store.local.write_behind import WriteBehind
from mlforge.store.numbered import numbered_rows
from mlforge.store.resident import Resident, columns_of

_BeginWrite = Callable[[Callable[[], None], Mapping[str, Kept]], None]


class PartialStore:
    """Keeps the partials of a feature in its folder."""

    def __init__(self, folder: Path, packing: Packing) -> None:
        self.folder, self.packing = folder, packing
        self._folders = folder / "_partials", folder / "_packs"
        self.live = LivePacks(folder / "_packs")
        self._files = LooseFiles(folder / "_partials")
        self.plans = ReadingPlans()
        # Both None in a process that never called `keep`, as most; by file, what came after what is resident.
        self.resident: Resident | None = None
        self._memory: dict[str, Kept] | None = None
        self.is_shared = False
        self.behind = WriteBehind()

    def refuse_links(self) -> None:
        """Raise StoreError if its folders are not here but elsewhere."""
        for folder in self._folders:
            no_link(folder)

    @property
    def loose(self) -> Path:
        """The folder of loose partials; StoreError if it is a link."""
        return no_link(self.folder / "_partials")

    def alone(self, hash_: str) -> Path:
        """The path of a partial's own file, whether it exists or not."""
        if HASH.fullmatch(hash_) is None:
            raise StoreError(f"{self.folder.name}: {hash_!r} is not a partial's hash")
        return Path(f"{self.folder}/_partials/{hash_}{SUFFIX}")

    def look(self) -> Inventory:
        """List what is stored now."""
        self.behind.wait()
        return self._look()

    def _look(self) -> Inventory:
        """List what is stored now, but for files that are being written."""
        no_link(self._files.folder)
        return Inventory(self._files.look(), self.live.look())

    def hashes(self) -> Set[str]:
        """Hashes of all partials that are stored now."""
        inventory = self.look()
        _ = inventory.loose.all  # else each would be looked for when it is asked for
        return inventory.hashes

    def missing(self, partials: Sequence[Partial], inventory: Inventory) -> set[str]:
        """Hashes of those partials that an inventory has not; a pack of which they have all partials is not gone through."""
        others = self.plans.of(partials, inventory.packed).others
        return {partial.hash for partial in others if partial.hash not in inventory.hashes}

    def locate(self, hashes: Iterable[str]) -> list[PartialLocation]:
        """The location of each partial, where it is stored or would be written."""
        return self._located(hashes, self.look())

    def plan_files(self, partials: Sequence[Partial]) -> Sequence[FileScanTask]:
        """Scan tasks that together read these partials; a pack that is read whole is planned from its footer."""
        tasks = self._planned(partials, self._look())
        known = {**self.behind.kept, **(self._memory or {})}
        if not known:
            return tasks
        held = ((task, known.get(task.file)) for task in tasks)
        return [task if kept is None else replace(task, kept=kept) for task, kept in held]

    def keep(self, manifest: Manifest, since: int | None, others: Iterable[Resident] = ()) -> None:
        """Have a version's events from an instant on in memory, and nothing else; nothing at all for None.

        others: what is in memory already, kept of other features; it is not read again.
        """
        spec = manifest.spec
        if since is None or spec.timestamp is None:
            self._memory = self.resident = None
            return
        columns, resident = columns_of(manifest), self.resident
        shared = next((other for other in others if other.serves(manifest, since)), None)
        if shared is None and (resident is None or resident.is_worn(manifest, columns, since)):
            resident = self._gathered(manifest, columns, since)
        held = shared or resident
        assert held is not None
        if held is not self.resident:
            self.resident, self.is_shared, self._memory = held, shared is not None, {}
        newer = held.newer(manifest.partials)
        self._keep_beside(newer, [column.name for column in columns], spec.timestamp, since)

    def _gathered(self, manifest: Manifest, columns: Schema, since: int) -> Resident:
        """The events of a version from an instant on."""
        empty = Resident.of(manifest, columns, since)
        partials, inventory = empty.partials_since, self.look()
        tasks = self._planned(list(partials.values()), inventory)
        located = self._located([partial.hash for partial in partials.values()], inventory)
        places = dict(zip(partials, located, strict=True))
        return empty.with_rows(numbered_rows(tasks, places, columns, empty.time, since))

    def _keep_beside(
        self, partials: Sequence[Partial], columns: Collection[str], time: str, since: int
    ) -> None:
        """Cache these columns of some further partials' events, file by file, and of no others."""
        tasks = {task.file: task for task in self.plan_files(partials)}
        absent = [task for task in tasks.values() if not task.in_memory(columns, since)]
        frames = pl.collect_all(
            pl.scan_parquet(task.file, glob=False)
            .filter(pl.col(time) >= polars_schema.instant(since))
            .select(task.stored(columns))
            for task in absent
        )
        read = {task.file: Kept(rows, since) for task, rows in zip(absent, frames, strict=True)}
        self._memory = {file: task.kept for file, task in tasks.items() if task.kept} | read

    def find(self, hash_: str) -> Partial | None:
        """A stored partial's description, None if it is not stored or damaged."""
        inventory = self.look()
        if pack := inventory.packed.pack_of(hash_):
            return pack.partials.get(hash_)
        path = Path(self._loose_place(hash_, inventory).file)
        with suppress(*MISREAD):  # of a damaged one: the caller computes the partial again
            described = partial_in(path) if path.is_file() else None
            return described if described and described.hash == hash_ else None
        return None

    def write(self, writes: Sequence[PartialWrite], sorted_by: str | None) -> None:
        """Store partials: many small ones of a schema in packs, every other in a file of its own."""
        self._write(writes, sorted_by, lambda write, _: write())

    def begin_writing(self, writes: Sequence[PartialWrite], sorted_by: str | None) -> None:
        """As `write`, but that files of one partial are there once `behind` is settled."""
        self._write(writes, sorted_by, self.behind.begin)

    def _write(
        self, writes: Sequence[PartialWrite], sorted_by: str | None, begin: _BeginWrite
    ) -> None:
        """As `write`; begin: writes the file of one partial, now or behind the caller."""
        places = self.look().packed.places
        by_hash = {write.partial.hash: write for write in writes}
        groups: dict[Schema, list[Partial]] = defaultdict(list)
        for hash_, write in by_hash.items():
            if hash_ not in places and write.partial.rows > self.packing.small_rows:
                self._write_alone(self.alone(hash_), write, begin)
            else:
                groups[write.partial.schema].append(write.partial)
        together: list[list[Partial]] = []
        for group in groups.values():
            again = any(partial.hash in places for partial in group)
            if again or len(group) >= self.packing.at_least:
                together += packs.runs(group, self.packing.pack_rows)
            else:
                for partial in group:
                    self._write_alone(self.alone(partial.hash), by_hash[partial.hash], begin)
        if together:
            each = (Run([by_hash[p.hash] for p in run], sorted_by) for run in together)
            self.live.write(each)

    def hold(self, partial: Partial, rows: pl.DataFrame) -> None:
        """Have rows of a partial's own file in memory until what is being written is settled."""
        self.behind.kept[str(self.alone(partial.hash))] = Kept(rows)

    def files(self) -> list[Path]:
        """The files that partials are read from."""
        inventory = self.look()
        packed = [pack.path for pack in inventory.packed.packs]
        return [*map(self.alone, sorted(inventory.loose.all)), *packed]

    def adopt(self, files: Iterable[Path]) -> None:
        """Have the partials in files of another store of partials, too; its packs become live in one step."""
        taken, places = list[Path](), self.look().packed.places
        for file in files:
            partial = partial_in(file)
            if partial is None:
                taken.append(file)
                continue
            if partial.hash in places:  # what a live pack holds counts, so it takes a newer one
                self.write([PartialWrite(partial, pl.read_parquet(file, glob=False))], None)
                continue
            path = no_link(self.alone(partial.hash))
            with io.storage_errors(path):
                self.loose.mkdir(exist_ok=True)
            with io.replacing(path, folder=False) as temporary:
                io.link_or_copy(file, temporary)
            reach("partial.written")
        if taken:
            self.live.adopt(taken)

    def faults(self, hashes: Iterable[str]) -> dict[str, str]:
        """Faults of partials whose bytes are not as they were written."""
        named = list(hashes)
        faults: dict[str, str] = {}
        sealed: dict[str, bool] = {}
        for hash_, place in zip(named, self._located(named, self.look()), strict=True):
            path = Path(place.file)
            if not path.is_file():
                faults[hash_] = "is missing"
                continue
            if place.file not in sealed:
                sealed[place.file] = is_sealed(path)
            if not sealed[place.file]:
                faults[hash_] = "is not what was written: its bytes have changed"
        return faults

    def let_go(self, paths: Iterable[Path]) -> None:
        """Have none of these files' rows in memory."""
        self.resident = None
        for path in paths:
            if self._memory is not None:
                self._memory.pop(str(path), None)

    def recover(self) -> None:
        """Put right what a killed writer left: call with the lock held."""
        no_link(self._files.folder)
        for path in self._files.listed().hidden:
            path.unlink(missing_ok=True)
        self.live.recover()

    def _planned(self, partials: Sequence[Partial], inventory: Inventory) -> Sequence[FileScanTask]:
        plan = self.plans.of(partials, inventory.packed)
        places = self._located([partial.hash for partial in plan.others], inventory)
        # In the order of time, in which rows are cheapest to sort.
        tasks = (*plan.whole, *file_tasks.plan_files(plan.others, places))
        return sorted(tasks, key=lambda task: task.times.start if task.times else 0)

    def _located(self, hashes: Iterable[str], inventory: Inventory) -> list[PartialLocation]:
        places = inventory.packed.places
        return [places.get(hash_) or self._loose_place(hash_, inventory) for hash_ in hashes]

    def _loose_place(self, hash_: str, inventory: Inventory) -> PartialLocation:
        path = self.alone(hash_)
        if inventory.loose.link(hash_):
            raise is_link(path)
        return PartialLocation(str(path))

    def _write_alone(self, path: Path, write: PartialWrite, begin: _BeginWrite) -> None:
        with io.storage_errors(path):
            self.loose.mkdir(exist_ok=True)
        kept = {str(no_link(path)): Kept(write.events)}
        begin(lambda: write_partial(path, write), kept)
        if self._memory is not None and write.partial.rows <= self.packing.small_rows:
            self._memory |= kept
