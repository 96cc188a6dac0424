"""Packs: many small partials in one parquet file, sorted by time, so that ten thousand cost like a few.

A pack is never changed, and its footer describes the partials that it holds.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import repeat
from pathlib import Path

import polars as pl

from mlforge.core.collection import collection_paused
from mlforge.core.manifest import Partial
from mlforge.core.named_tuples import each_of_columns
from mlforge.core.schema import Schema
from mlforge.errors import IntegrityError
from mlforge.sources.damage import MISREAD
from mlforge.store.file_tasks import (
    NUMBER,
    FileScanTask,
    Kept,
    PartialLocation,
    PartialWrite,
    Told,
    read_together,
    whole_pack,
)
from mlforge.store.local.paths import State, state_of
from mlforge.store.local.sealed_file import write_sealed
from mlforge.store.partial_json import partials_from_json, partials_to_json

NAME = re.compile(r"(\d{8})-[0-9a-f]{8}\.parquet")
_HASHES, _PARTIALS = "mlforge.pack.hashes", "mlforge.pack.partials"
_REPLACES = "mlforge.pack.stands_for"  # of an earlier release, which reads no pack without it
_ROW_GROUP = 32_768
_LONG_ROWS = 8_192  # of a partial, on average: rows of shorter ones are put in one piece


@dataclass(frozen=True, slots=True)
class Packing:
    """When partials are packed. Small in tests, so that seams are crossed.

    small_rows: a partial of more rows gets a file of its own. at_least: the least number of small partials in a pack.
    pack_rows: the greatest number of rows in a pack, roughly. grace_s: for how many seconds files whose partials are
    in a newer pack are kept for readers that have looked them up.
    """

    small_rows: int = 65_536
    at_least: int = 16
    pack_rows: int = 1_000_000
    grace_s: float = 600


@dataclass(frozen=True)
class Pack:
    """A pack, as its footer describes it."""

    state: State
    path: Path
    hashes: tuple[str, ...]
    described: str

    @classmethod
    def read(cls, path: Path) -> Pack:
        """The pack at a path. Raises FileNotFoundError if there is none, and IntegrityError if it is damaged."""
        state = state_of(path)
        try:
            metadata = pl.read_parquet_metadata(path)
            hashes, described = tuple(metadata[_HASHES].split()), metadata[_PARTIALS]
        except MISREAD as error:
            raise IntegrityError(
                f"{path} is no pack of partials; restore it from a backup"
            ) from error
        return cls(state, path, hashes, described)

    @property
    def written_at(self) -> float:
        """When its file was written, in seconds since 1970."""
        return self.state[1] / 1e9

    @property
    def file(self) -> str:
        """The name by which it is scanned."""
        return str(self.path)

    @cached_property
    def places(self) -> dict[str, PartialLocation]:
        """Where each of its partials is."""
        file, among = self.file, len(self.hashes)
        with collection_paused():
            places = each_of_columns(
                PartialLocation, repeat(file, among), range(among), repeat(among, among)
            )
            return dict(zip(self.hashes, places, strict=True))

    @cached_property
    def partials(self) -> dict[str, Partial]:
        """Its partials' descriptions."""
        with collection_paused():
            partials = partials_from_json(json.loads(self.described))
        return {partial.hash: partial for partial in partials}

    def tell(self, known: Mapping[str, Partial]) -> None:
        """Take its partials' descriptions from those at hand, by hash, unless its own have been read: that takes longer."""
        if "partials" not in self.__dict__:
            self.__dict__["partials"] = {hash_: known[hash_] for hash_ in self.hashes}

    @cached_property
    def rows(self) -> int:
        """How many events it holds."""
        return sum(partial.rows for partial in self.partials.values())

    @property
    def schema(self) -> Schema:
        """The schema that its partials share."""
        return self.partials[self.hashes[0]].schema

    @cached_property
    def task(self) -> FileScanTask:
        """The scan task that reads the whole pack."""
        return whole_pack(self.file, [self.partials[hash_] for hash_ in self.hashes])

    def frames(self) -> dict[str, pl.DataFrame]:
        """Its partials' events."""
        return read_together(self.places)


@dataclass(frozen=True, slots=True)
class Run:
    """Partials of one schema for one pack, sorted by the time column."""

    writes: Sequence[PartialWrite]
    sorted_by: str | None


def write(folder: Path, sequence: int, run: Run, told: Told | None = None) -> Path:
    """Write a run as a pack; the caller syncs the folder. Packs of a higher sequence come later in order."""
    ordered = sorted(run.writes, key=lambda write: (_start(write.partial), write.partial.hash))
    rows = _joined([frame for _, frame in ordered])
    if run.sorted_by in rows.columns and not rows[run.sorted_by].is_sorted():
        rows = rows.sort(run.sorted_by, NUMBER)
    path = folder / new_name(sequence)
    if told is not None:
        task = whole_pack(str(path), [partial for partial, _ in ordered])
        told(replace(task, kept=Kept(rows)))
    write_sealed(
        path,
        rows,
        _ROW_GROUP,
        {
            _HASHES: " ".join(partial.hash for partial, _ in ordered),
            _PARTIALS: json.dumps(partials_to_json([partial for partial, _ in ordered])),
            _REPLACES: "",
        },
    )
    return path


def _joined(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The rows of frames with the number of the frame that each is of; in one piece only where frames are short."""
    heights = [frame.height for frame in frames]
    rows = pl.concat(frames)
    if rows.height < _LONG_ROWS * len(frames):
        return rows.rechunk().hstack([_numbers(heights)])
    first = pl.Series(NUMBER, range(len(frames)), pl.UInt32)
    each = [first.new_from_index(number, height) for number, height in enumerate(heights)]
    return rows.hstack([pl.concat(each)])


def _numbers(heights: Sequence[int]) -> pl.Series:
    """The number of each run of so many rows, once for each of its rows."""
    numbers = pl.Series(NUMBER, range(len(heights)), pl.UInt32)
    runs = pl.DataFrame([numbers, pl.Series("rows", heights, pl.UInt32)]).filter(pl.col("rows") > 0)
    begins = runs["rows"].cum_sum() - runs["rows"]
    steps = runs[NUMBER] - runs[NUMBER].shift(fill_value=0)
    none = pl.Series(NUMBER, [0], pl.UInt32).new_from_index(0, sum(heights))
    return none.scatter(begins, steps).cum_sum()


def new_name(sequence: int) -> str:
    """The name of a pack to be written."""
    return f"{sequence:08d}-{uuid.uuid4().hex[:8]}.parquet"


def sequence_of(name: str) -> int:
    """The number in a pack's name."""
    match = NAME.fullmatch(name)
    return int(match[1]) if match else 0


def runs(partials: Iterable[Partial], most: int) -> list[list[Partial]]:
    """Partials in the order of time, cut into runs of at most `most` rows; a rest of at most half as many joins the run before it."""
    cut: list[list[Partial]] = []
    rows = 0
    for partial in sorted(partials, key=lambda each: (_start(each), each.hash)):
        if not cut or rows + partial.rows > most:
            cut.append([])
            rows = 0
        cut[-1].append(partial)
        rows += partial.rows
    if len(cut) > 1 and rows <= most // 2:
        cut[-2:] = [cut[-2] + cut[-1]]
    return cut


def choose_for_merge(loose: int, packs: Collection[tuple[int, str]], most: int) -> list[str]:
    """Names of the packs to write anew with so many loose rows; each pack comes as its rows and name.

    The smallest first, each at most twice what is written anyway: the sizes of those left grow
    geometrically, so many drops leave few packs, and a row is rewritten a logarithmic number of times.
    """
    chosen: list[str] = []
    for rows, name in sorted(packs):
        if rows > 2 * loose or rows + loose > most:
            break
        chosen.append(name)
        loose += rows
    return chosen


def _start(partial: Partial) -> int:
    return partial.times.start if partial.times else 0
