"""The books of a feature: which push its rows are of, whose they are, and what is promised about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mlforge.core.expression.columns import Derived
from mlforge.core.schema import Schema
from mlforge.core.values import to_iso
from mlforge.online.decoding import SameDtype

RECOUNT_AFTER_US = 10_000_000
"""The least time between two counts of the rows on a server that goes on evicting."""
UNRECORDED = 0
"""The TTL of books that do not tell it: those that a release before wrote."""
_NEVER = -(2**63)
_QUARTER_US = 250_000  # of a second of TTL


@dataclass(frozen=True, slots=True)
class Target:
    """The state that a push brings the online store to; `as_of` is None for an untimed feature.

    content: the version's `rows_hash`. A store that was deleted and made anew comes to the same version
        and generation with other rows.
    store: the id of the offline store that has the version; empty where a release before pushed it.
    """

    version: str
    generation: int
    as_of: int | None
    content: str = ""
    store: str = ""

    @property
    def fence(self) -> tuple[int, int]:
        """The order of a store's targets: its generation, then the instant."""
        return self.generation, _NEVER if self.as_of is None else self.as_of

    def __str__(self) -> str:
        at = f" as of {to_iso(self.as_of)}" if self.as_of is not None else ""
        return f"{self.version}{at} (generation {self.generation})"


@dataclass(frozen=True, slots=True)
class Owner:
    """The offline store that a feature's rows come from, and where it lay when it claimed them.

    store: its id. place: its location, as its `repr`. root: the project's root. since: when it claimed the
        feature, in UTC microseconds; 0 where that is not recorded yet.
    """

    store: str
    project: str = ""
    root: str = ""
    place: str = ""
    host: str = ""
    since: int = 0

    def lies_where(self, other: Owner) -> bool:
        """Whether both stores lie in one place on one host: then the first was deleted before the second was created."""
        return bool(self.place) and (self.place, self.host) == (other.place, other.host)

    def __str__(self) -> str:
        parts = [f"store {self.store}"]
        parts += [f"project {self.project!r}"] if self.project else []
        parts += [f"in {self.root or self.place} on {self.host}"] if self.host else []
        parts += [f"since {to_iso(self.since)}"] if self.since else []
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Which run of which server holds the rows, and how many keys it has evicted until then.

    history: names the course of the server's data, another after each failover, also after one back to the same
        run. mark: a name that the server forgets with its counts. Both are empty where nobody tells.
    is_replica: whether a replica tells this, which has counts and a mark of its own.
    """

    server: str
    evicted: int
    history: str = ""
    mark: str = ""
    is_replica: bool = False

    def loss_by(self, now: Evidence) -> str | None:
        """The loss of rows that there may have been since this evidence, as a sentence; None where nothing can have cost any.

        Of a replica only its own evictions count: those of its primary are found by whoever counts the rows.
        """
        if self == INCOMPLETE:
            return "somebody has deleted some"
        if self.history and self.history != now.history:
            return _RESTARTED
        if now.is_replica:
            return _EVICTED if now.evicted else None
        if self.server != now.server:
            return _RESTARTED
        if self.evicted != now.evicted:
            return _EVICTED
        return _RESET if self.mark and self.mark != now.mark else None


_EVICTED = "the server has evicted keys since they were counted"
_RESTARTED = "the server has restarted or failed over since they were counted"
_RESET = (
    "the server's count of evicted keys was set back since they were counted (CONFIG RESETSTAT)"
)
INCOMPLETE = Evidence("", -1)
"""Rows are known to be missing."""


@dataclass(frozen=True)
class OnlineBooks:
    """The store's promise about a feature.

    target: the last push that finished; None means that nothing is promised: all but `pending` and `owner`
        is empty then. pending: the targets that began since.
    rows: the number of rows. pushed_at, renewed_at: UTC microseconds. Rows live from `renewed_at` for one
        TTL, the books for half of one.
    ttl: the TTL of the rows, in seconds; None for ever, UNRECORDED where the books lack it.
    keys, columns: names and dtypes. empty: the value of each column where windows are empty, as in training.
    evidence: the server's run and evictions when all rows were last known to be there; None where it reports none.
    owner: whose rows they are; None where a release before pushed them.
    derived: derived columns, in order. Rows and `columns` hold those that do not depend on the instant; the
        others are computed at the read. inputs: the dtypes of what they read, `columns` and keys.
    meaning: what the columns mean, as `core.meaning.meaning_text` has it; empty where a release before pushed them.
    defaults: the feature's described ones, by column, which take the place of null in answers.
    formerly: the names that the feature had before, the latest first: locks may say one of them.
    layout: how the rows lie on the server.
    """

    target: Target | None
    pending: tuple[Target, ...] = ()
    rows: int = 0
    pushed_at: int = 0
    renewed_at: int = 0
    keys: Schema = ()
    columns: Schema = ()
    empty: Mapping[str, Any] = field(default_factory=dict)
    evidence: Evidence | None = None
    ttl: int | None = None
    owner: Owner | None = None
    derived: tuple[Derived, ...] = ()
    inputs: Schema = ()
    meaning: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    formerly: tuple[str, ...] = ()
    layout: str = field(default="json", compare=False)

    def is_at(self, target: Target, layout: str) -> bool:
        """Whether the rows are the target's and lie in the layout, with no push under way."""
        return self.target == target and self.layout == layout and not self.pending

    def empty_row(self) -> dict[str, Any]:
        """The values of an entity without a row; lists are the caller's own."""
        return {
            name: list(value) if isinstance(value, list) else value
            for name, value in self.empty.items()
        }

    @cached_property
    def columns_by_dtype(self) -> tuple[SameDtype, ...]:
        """The columns as `decode_rows` takes them."""
        return SameDtype.of(self.columns)

    @property
    def is_being_replaced(self) -> bool:
        """Whether rows may belong to another version, whose push has begun but not finished."""
        return any(
            self.target is None or pending.version != self.target.version
            for pending in self.pending
        )

    def renewal_due(self, ttl: int | None, now: int) -> bool:
        """Whether the rows' TTL is due for renewal: its setting has changed, or a quarter of it has passed.

        So rows are renewed before half of it has passed even if one round is missed. By a clock that was ahead they seem to have been renewed in the future,
        and nobody knows when they were.
        """
        if ttl != self.ttl:
            return True
        return ttl is not None and abs(now - self.renewed_at) >= ttl * _QUARTER_US

    def recount_due(self, evidence: Evidence | None, now: int) -> bool:
        """Whether the rows are to be counted: the server may have dropped some since they last were."""
        if self.evidence == evidence:
            return False
        return self.evidence == INCOMPLETE or abs(now - self.renewed_at) >= RECOUNT_AFTER_US


@dataclass(frozen=True, slots=True)
class Claim:
    """Whose rows a push makes them.

    takes_from: the id of the store that it takes them from, None if from nobody. afresh: the books of that
        store go with their promises, so that nobody reads its values as the new owner's.
    """

    owner: Owner
    takes_from: str | None = None
    afresh: bool = False
