"""Settings of Definitions that hold for all features, checked where they enter."""

from __future__ import annotations

from dataclasses import dataclass

from mlforge.build.result import HOLD_ABOVE, MAX_FILE_MEMORY
from mlforge.core.arguments import flag, number
from mlforge.core.values import Duration
from mlforge.engines import MEMORY_LIMIT
from mlforge.errors import DefinitionError
from mlforge.features.feature import check_engine

GONE_AFTER = Duration.parse("1h")
_LEAST_MEMORY = 64 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of Definitions that hold for all features.

    engine: for features that name none. hold_above: a share, 0 to 1. max_file_memory, memory_limit: bytes.
    gone_after: how long a feature that vanished stays online. partial: whether other definitions
    have features in the same store.
    Raises DefinitionError for a value of the wrong kind or out of bounds.
    """

    engine: str = "polars"
    hold_above: float = HOLD_ABOVE
    max_file_memory: int = MAX_FILE_MEMORY
    memory_limit: int = MEMORY_LIMIT
    follow_links: bool = False
    gone_after: Duration = GONE_AFTER
    partial: bool = False

    def __post_init__(self) -> None:
        check_engine(self.engine, "Definitions")
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
        flag(self.follow_links, "Definitions: follow_links")
        flag(self.partial, "Definitions: partial")
