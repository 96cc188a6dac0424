"""Entries of the registry: what a feature or a service is, in values that a screen, JSON and a search read alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ColumnEntry:
    """A column of an entry.

    of: the event column that is aggregated, the expression of a derived one, or the feature's column in a service; None
    for a column as it comes. dtype: None before the first version. feature: in a service, whose column it is. default: the
    value that answers have in place of null, as JSON has it; None where there is none.
    """

    name: str
    dtype: str | None
    aggregation: str | None = None
    window: str | None = None
    offset: str | None = None
    where: str | None = None
    of: str | None = None
    description: str = ""
    feature: str | None = None
    default: Any = None


@dataclass(frozen=True, slots=True)
class SetEntry:
    """A training set that keeps versions of a feature: its id, its folder, the versions, and when (ISO 8601)."""

    id: str
    folder: str
    versions: tuple[str, ...]
    at: str | None


@dataclass(frozen=True, slots=True)
class Users:
    """Who uses a feature, directly, by name."""

    features: tuple[str, ...]
    services: tuple[str, ...]
    models: tuple[str, ...]
    training_sets: tuple[SetEntry, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a feature: rows and bytes of the served version; None where files cannot be measured.

    table_rows, table_bytes: of its table. event_rows: events that it consists of. event_bytes: of the files that hold
    them, which other versions may share.
    """

    table_rows: int
    table_bytes: int | None
    event_rows: int
    event_bytes: int | None


@dataclass(frozen=True, slots=True)
class FeatureEntry:
    """A feature: as it is defined, and its served version; version, updated_at and cost are None before the first.

    defined: False of a feature that is only stored. undescribed: descriptions of columns that the served version does
    not have. upstream: all that it is made from, as `source:purchases/`; downstream: all that is made from it, as
    `service:checkout`; the nearest first. formerly: the names that it had before, the latest first. keeper: the definitions that
    keep it in a store which others share; empty where none do.
    """

    name: str
    defined: bool
    owner: str
    description: str
    tags: tuple[str, ...]
    keys: tuple[str, ...]
    timestamp: str | None
    interval: str | None
    engine: str | None
    sources: tuple[str, ...]
    tables: Mapping[str, tuple[str, ...]]
    columns: tuple[ColumnEntry, ...]
    undescribed: tuple[str, ...]
    version: str | None
    updated_at: str | None
    reason: str | None
    versions: tuple[str, ...]
    upstream: tuple[str, ...]
    downstream: tuple[str, ...]
    used_by: Users
    cost: Cost | None
    formerly: tuple[str, ...] = ()
    keeper: str = ""
    kind: str = "feature"


@dataclass(frozen=True, slots=True)
class UseEntry:
    """A feature as a service takes it.

    version: what is read now; None where there is none. fixed: whether the service names that version, so that it does
    not follow the served one. prefix: of the columns' names. keys: each key's name in entities.
    """

    feature: str
    owner: str
    version: str | None
    fixed: bool
    prefix: str
    keys: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """A service: what it takes, and what its answers have.

    version: the last that is kept; None before the first. versions: all that are kept, ascending. uses: its features, in order. keys: as entities name them. columns: of an answer, in order; `complete` is False where some follow from data that no
    version has yet. defaults: by column, as JSON has them. keeper: the definitions that keep it in a store which others share;
    empty where none do.
    """

    name: str
    owner: str
    description: str
    features: tuple[str, ...]
    uses: tuple[UseEntry, ...]
    keys: tuple[str, ...]
    request: tuple[ColumnEntry, ...]
    columns: tuple[ColumnEntry, ...]
    complete: bool
    defaults: Mapping[str, Any]
    max_age: str | None
    upstream: tuple[str, ...]
    version: str | None = None
    versions: tuple[str, ...] = ()
    keeper: str = ""
    kind: str = "service"


def document_of(entry: FeatureEntry | ServiceEntry) -> dict[str, Any]:
    """The entry as JSON has it, its kind first."""
    document = asdict(entry)
    return {"kind": document.pop("kind"), **document}
