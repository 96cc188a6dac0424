"""The options of a refresh, and its result."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlforge.build.distribution import Distribution
from mlforge.build.intake_by_tasks.companions import Companion
from mlforge.build.intake_by_tasks.tasks import GROUP_BYTES, GroupFigures
from mlforge.build.rows import Layout
from mlforge.build.tasks import TaskFigures
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.keeper import ALONE, Keeper
from mlforge.core.manifest import Manifest
from mlforge.core.text import bump_word, duration, plural
from mlforge.engines.versions_diff import VersionsDiff
from mlforge.engines.views import Gathered
from mlforge.store import Quarantined

HOLD_ABOVE = 0.5
"""The share of files or rows that an unattended refresh may lose, by default."""
MAX_FILE_MEMORY = 4 << 30
"""Bytes that one file may take in memory, by default."""


@dataclass(frozen=True)
class Options:
    """The options of a refresh.

    attended: a person asked for it, so nothing is held back. version: publish under this number in any
    case. full: evaluate all rows, also unchanged ones. hold_above: the share of files or rows
    that an unattended refresh may lose before it is held. cost_share: the share of changed events
    above which a full rebuild is cheaper than an incremental one. max_file_memory: bytes that one file
    may take in memory; a larger one is set aside. careful: new files are decoded in processes of their own,
    so that not even one that ends its reader does harm. function_command: that of a process which runs the feature's
    function within bounds; empty where there is none. publish: False stops before publishing, and
    writes nothing to the store. distribution: who takes part in a full build; None for this process alone. keeper: the
    definitions that the feature is of. others: the features of the same definitions. on_gathered: where a push follows, called with the
    events that it needs, and mostly its rows, before the version is written.
    group_bytes: the most bytes of new files that a task of an intake reads. run: the id of a run that is full: its tasks take up no
    result of another run's. companions: called where many files are new, gives the features of the same source whose turn comes later. paths: the files of the
    source, as its listings name them, that alone can have changed since the last refresh; None for any. end_forgetting: ends what
    a killed forgetting has left of the feature; None where that stays.
    """

    attended: bool = True
    version: str | None = None
    full: bool = False
    hold_above: float = HOLD_ABOVE
    cost_share: float = 0.3
    max_file_memory: int = MAX_FILE_MEMORY
    careful: bool = False
    function_command: tuple[str, ...] = ()
    publish: bool = True
    layout: Layout = field(default_factory=Layout)
    distribution: Distribution | None = None
    keeper: Keeper = ALONE
    others: tuple[FeatureSpec, ...] = ()
    on_gathered: Callable[[Gathered], object] | None = None
    group_bytes: int = GROUP_BYTES
    run: str = ""
    companions: Callable[[], Sequence[Companion]] = tuple
    paths: frozenset[str] | None = None
    end_forgetting: Callable[[], object] | None = None

    @property
    def with_run_id(self) -> Options:
        """The same options, with an id of a run where they ask for everything anew and have none."""
        return replace(self, run=self.run or uuid.uuid4().hex) if self.full else self

    @property
    def sharing(self) -> Distribution | None:
        """How work of this run is shared; None for this process alone."""
        return self.distribution and replace(self.distribution, run=self.run)


@dataclass(frozen=True, repr=False)
class BuildResult:
    """A refresh's outcome for one feature.

    location: path or URL of the version's table. manifest: the version's. diff: the events that differ from
    those of the version served before, for the push that follows; None where nothing was published or they cannot
    be compared. steps: seconds by step: read (list and read files, apply the function), build (compare, compute the table),
    publish (write and sync, make the version visible). tasks: the ranges of time of a full build; empty
    for an incremental one, and where there is no timestamp. intake: the groups of new files, which many processes can read.
    has_looked: whether each file was looked at that was to be; not where one could not be read yet, as it was being written.
    """

    feature: str
    version: str | None = None
    bump: str | None = None
    reason: str = "unchanged"
    details: tuple[str, ...] = ()
    rows: int = 0
    location: str | None = None
    changed: bool = False
    mode: str = "none"
    mode_reason: str = ""
    rows_changed: int = 0
    entities: int = 0
    rows_recomputed: int = 0
    files_read: int = 0
    has_looked: bool = False
    quarantined: tuple[Quarantined, ...] = ()
    warnings: tuple[str, ...] = ()
    steps: Mapping[str, float] = field(default_factory=dict)
    engine: str = ""
    tasks: tuple[TaskFigures, ...] = field(default=(), compare=False)
    intake: tuple[GroupFigures, ...] = field(default=(), compare=False)
    planned: bool = False
    held: str | None = None
    rows_dropped: Mapping[str, int] = field(default_factory=dict)
    keys_written: int | None = None
    manifest: Manifest | None = field(default=None, compare=False)
    diff: VersionsDiff | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        """Its version and why that was made, and what needs somebody; its fields have the rest."""
        bump = bump_word(self.bump, self.reason)
        told = [" ".join(filter(None, [self.version or "no version", bump])), self.reason]
        told += [plural(self.rows, "row")]
        told += [f"{self.mode} in {duration(self.seconds)}"] if self.changed else []
        told += [f"{plural(len(self.quarantined), 'file')} set aside"] if self.quarantined else []
        told += ["held"] if self.held else []
        return f"BuildResult({self.feature!r}: {', '.join(told)})"

    @property
    def seconds(self) -> float:
        """How long the refresh took."""
        return sum(self.steps.values())

    @property
    def path(self) -> Path | None:
        """Where the version's table lies on a local disk: a file, or a folder of them; None where it does not."""
        return Path(self.location) if self.location and "://" not in self.location else None
