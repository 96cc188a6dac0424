"""The log of served answers: those of a share of the entities, of services that say so, as drops of a source of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from mlforge.core.logs import get_logger
from mlforge.core.schema import INSTANT, Column, Schema
from mlforge.core.values import from_us
from mlforge.definitions.registry import Definitions
from mlforge.errors import MlforgeError
from mlforge.frames import polars_schema
from mlforge.frames.encoding import key_hash
from mlforge.retrieval.serving import OnlineAnswer
from mlforge.serve.incoming.gather import new_name
from mlforge.serve.incoming.writing import write_frame
from mlforge.serve.problems import Refused
from mlforge.serve.threads import LOOKS, in_thread
from mlforge.services.spec import SERVED, SERVED_AT
from mlforge.sources.damage import UNDECODABLE

VERSION, AS_OF = "@version", "@as_of"
"""The ends of the columns of a feature's version and of its `as_of`, behind its name."""
EVERY_S = 60.0
"""How long rows are gathered for a file."""
ROWS, MOST_HELD = 10_000, 100_000
"""After how many rows a file is written at once; how many wait at most where the disk takes none."""
_OF_HASH = 1 << 32
_NOT_LOGGED = "served answers are not logged"
_log = get_logger(__name__)
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Shape:
    """The service, the keys and the columns in order, which all rows of a file share."""

    service: str
    keys: tuple[str, ...]
    columns: Schema


@dataclass
class ServedLog:
    """Rows of answers that wait to be written. No answer waits for them, or fails where they cannot be."""

    definitions: Definitions
    _waiting: dict[_Shape, list[Row]] = field(default_factory=dict)
    _held: int = 0
    _writer: asyncio.Task[None] | None = None
    _hurry: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self) -> None:
        """Make the folders, so that features that read them find their source."""
        for name, service in self.definitions.services.items():
            if service.log:
                try:
                    self._folder(name).mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    _log.warning(_NOT_LOGGED, service=name, error=error)

    def takes_any(self, service: str, keys: Sequence[Mapping[str, Any]]) -> bool:
        """Whether an answer of a service to these entities is logged."""
        definition = self.definitions.services.get(service)
        if definition is None or not definition.log:
            return False
        return any(is_logged(key, definition.log) for key in keys)

    def take(self, answer: OnlineAnswer) -> None:
        """Keep what an answer says of the entities that are logged."""
        service = None if answer.service is None else answer.service.name
        definition = self.definitions.services.get(service or "")
        if definition is None or not definition.log:
            return
        keys = answer.key_rows
        chosen = [n for n, key in enumerate(keys) if is_logged(key, definition.log)]
        if not chosen or self._held + len(chosen) > MOST_HELD:
            return
        shape = _Shape(definition.name, tuple(key.name for key in answer.keys), _columns(answer))
        served = {SERVED_AT: answer.t, **dict(_versions(answer))}
        rows = [{**answer.rows[n], **keys[n], **served} for n in chosen]
        self._waiting.setdefault(shape, []).extend(rows)
        self._held += len(rows)
        self._write_later()

    async def end(self) -> None:
        """Write all that waits; what the disk does not take is lost."""
        self._hurry.set()
        if self._writer is not None and not self._writer.done():
            await self._writer
        await self._write_all()

    def _write_later(self) -> None:
        if self._writer is None or self._writer.done():
            self._hurry = asyncio.Event()
            self._writer = asyncio.create_task(self._in_a_while(self._hurry))
        if self._held >= ROWS:
            self._hurry.set()

    async def _in_a_while(self, hurry: asyncio.Event) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(hurry.wait(), EVERY_S)
        await self._write_all()

    async def _write_all(self) -> None:
        """Write all that waits, a file for each service and shape; what the disk does not take waits on."""
        waiting, self._waiting = self._waiting, {}
        for shape, rows in waiting.items():
            try:
                await in_thread(LOOKS, self._write, shape, rows)
            # Errors of values that anybody may have sent are among these.
            except (MlforgeError, *UNDECODABLE) as error:
                _log.warning(_NOT_LOGGED, service=shape.service, error=error)
                if isinstance(error, OSError) or _is_of_the_disk(error):
                    self._waiting.setdefault(shape, []).extend(rows)
                    continue
            self._held -= len(rows)

    def _write(self, shape: _Shape, rows: Sequence[Row]) -> None:
        frame = pl.DataFrame(
            [_series(column, [row[column.name] for row in rows]) for column in shape.columns]
        ).drop_nulls(list(shape.keys))  # an entity that no row can be of is none of a source
        if frame.height:
            folder = self._folder(shape.service)
            folder.mkdir(parents=True, exist_ok=True)
            write_frame(folder / f"{new_name()}.parquet", frame)

    def _folder(self, service: str) -> Path:
        return self.definitions.root / SERVED / service


def _is_of_the_disk(error: Exception) -> bool:
    """Whether the rows may be written later, as the disk may take them then."""
    return isinstance(error, Refused) and error.problem.status == 503


def is_logged(key: Mapping[str, Any], share: float) -> bool:
    """Whether an entity is among the logged ones: the same at each request and on each machine."""
    try:
        return int(key_hash(key)[:8], 16) < share * _OF_HASH
    except MlforgeError:  # a key that no row could have
        return False


def _columns(answer: OnlineAnswer) -> Schema:
    """The answer's columns, then the instant, then each feature's version and `as_of`."""
    names = dict.fromkeys(part.reference.name for part in answer.parts)
    further = [
        column
        for name in names
        for column in (Column(name + VERSION, "String"), Column(name + AS_OF, INSTANT))
    ]
    return (*answer.columns, Column(SERVED_AT, INSTANT), *further)


def _versions(answer: OnlineAnswer) -> Iterator[tuple[str, Any]]:
    for part in answer.parts:
        yield part.reference.name + VERSION, part.served.version
        yield part.reference.name + AS_OF, part.served.as_of


def _series(column: Column, values: Sequence[Any]) -> pl.Series:
    """A column in its dtype; a value that the dtype does not hold is null."""
    if column.dtype == INSTANT:
        values = [from_us(value) if isinstance(value, int) else value for value in values]
    return pl.Series(column.name, values, polars_schema.to_polars(column.dtype), strict=False)
