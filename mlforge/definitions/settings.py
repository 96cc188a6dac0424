"""Settings of Definitions that hold for all features, checked where they enter."""

from __future__ import annotations

from dataclasses import dataclass

from mlforge.build.result import Options
from mlforge.core.arguments import choice, flag, number
from mlforge.core.values import Duration
from mlforge.errors import DefinitionError
from mlforge.features.feature import check_engine_or_spark
from mlforge.online.prefetch import ROOM, VALUE_BYTES

DISTRIBUTE_ABOVE = 50_000_000
"""The number of events above which a full build is shared, by default."""
LOCAL = "local"
GONE_AFTER = Duration.parse("1h")
RESIDENT = ROOM * VALUE_BYTES
PUBLISH_EVERY_AT_MOST = Duration.parse("1h")
_LEAST_MEMORY = 64 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of Definitions that hold for all features.

    engine: for features that name none. hold_above: a share, 0 to 1. max_file_memory, memory_limit, resident_memory: bytes.
    gone_after: how long a feature that vanished stays online. partial: whether other definitions
    have features in the same store. runner: who takes part in a full build of more than distribute_above events, "local"
    for the process that builds alone; fallback: "local" where that builds if nobody else is there. publish_every: how long workers
    leave a feature alone of which they have published a version; None for not at all.
    Raises DefinitionError for a value of the wrong kind or out of bounds.
    """

    engine: str
    hold_above: float
    max_file_memory: int
    memory_limit: int
    follow_links: bool
    gone_after: Duration
    partial: bool
    runner: str
    distribute_above: int
    fallback: str | None
    resident_memory: int
    publish_every: Duration | None

    def __post_init__(self) -> None:
        check_engine_or_spark(self.engine, "Definitions")
        share, works = "Definitions: hold_above", "give a share, a number from 0 to 1"
        if not 0 <= number(self.hold_above, share, works) <= 1:
            raise DefinitionError(f"{share}={self.hold_above!r} is not a share; {works}")
        size, works = "Definitions: max_file_memory", "give a number of bytes"
        if number(self.max_file_memory, size, works, whole=True) < 1:
            raise DefinitionError(f"{size}={self.max_file_memory!r} lets no file in; {works}")
        size, works = "Definitions: memory_limit", f"give bytes, at least {_LEAST_MEMORY:,}"
        if number(self.memory_limit, size, works, whole=True) < _LEAST_MEMORY:
            raise DefinitionError(
                f"{size}={self.memory_limit!r} is too little to work with; {works}"
            )
        size, works = "Definitions: resident_memory", "give a number of bytes, 0 for none"
        if number(self.resident_memory, size, works, whole=True) < 0:
            raise DefinitionError(f"{size}={self.resident_memory!r} is below 0; {works}")
        flag(self.follow_links, "Definitions: follow_links")
        flag(self.partial, "Definitions: partial")
        events, works = "Definitions: distribute_above", "give a number of events"
        if number(self.distribute_above, events, works, whole=True) < 0:
            raise DefinitionError(f"{events}={self.distribute_above!r} is below 0; {works}")
        if self.fallback is not None:
            choice(self.fallback, [LOCAL], "Definitions: fallback")
        every, most = self.publish_every, PUBLISH_EVERY_AT_MOST
        if every is not None and every.us > most.us:
            raise DefinitionError(
                f"Definitions: publish_every={every.text!r} is longer than {most}; have a scheduler call `mlforge build` instead"
            )

    @property
    def options(self) -> Options:
        """The ways in which a refresh by these settings goes."""
        return Options(hold_above=self.hold_above, max_file_memory=self.max_file_memory)
