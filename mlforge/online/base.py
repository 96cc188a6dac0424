"""The contract of an online store, and what every backend has in common.

The base class owns the encoding and the chunks; a backend supplies the abstract methods. A push is
`begin`, then any of `put`, `remove` and `remove_rows`, then `finish`. Each of these raises StalePush
once a newer target has begun, and, but for `begin`, also when the target's own beginning was lost with
the server's data: so neither a slow worker nor a flushed server leaves books that promise too much.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import polars as pl

from mlforge.core.schema import Schema
from mlforge.core.values import to_iso
from mlforge.errors import OnlineError
from mlforge.frames.encoding import Json, json_row, json_rows, key_hash, key_hashes

Row: TypeAlias = dict[str, Any]
Entity: TypeAlias = Mapping[str, object]

_ENCODED_AT_ONCE = 2_000
_CHUNK = 250  # blocks the server for about a millisecond
_NEVER = -(2**63)
_QUARTER_US = 250_000  # of a second of TTL


@dataclass(frozen=True, slots=True)
class Target:
    """What a push brings the online store to; `as_of` is None for an untimed feature.

    content: the version's `rows_hash`. A store that was deleted and made anew comes to the same version
        and generation with other rows.
    """

    version: str
    generation: int
    as_of: int | None
    content: str = ""

    @property
    def fence(self) -> tuple[int, int]:
        """The order of targets: the durable store's generation, then the instant."""
        return self.generation, _NEVER if self.as_of is None else self.as_of

    def __str__(self) -> str:
        at = f" as of {to_iso(self.as_of)}" if self.as_of is not None else ""
        return f"{self.version}{at} (generation {self.generation})"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Which run of which server holds the rows, and how many keys it has evicted until then."""

    server: str
    evicted: int

    def excluded(self, now: Evidence) -> bool:
        """Whether no key was evicted from this until now, as far as the server's own count tells.

        A server that was started anew counts anew.
        """
        if self == DOUBT:
            return False
        return now.evicted == (self.evicted if now.server == self.server else 0)


DOUBT = Evidence("", -1)
"""Rows are known to be missing."""


@dataclass(frozen=True, slots=True)
class OnlineBooks:
    """What the store promises about a feature.

    `target` is the last push that finished, and None means that nothing is promised: the other fields
    are empty then. `pending` are the targets that began since. Rows live from `renewed_at` for one TTL,
    the books for half of one. `losses` are those of when all rows were last known to be there; None
    where the server does not tell.
    """

    target: Target | None
    pending: tuple[Target, ...] = ()
    rows: int = 0
    pushed_at: int = 0
    renewed_at: int = 0
    keys: Schema = ()
    columns: Schema = ()
    empty: Mapping[str, Json] = field(default_factory=dict)
    losses: Evidence | None = None

    def renewal_due(self, ttl: int | None, now: int) -> bool:
        """Whether a quarter of the rows' TTL has passed: before half of it even if a turn is missed."""
        return ttl is not None and now - self.renewed_at >= ttl * _QUARTER_US


@dataclass(frozen=True, slots=True)
class Rows:
    """Encoded rows: the hashes of their entities, and their JSON texts in the same order, where they matter."""

    hashes: Sequence[str]
    texts: Sequence[str] = ()


class OnlineStore(ABC):
    """Rows by feature and entity, each a JSON object, and the books of each feature.

    `ttl` is the life of a row in seconds since it was last written or renewed; None is for ever.
    """

    ttl: int | None = None

    # Single rows and small batches: no fence, no books.

    def write(self, feature_name: str, entity_keys: Entity, values: Mapping[str, object]) -> None:
        """Write one entity's row; a push replaces it."""
        self._put(feature_name, None, [Rows([key_hash(entity_keys)], [json_row(values)])])

    def write_batch(
        self,
        feature_name: str,
        records: Sequence[Mapping[str, object]],
        entity_key_columns: Sequence[str],
    ) -> None:
        """Write a row per record; what is not an entity key is a value."""
        keys = set(entity_key_columns)
        hashes = [key_hash({key: record[key] for key in keys}) for record in records]
        texts = [
            json_row({name: record[name] for name in record if name not in keys})
            for record in records
        ]
        self._put(feature_name, None, _chunks(hashes, texts))

    def read(self, feature_name: str, entity_keys: Entity) -> Row | None:
        """The entity's row, or None where there is no such key."""
        [row] = _parsed(feature_name, self._texts(feature_name, [key_hash(entity_keys)]))
        return row

    def read_batch(self, feature_name: str, entity_keys: Sequence[Entity]) -> list[Row | None]:
        """The entities' rows in the order asked."""
        return _parsed(feature_name, self._texts(feature_name, list(map(key_hash, entity_keys))))

    def delete(self, feature_name: str, entity_keys: Entity) -> bool:
        """Delete the entity's row; whether there was one."""
        return self._remove(feature_name, None, [[key_hash(entity_keys)]]) > 0

    def exists(self, feature_name: str, entity_keys: Entity) -> bool:
        """Whether the entity has a row."""
        return self.read(feature_name, entity_keys) is not None

    def fetch(
        self, requests: Sequence[tuple[str, Sequence[Entity]]]
    ) -> list[tuple[OnlineBooks | None, list[Row | None]]]:
        """The books and rows of several features at one instant, in one round trip, in the order asked."""
        hashed = [(feature, list(map(key_hash, entities))) for feature, entities in requests]
        return self.fetch_hashed(hashed)

    def fetch_hashed(
        self, requests: Sequence[tuple[str, Sequence[str]]]
    ) -> list[tuple[OnlineBooks | None, list[Row | None]]]:
        """As `fetch`, of entities whose hashes are known."""
        answers = self._fetch(requests)
        for (feature, _), (books, _) in zip(requests, answers, strict=True):
            if books is not None:
                self._seen[feature] = books
        return [
            (books, _parsed(feature, texts))
            for (feature, _), (books, texts) in zip(requests, answers, strict=True)
        ]

    def last_seen(self, features: Iterable[str]) -> dict[str, OnlineBooks]:
        """The books of those features that were fetched before, as they were then; nothing is asked."""
        return {name: self._seen[name] for name in features if name in self._seen}

    @cached_property
    def _seen(self) -> dict[str, OnlineBooks]:
        return {}

    # A push.

    @abstractmethod
    def begin(self, feature: str, target: Target) -> OnlineBooks:
        """Raise the fence to the target and note it as pending, atomically, before any row is written.

        Returns the books as they are from now on: rows may be those of their target or of any that is
        pending. The same target may begin again.
        """

    def put(
        self,
        feature: str,
        target: Target,
        frame: pl.DataFrame,
        keys: Sequence[str],
        unwritten: set[bytes] | None = None,
    ) -> int:
        """Write a row per row of the frame, which holds the keys and the values; how many.

        unwritten: what `found` told; these rows are taken from it.
        """
        return self._put(feature, target, _noted(_encoded(frame, keys), unwritten))

    def remove(self, feature: str, target: Target, frame: pl.DataFrame, keys: Sequence[str]) -> int:
        """Delete the rows of these entities; how many there were."""
        return self._remove(feature, target, _slices(key_hashes(frame, keys).to_list()))

    def found(self, feature: str) -> set[bytes]:
        """The digests, which hashes spell out, of the rows that are there.

        Asked after a push began, none but those of this push can come to them.
        """
        return {bytes.fromhex(row) for chunk in self._scan(feature) for row in chunk}

    def remove_rows(self, feature: str, target: Target, digests: Iterable[bytes]) -> int:
        """Delete the rows of these digests; how many there were."""
        return self._remove(feature, target, _slices([digest.hex() for digest in digests]))

    def others(self, feature: str, hashes: Iterable[str]) -> int:
        """How many rows there are besides those of these hashes."""
        return len(self.found(feature).difference(map(bytes.fromhex, hashes)))

    @abstractmethod
    def finish(
        self, feature: str, target: Target, books: OnlineBooks, server: str | None = None
    ) -> None:
        """Write the books with the target as done and none pending, atomically.

        server: the run that every row of the push was written to. OnlineUnavailable if another answers
        now: it may lack the last rows, as after a failover.

        Say in `books.renewed_at` when the oldest live row was written or renewed: with a TTL the books
        are gone half of one after that, whenever this is called, so that they never outlive a row.
        """

    @abstractmethod
    def renew(self, feature: str, target: Target) -> int:
        """Give every row and the books their full life again; how many rows live.

        Fewer than the books say means that some were lost.
        """

    def losses(self) -> Evidence | None:
        """What the server says of keys that it dropped on its own; None if it does not tell."""
        return None

    @abstractmethod
    def doubt(self, feature: str, books: OnlineBooks) -> None:
        """Note in the books that rows are missing: no missing row passes for empty windows from now on."""

    def drop(self, feature: str) -> int:
        """Delete the feature, its books first; how many rows there were."""
        self.forget(feature)
        dropped = self._remove(feature, None, self._scan(feature))
        self._strike(feature)
        return dropped

    # What there is.

    @abstractmethod
    def ping(self) -> bool:
        """True if the server answers; OnlineUnavailable if not."""

    @abstractmethod
    def books(self, feature: str) -> OnlineBooks | None:
        """The feature's books; None if it was never pushed, or not renewed in time."""

    @abstractmethod
    def features(self) -> list[str]:
        """The features that were pushed here and not dropped since, by name."""

    @abstractmethod
    def forget(self, feature: str) -> None:
        """Delete the feature's books and fence, e.g. when the durable store was made anew.

        Nothing is promised until the next push.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of connections; the next call makes new ones."""

    # What a backend supplies besides. A target of None is not fenced.

    @abstractmethod
    def _put(self, feature: str, target: Target | None, chunks: Iterable[Rows]) -> int: ...

    @abstractmethod
    def _remove(
        self, feature: str, target: Target | None, chunks: Iterable[Sequence[str]]
    ) -> int: ...

    @abstractmethod
    def _scan(self, feature: str) -> Iterator[list[str]]:
        """The hashes of all rows in chunks; each row at least once."""

    @abstractmethod
    def _texts(self, feature: str, hashes: Sequence[str]) -> list[str | None]:
        """The rows' JSON in the order asked, None where there is none."""

    @abstractmethod
    def _fetch(
        self, requests: Sequence[tuple[str, Sequence[str]]]
    ) -> list[tuple[OnlineBooks | None, list[str | None]]]: ...

    @abstractmethod
    def _strike(self, feature: str) -> None:
        """Take the feature off the list of features."""


def _encoded(frame: pl.DataFrame, keys: Sequence[str]) -> Iterator[Rows]:
    """The frame in chunks, encoded as they are asked for: the server works meanwhile."""
    values = [name for name in frame.columns if name not in keys]
    for block in frame.iter_slices(_ENCODED_AT_ONCE):
        yield from _chunks(key_hashes(block, keys).to_list(), json_rows(block, values).to_list())


def _noted(chunks: Iterator[Rows], unwritten: set[bytes] | None) -> Iterator[Rows]:
    for rows in chunks:
        if unwritten:
            unwritten.difference_update(map(bytes.fromhex, rows.hashes))
        yield rows


def _chunks(hashes: list[str], texts: list[str]) -> Iterator[Rows]:
    return map(Rows, _slices(hashes), _slices(texts))


def _slices(items: list[str]) -> Iterator[list[str]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))


def _parsed(feature: str, texts: Sequence[str | None]) -> list[Row | None]:
    """The texts parsed as one array, which takes a third of the time of one after the other."""
    try:
        rows: list[Row | None] = json.loads(f"[{','.join([text or 'null' for text in texts])}]")
    except ValueError:
        rows = []
    if len(rows) == len(texts):
        return rows
    return [None if text is None else _row(feature, text) for text in texts]


def _row(feature: str, text: str) -> Row:
    try:
        row: Row = json.loads(text)
    except ValueError as error:
        raise OnlineError(f"{feature}: a row is not JSON ({error}); push it again") from error
    return row
