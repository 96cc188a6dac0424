"""The plan of a training set that tasks make: all that they share, in one document in the set's own scratch folder.

It follows from the spine, the request and `part_rows` alone, and cuts the spine into the slices that one process joins, so that values
are the same to the last bit.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from mlforge.core.values import TimeRange
from mlforge.errors import IntegrityError, TaskRefused
from mlforge.retrieval.labels import LabelUse
from mlforge.retrieval.reading import FeatureUse, Reading
from mlforge.retrieval.spine import spine_instants
from mlforge.services.description import service_of
from mlforge.services.service import Service
from mlforge.store import Store
from mlforge.training_sets.document import SetDocument
from mlforge.training_sets.set_files import SetFiles
from mlforge.training_sets.slices import Slices, TimeHistogram
from mlforge.training_sets.spines import FileSpine
from mlforge.training_sets.used_features import UsedFeature

PLAN = "plan.json"


@dataclass(frozen=True)
class SpineFile:
    """A file of a spine: the number of its first row in the spine, and how many it has.

    times: those of its rows, None where none has one. nulls: whether a row has none. seen: how many rows of a crowded stretch earlier files have.
    """

    path: str
    first: int
    rows: int
    times: TimeRange | None
    nulls: bool
    seen: tuple[tuple[int | None, int], ...]

    def may_have(self, times: TimeRange | None, nulls: bool) -> bool:
        """Whether it may have a row within a range of time, or without a time."""
        within = times is not None and self.times is not None and self.times.overlaps(times)
        return within or (nulls and self.nulls)

    def to_json(self) -> list[Any]:
        """The fields as JSON has them."""
        times = None if self.times is None else [self.times.start, self.times.end]
        return [self.path, self.first, self.rows, times, self.nulls, self.seen]

    @classmethod
    def from_json(cls, fields: list[Any], files: SetFiles) -> SpineFile:
        """Read what `to_json` wrote; files: find the file on this machine."""
        shared, first, rows, times, nulls, seen = fields
        known = None if times is None else TimeRange(*times)
        return cls(
            str(files.found(shared)),
            first,
            rows,
            known,
            nulls,
            tuple((start, count) for start, count in seen),
        )


@dataclass(frozen=True)
class SetPlan:
    """The request as the set's document has it, the spine's files, and the slices by time; none where no feature has a time.

    at_once: the most slices, and parts, of a task.
    """

    document: SetDocument
    part_rows: int
    at_once: int
    needed: tuple[str, ...]
    time: str | None
    files: tuple[SpineFile, ...]
    slices: Slices | None

    @property
    def rows(self) -> int:
        """The number of the spine's rows."""
        return sum(file.rows for file in self.files)

    @property
    def parts(self) -> int:
        """The number of parts."""
        return -(-self.rows // self.part_rows)

    @property
    def slice_count(self) -> int:
        """The number of slices that are joined."""
        return self.parts if self.slices is None else self.slices.count

    def answers(self, task: int) -> str:
        """The folder of the joined values of the parts that a task writes, which begins with the part of that number."""
        return f"answers-{task:07d}"

    @cached_property
    def head(self) -> pl.DataFrame:
        """A frame without rows that has the spine's columns."""
        return FileSpine([Path(file.path) for file in self.files[:1]]).head

    def reading(self, store: Store) -> Reading:
        """The versions that the set is made of. Raises TaskRefused for another store, StoreError for a version that is gone."""
        identity = store.identity()
        if identity is None or identity.id != self.document.store:
            raise TaskRefused(
                f"the training set is made from the store {self.document.store}, and this process has {store!r}; "
                "give all machines the same store"
            )
        uses = tuple(_use(used, store) for used in self.document.features)
        labels = tuple(
            LabelUse.checked(used.name, used.label, _use(used.feature, store).manifest)
            for used in self.document.labels
        )
        described = self.document.service
        specs = {use.manifest.name: use.manifest.spec for use in uses}
        service = None if described is None else service_of(Service, described, specs)
        return Reading(store, uses, service, labels)

    def to_text(self) -> str:
        """The plan as text."""
        slices = self.slices
        return json.dumps(
            {
                "document": self.document.to_text(),
                "part_rows": self.part_rows,
                "at_once": self.at_once,
                "needed": self.needed,
                "time": self.time,
                "files": [file.to_json() for file in self.files],
                "slices": None if slices is None else slices.to_json(),
            }
        )

    @classmethod
    def of(cls, files: SetFiles, hash_: str) -> SetPlan:
        """The plan of a set that is being made, with the spine's files on this machine; TaskRefused where this process does not see it."""
        text, where = files.text(PLAN), f"{PLAN} of {files.address}"
        if hash_of_text(text) != hash_:
            raise IntegrityError(f"{where} is not the plan that the task names")
        known: Mapping[str, Any] = json.loads(text)
        return cls(
            SetDocument.from_text(known["document"], where),
            known["part_rows"],
            known["at_once"],
            tuple(known["needed"]),
            known["time"],
            tuple(SpineFile.from_json(fields, files) for fields in known["files"]),
            None if known["slices"] is None else Slices.from_json(known["slices"]),
        )


def hash_of_text(text: str) -> str:
    """SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def _use(used: UsedFeature, store: Store) -> FeatureUse:
    """A feature as the set has it."""
    manifest = store.manifest(used.reference.name, used.version)
    if manifest.content_hash != used.content_hash:
        raise IntegrityError(
            f"{manifest.name} {used.version} is not the version that the set is made of"
        )
    return FeatureUse(used.reference, manifest, used.prefix, used.defaults)


def planned_files(
    spine: FileSpine, time: str | None, part_rows: int, files: SetFiles
) -> tuple[tuple[SpineFile, ...], Slices | None]:
    """The files of a spine and the slices of its rows by time; of its rows only the times are read.

    files: share those that were put aside. Raises RetrievalError for times that are none, and for a file that cannot be read.
    """
    looked = [_Looked.at(path, time, part_rows) for path in spine.files]
    histogram = TimeHistogram()
    for each in looked:
        histogram.merge(each.histogram)
    slices = None if time is None else histogram.slices(part_rows)
    return tuple(_numbered(looked, slices, files)), slices


def _numbered(looked: list[_Looked], slices: Slices | None, files: SetFiles) -> Iterator[SpineFile]:
    first, seen = 0, Counter[int | None]()
    for each in looked:
        yield SpineFile(
            files.shared(each.path), first, each.rows, each.times, each.nulls, tuple(seen.items())
        )
        first += each.rows
        if slices is not None and slices.crowded:
            seen += each.histogram.rows_at(slices.crowded, slices.width)


@dataclass(frozen=True)
class _Looked:
    """A file of a spine after a first look: its rows, their times, and how many lie in each stretch of time."""

    path: Path
    rows: int
    times: TimeRange | None
    nulls: bool
    histogram: TimeHistogram

    @classmethod
    def at(cls, path: Path, time: str | None, part_rows: int) -> _Looked:
        spine, histogram = FileSpine([path]), TimeHistogram()
        bounds: list[int] = []
        nulls = False
        for rows in () if time is None else spine.batches(part_rows, [time]):
            instants = spine_instants(rows[str(time)])
            histogram.add(instants)
            known = instants.to_physical().cast(pl.Int64).drop_nulls()
            nulls = nulls or len(known) < len(instants)
            if len(known):
                bounds += [int(str(known.min())), int(str(known.max()))]
        times = TimeRange(min(bounds), max(bounds)) if bounds else None
        return cls(path, spine.height, times, nulls, histogram)
