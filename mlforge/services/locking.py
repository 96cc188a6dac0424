"""Locking: the columns of a service as a lock names them, from stored versions or from what is served online."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from mlforge.core import clock
from mlforge.core.arguments import shown
from mlforge.core.expression.columns import TypedColumn
from mlforge.core.expression.parser import T
from mlforge.core.lock import Lock, LockedColumn, key_dtypes
from mlforge.core.manifest import Manifest
from mlforge.core.meaning import FeatureMeaning, meaning_text
from mlforge.core.schema import Column, Schema, dtypes
from mlforge.errors import ExpressionError, LockMismatch, RetrievalError, did_you_mean
from mlforge.features.feature import Feature
from mlforge.features.selection import Selection
from mlforge.services.completion import Output, completion, own_defaults
from mlforge.services.description import plain_default
from mlforge.services.spec import ServiceSpec


@dataclass(frozen=True, slots=True)
class UsedColumn:
    """A feature's column in an answer.

    meaning: the text of the feature's meaning, as `meaning_text` gives it. keys: the feature's. renamed: pairs of a key and its name in
    spines and entities.
    """

    output: Output
    feature: str
    meaning: str
    keys: Schema = ()
    renamed: tuple[tuple[str, str], ...] = ()


class Versions(Protocol):
    """The part of a store that a lock needs."""

    def identity(self) -> Any:
        """The store's identity, None if it has none."""

    def books(self, name: str) -> Any:
        """The feature's books."""

    def resolve(self, name: str, version: str | None = None) -> Manifest:
        """The manifest of a version, by default the served one's."""


def lock_of(service: ServiceSpec, store: Versions) -> Lock:
    """The lock of a service as of the versions that the store serves now.

    Raises StoreError for a feature or version that is not there, RetrievalError for columns that do not fit,
    LockMismatch for those of a kept version that are not what they were.
    """
    if not hasattr(store, "resolve"):
        raise RetrievalError(
            f"{service.name}: a lock is of the versions of an offline store such as LocalStore('feature_store'), "
            f"not of {shown(store)}"
        )
    entries = [entry if isinstance(entry, tuple) else (entry, None) for entry in service.features]
    uses = [(use, store.resolve(_name(use), version)) for use, version in entries]
    with promised(service):
        columns = _columns(service, uses, store)
    identity = store.identity()
    versions = (f"{manifest.name}@{manifest.version}" for _, manifest in uses)
    return Lock(
        service.name,
        columns,
        tuple(dict.fromkeys(versions)),
        "" if identity is None else identity.id,
        clock.now(),
    )


def _columns(
    service: ServiceSpec, uses: Sequence[tuple[Any, Manifest]], store: Versions
) -> tuple[LockedColumn, ...]:
    """The columns of the service, held against the lock of a kept version."""
    plain = {(m.name, m.version) for use, m in uses if not _prefix(use)}
    used: list[UsedColumn] = []
    for use, manifest in uses:
        several = len({version for name, version in plain if name == manifest.name}) > 1
        own = f"{manifest.name}__{manifest.version}" if several else manifest.name
        defaults = store.books(manifest.name).defaults
        used += _used(use, manifest, _prefix(use) or own, defaults)
    columns = locked_columns(service, tuple(used))
    if service.kept is not None:
        service.kept.check(columns)
    return columns


@contextmanager
def promised(service: ServiceSpec) -> Iterator[None]:
    """A block in which what is wrong with a kept version's columns is a LockMismatch that names the version."""
    try:
        yield
    except (LockMismatch, RetrievalError, ExpressionError) as error:
        if service.kept is None:
            raise
        raise LockMismatch(f"{service.title} is not served any more: {error}") from error


@lru_cache(maxsize=256)
def locked_columns(
    service: ServiceSpec | None, used: tuple[UsedColumn, ...]
) -> tuple[LockedColumn, ...]:
    """The columns of an answer: the features', the request's, then the service's own derived ones.

    Raises as `completion`; ValueError, TypeError, KeyError or AttributeError for a text that is no meaning.
    """
    outputs = tuple(use.output for use in used)
    complete = None if service is None else completion(service, outputs, _keys(used))
    defaults = own_defaults(outputs) if complete is None else complete.defaults
    columns = []
    for use in used:
        label, column = use.output.label, use.output.column
        parts = {"feature": use.feature, **_meaning(use.meaning).column(column)}
        if use.renamed:
            parts["joined_by"] = dict(sorted(use.renamed))
        if label in defaults:
            parts["default"] = plain_default(defaults[label])
        names = [key.name for key in use.keys]
        columns.append(LockedColumn(label, use.output.dtype, parts, key_dtypes(use.keys, names)))
    if service is None or complete is None:
        return tuple(columns)
    columns += [LockedColumn(c.name, c.dtype, {"request": c.name}) for c in service.request]
    for derived in complete.derived:
        columns.append(_derived(derived, columns))
    return tuple(columns)


@lru_cache(maxsize=256)
def check_lock(lock: Lock, service: ServiceSpec | None, used: tuple[UsedColumn, ...]) -> None:
    """Raise LockMismatch unless each locked column is in the answer, with the dtype and meaning that it had."""
    lock.check(locked_columns(service, used))


def used_columns(
    manifest: Manifest,
    names: Sequence[str],
    prefix: str,
    renamed: tuple[tuple[str, str], ...] = (),
    *,
    defaults: Mapping[str, Any],
) -> list[UsedColumn]:
    """Some columns of a version, as an answer has them under a prefix; defaults: the feature's described ones."""
    dtype_of = dtypes(manifest.spec.values(manifest.events))
    text = meaning_text(manifest.spec, manifest.code_hash)
    keys = tuple(column for column in manifest.events if column.name in manifest.spec.keys)
    outputs = (Output.of(f"{prefix}__{name}", name, dtype_of[name], defaults) for name in names)
    return [UsedColumn(output, manifest.name, text, keys, renamed) for output in outputs]


def _used(
    use: str | Feature | Selection, manifest: Manifest, prefix: str, defaults: Mapping[str, Any]
) -> list[UsedColumn]:
    known = [column.name for column in manifest.spec.values(manifest.events)]
    if not isinstance(use, Selection):
        return used_columns(manifest, known, prefix, defaults=defaults)
    for name in use.columns:
        if name not in known:
            raise RetrievalError(
                f"{manifest.name}: no column {name!r}; {did_you_mean(name, known)}"
            )
    return used_columns(manifest, use.columns or known, prefix, use.renamed, defaults=defaults)


def _keys(used: Sequence[UsedColumn]) -> Schema:
    """The keys by their names in entities, each with the dtype that the first feature has for it."""
    keys: dict[str, Column] = {}
    for use in used:
        renamed = dict(use.renamed)
        for key in use.keys:
            name = renamed.get(key.name, key.name)
            keys.setdefault(name, Column(name, key.dtype))
    return tuple(keys.values())


def _name(use: str | Feature | Selection) -> str:
    if isinstance(use, str):
        return use
    return use.feature if isinstance(use, Selection) else use.name


def _prefix(use: str | Feature | Selection) -> str:
    return use.prefix if isinstance(use, Selection) else ""


def _derived(column: TypedColumn, before: Sequence[LockedColumn]) -> LockedColumn:
    """A derived column of a service; what it reads counts with its meaning."""
    meanings = {other.name: other.meaning for other in before}
    reads = {name: meanings.get(name, "key") for name in sorted(column.inputs) if name != T}
    parts = {"name": column.name, "derive": column.expression, "reads": reads}
    return LockedColumn(column.name, column.dtype, parts)


@lru_cache(maxsize=512)
def _meaning(text: str) -> FeatureMeaning:
    return FeatureMeaning.parse(text)
