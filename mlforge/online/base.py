"""The contract of an online store, and what every backend has in common.

The base class owns the encoding, the decoding and the chunks; a backend supplies the abstract methods. A
push is `begin`, then any of `put`, `remove` and `remove_rows`, then `finish`. Each of these raises StalePush
once a newer target has begun, and, but for `begin`, also when the target's own beginning was lost with
the server's data: so neither a slow worker nor a flushed server leaves books that promise too much.
"""

from __future__ import annotations

import asyncio
import copy
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Self

import polars as pl

from mlforge.core.arguments import listed, named, texts
from mlforge.core.signatures import named_methods
from mlforge.errors import OnlineError, OnlineUnavailable, RetrievalError
from mlforge.frames.encoding import json_row, key_hashes
from mlforge.frames.shared_results import ByIdentity, once
from mlforge.online.books import Claim, Evidence, OnlineBooks, Target
from mlforge.online.chunks import Rows, chunked, digests_of, encoded, noted, slices
from mlforge.online.reads import OnlineReads
from mlforge.online.requests import Entity, RowRequest, hash_of
from mlforge.store import Store


@named_methods
class OnlineStore(OnlineReads):
    """Rows by feature and entity, each a JSON object, and the books of each feature.

    ttl: the life of a row in seconds since it was last written or renewed; None is for ever.
    owner: the offline store, or the id of it, whose rows readers mean: those of another raise OwnedElsewhere.
        None takes whatever is there.
    """

    ttl: int | None = None
    layout: str = "json"
    """How this store writes rows; readers go by the books."""
    digest_bytes: int = 32
    """How many bytes of the hash of an entity tell rows apart."""
    counts_cheaply: bool = True
    """Whether rows are counted at a small part of the cost of reading them; else nobody counts them just to look."""

    def owned_by(self, store: Store) -> Self:
        """This store on the same connections, whose readers mean the rows of an offline store.

        An owner that was named before stays.
        """
        if self.owner is not None and not isinstance(self.owner, Store):
            return self
        other = copy.copy(self)
        other.owner = store
        for known in ("_seen", "_owner_until"):
            other.__dict__.pop(known, None)
        return other

    def described(self) -> str:
        """Text over all that decides where rows go, the same in every process, without secrets.

        By default the store's repr, or its class's name where that would hold an address.
        """
        kind = type(self)
        return (
            repr(self)
            if kind.__repr__ is not object.__repr__
            else f"{kind.__module__}.{kind.__qualname__}"
        )

    # Single rows and small batches: no fence, no books.

    def write(self, feature_name: str, entity_keys: Entity, values: Mapping[str, object]) -> None:
        """Write one entity's row; a push replaces it. Raises DefinitionError for what is no entity, or no values."""
        text = json_row(named(values, f"{feature_name}: values", 'write {"score": 0.5}'))
        self._put(feature_name, None, [Rows([hash_of(feature_name, entity_keys)], [text])])

    def write_batch(
        self,
        feature_name: str,
        records: Sequence[Mapping[str, object]],
        entity_key_columns: Sequence[str],
    ) -> None:
        """Write one row per record; all fields but the entity keys are values. Raises RetrievalError for a record without them."""
        works = 'write records=[{"user_id": 1, "score": 0.5}], entity_key_columns=["user_id"]'
        told = texts(entity_key_columns, f"{feature_name}: entity_key_columns", works)
        keys = tuple(dict.fromkeys(told))
        hashes, rows = [], []
        for record in listed(records, f"{feature_name}: records", works):
            fields = dict(named(record, f"{feature_name}: each of records", works))
            if lacks := [key for key in keys if key not in fields]:
                raise RetrievalError(
                    f"{feature_name}: a record lacks {', '.join(lacks)}, which entity_key_columns names; it has {', '.join(fields)}"
                )
            hashes.append(hash_of(feature_name, {key: fields.pop(key) for key in keys}))
            rows.append(json_row(fields))
        self._put(feature_name, None, chunked(hashes, rows))

    def delete(self, feature_name: str, entity_keys: Entity) -> bool:
        """Delete the entity's row; returns whether it had one."""
        return self._remove(feature_name, None, [[hash_of(feature_name, entity_keys)]]) > 0

    # A push.

    @abstractmethod
    def begin(self, feature: str, target: Target, claim: Claim | None = None) -> OnlineBooks:
        """Raise the fence to the target and note it as pending, atomically, before any row is written.

        Returns the new books: from now on a row may belong to their target or to any pending target. The same
        target may begin again. Raises StalePush if a newer target has begun, OwnedElsewhere where the rows belong
        to another store, unless the claim takes them over, and OnlineError where the books are damaged.
        """

    def put(
        self,
        feature: str,
        target: Target,
        frame: pl.DataFrame,
        keys: Sequence[str],
        unwritten: set[bytes] | None = None,
        encoded: Iterable[Rows] | None = None,
    ) -> int:
        """Write each row of the frame, which has the key and the value columns; returns the number of rows.

        unwritten: digests from `list_digests`; the digest of each written row is removed from it. encoded: what `encoded` gave for
            this frame, to save encoding it again.
        """
        rows = self._encoded(frame, keys) if encoded is None else iter(encoded)
        return self._put(feature, target, noted(rows, unwritten, self.digest_bytes))

    def encoded(self, frame: pl.DataFrame, keys: Sequence[str]) -> Sequence[Rows]:
        """The rows of a frame as `put` sends them. The server is not asked for anything."""
        return once(
            "encoded rows",
            lambda: (ByIdentity(self), tuple(keys)),
            lambda: [*map(self._ready, self._encoded(frame, keys))],
            frame,
        )

    def _encoded(self, frame: pl.DataFrame, keys: Sequence[str]) -> Iterator[Rows]:
        """The rows of a frame in chunks, as `_put` takes them; by default as JSON texts."""
        return encoded(frame, keys)

    def _ready(self, rows: Rows) -> Rows:
        """Encoded rows with what can be made of them before they are sent; by default as they are."""
        return rows

    def remove(self, feature: str, target: Target, frame: pl.DataFrame, keys: Sequence[str]) -> int:
        """Delete the rows of the entities in the frame; returns how many there were."""
        return self._remove(feature, target, slices(key_hashes(frame, keys).to_list()))

    def list_digests(self, feature: str) -> set[bytes]:
        """The digests of all rows online: of each entity's hash the first `digest_bytes`, which the hash spells out in hex.

        After `begin`, only this push can add rows that are not listed.
        """
        return {bytes.fromhex(row) for chunk in self._scan(feature) for row in chunk}

    def remove_rows(self, feature: str, target: Target, digests: Iterable[bytes]) -> int:
        """Delete the rows with these digests; returns how many there were."""
        return self._remove(feature, target, slices([digest.hex() for digest in digests]))

    def count_other_rows(self, feature: str, hashes: Iterable[str]) -> int:
        """The number of rows online whose entity is not among these hashes."""
        return len(self.list_digests(feature).difference(digests_of(hashes, self.digest_bytes)))

    def rows_by_feature(self, features: Collection[str]) -> dict[str, int]:
        """The number of rows online of each of these features; a backend that can looks at its keys but once."""
        return {feature: self.count_other_rows(feature, ()) for feature in features}

    def count_rows(self, feature: str, hashes: Sequence[str]) -> int:
        """The number of these hashes that have a row."""
        [(_, texts)] = self._fetch([RowRequest(feature, hashes)])
        return sum(text is not None for text in texts)

    @abstractmethod
    def finish(
        self, feature: str, target: Target, books: OnlineBooks, server: str | None = None
    ) -> None:
        """Write the books with the target as done and none pending, atomically.

        server: the run that every row of the push was written to. OnlineUnavailable if another answers
        now: it may lack the last rows, as after a failover. The TTL that is recorded is this store's.

        Say in `books.renewed_at` when the oldest live row was written or renewed: with a TTL the books
        are gone half of one after that, whenever this is called, so that they never outlive a row.
        """

    @abstractmethod
    def renew(self, feature: str, target: Target) -> int:
        """Give every row and the books their full time to live again; returns the number of rows.

        A number below that in the books means that rows were lost. Raises as `put`.
        """

    def evidence(self) -> Evidence | None:
        """The server's run and its count of evicted keys, as evidence of lost rows; None if it does not report them."""
        return None

    def evidence_to_note(self) -> Evidence | None:
        """As `evidence`, for books: all that may cost rows from now on shows in later evidence, as far as the server lets it."""
        return self.evidence()

    async def evidence_async(self) -> Evidence | None:
        """As `evidence`, without blocking an event loop; by default it is asked in a thread."""
        return await asyncio.to_thread(self.evidence)

    @abstractmethod
    def mark_incomplete(self, feature: str, books: OnlineBooks) -> None:
        """Note in the books that rows are missing, unless a push has begun since.

        From then on readers do not take a missing row for an entity with empty windows.
        """

    def drop(self, feature: str, owner: str | None = None) -> int:
        """Delete the feature, its books first; returns the number of rows deleted.

        owner: the id of the store whose rows may be deleted; another store's raise OwnedElsewhere. None skips the check.
        """
        self.forget(feature, owner)
        dropped = self._clear(feature)
        self.unregister(feature)
        return dropped

    def _clear(self, feature: str) -> int:
        """Delete all rows, unfenced; returns how many there were."""
        return self._remove(feature, None, self._scan(feature))

    def rewrite_own_files(self) -> list[str]:
        """Have the server's own files, such as logs and snapshots, lose what was deleted; sentences for those that may hold it still.

        By default there are none that a client can rewrite.
        """
        return []

    # Books and features.

    @abstractmethod
    def ping(self) -> bool:
        """True if the server answers; raises OnlineUnavailable if it does not."""

    def books(self, feature: str) -> OnlineBooks | None:
        """The feature's books; None if it was never pushed, or its time to live has run out. Raises OnlineError if damaged."""
        [(books, _)] = self._fetch([RowRequest(feature)])
        return books

    def books_of(self, features: Sequence[str]) -> dict[str, OnlineBooks | None]:
        """The books of several features, by name, as `books` gives them; features with damaged books are left out.

        They are asked for in one call; one by one where some are damaged. Raises OnlineUnavailable where the server does not answer.
        """
        try:
            answers = self._fetch([RowRequest(feature) for feature in features])
        except OnlineUnavailable:
            raise
        except OnlineError:
            return self._books_one_by_one(features)
        return dict(zip(features, (books for books, _ in answers), strict=True))

    def _books_one_by_one(self, features: Sequence[str]) -> dict[str, OnlineBooks | None]:
        books: dict[str, OnlineBooks | None] = {}
        for feature in features:
            try:
                books[feature] = self.books(feature)
            except OnlineUnavailable:
                raise
            except OnlineError:
                continue
        return books

    @abstractmethod
    def features(self) -> list[str]:
        """Names of the features that were pushed here and not dropped since, sorted."""

    @abstractmethod
    def forget(self, feature: str, owner: str | None = None) -> None:
        """Delete the feature's books and fence, e.g. when the durable store was made anew.

        Nothing is promised until the next push. owner: as in `drop`, held against the books atomically.
        """

    @abstractmethod
    def unregister(self, feature: str) -> None:
        """Take the feature off the list of features; its rows and books stay."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections; the next call opens new ones."""

    async def aclose(self) -> None:
        """Close the connections of the running event loop; the next call opens new ones. By default there are none."""
        return

    # Further methods of a backend. A target of None is not fenced.

    @abstractmethod
    def _put(self, feature: str, target: Target | None, chunks: Iterable[Rows]) -> int: ...

    @abstractmethod
    def _remove(
        self, feature: str, target: Target | None, chunks: Iterable[Sequence[str]]
    ) -> int: ...

    @abstractmethod
    def _scan(self, feature: str) -> Iterator[list[str]]:
        """The hashes of all rows in chunks; each row at least once."""
