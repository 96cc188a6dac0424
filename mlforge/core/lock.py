"""Locks: the columns that a model was made with, what each means, and what has changed since."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mlforge.core.arguments import shown
from mlforge.core.json_text import decoded
from mlforge.core.manifest import Manifest
from mlforge.core.meaning import FeatureMeaning, Parts, differences, meaning_hash
from mlforge.core.nested import agree
from mlforge.core.paths import path_of
from mlforge.core.schema import INTEGERS, Schema, dtypes
from mlforge.core.text import plural
from mlforge.core.values import from_iso, to_iso
from mlforge.errors import LockMismatch, MlforgeError, RetrievalError

FORMAT = 1
FILE = "features.lock"
_TOLD = 3  # columns in a message
_OF_SERVICE = ("joined_by", "default")  # parts that a service gives to a feature's column


@dataclass(frozen=True)
class LockedColumn:
    """A column of an answer by its name there, its dtype, the parts of its meaning, and its feature's keys.

    parts: `feature` and what the feature's column means, with `joined_by` (key -> name in entities) and `default`
    where a service says so; `request` alone for a request column; `name`, `derive` and `reads` for one that a
    service derives. keys: pairs of a key and its dtype, sorted; empty where no feature's, or written before locks named them.
    """

    name: str
    dtype: str
    parts: Parts = field(hash=False)
    keys: tuple[tuple[str, str], ...] = ()

    @cached_property
    def meaning(self) -> str:
        """The hash of its meaning."""
        return meaning_hash(self.parts)

    @property
    def feature(self) -> str | None:
        """The feature whose column it is; None for a column of the service's own."""
        return self.parts.get("feature")

    def changes(self, now: LockedColumn) -> list[str]:
        """How another column of its name differs, in words; empty if it is the same."""
        retyped = not agree(self.dtype, now.dtype)
        types = [f"its type {self.dtype} became {now.dtype}"] if retyped else []
        types += _key_changes(dict(self.keys), dict(now.keys))
        same = self.meaning == now.meaning
        return types if same else [*types, *(differences(self.parts, now.parts) or ["its meaning"])]


@dataclass(frozen=True, slots=True)
class Change:
    """A locked column that is not as it was, and why, in words."""

    column: str
    why: str

    def __str__(self) -> str:
        return f"{self.column}: {self.why}"


@dataclass(frozen=True, slots=True)
class Lock:
    """The columns of a service as of one moment: a model that was made with them keeps it.

    service: its name, empty where features were named one by one. store: the id of the store whose versions were read, empty if it had none. versions: as in
    `user_spend@1.0.3`. created_at: UTC microseconds.
    """

    service: str
    columns: tuple[LockedColumn, ...]
    versions: tuple[str, ...] = ()
    store: str = ""
    created_at: int = 0

    def __repr__(self) -> str:
        """The service, how many columns, and the versions; `columns` tells what each means."""
        service = f"{self.service!r}: " if self.service else ""
        of = ", ".join(self.versions) or ", ".join(self.features)
        return f"Lock({service}{plural(len(self.columns), 'column')} of {of or 'no feature'})"

    def changes(self, now: Sequence[LockedColumn]) -> list[Change]:
        """The locked columns that are missing from an answer's, or not as they were; columns beside them do not count."""
        by_name = {column.name: column for column in now}
        changes = []
        for column in self.columns:
            other = by_name.get(column.name)
            words = [_gone(column, now, self.columns)] if other is None else column.changes(other)
            if words:
                changes.append(Change(column.name, ", ".join(words)))
        return changes

    def changes_in(self, version: Manifest) -> list[Change]:
        """The locked columns of a version's feature that are missing from the version, or not as they were."""
        feature, spec = version.name, version.spec
        meaning = FeatureMeaning.of(spec, version.code_hash)
        keys = key_dtypes(version.events, spec.keys)
        own = tuple(column for column in self.columns if column.feature == feature)
        of_service = {column.name: _of_service(column.parts) for column in own}
        prefixes = dict.fromkeys(column.name.removesuffix(column.parts["name"]) for column in own)
        now = [
            LockedColumn(
                f"{prefix}{name}",
                dtype,
                {
                    "feature": feature,
                    **meaning.column(name),
                    **of_service.get(f"{prefix}{name}", {}),
                },
                keys,
            )
            for prefix in prefixes
            for name, dtype in dtypes(spec.values(version.events)).items()
        ]
        return replace(self, columns=own).changes(now)

    @property
    def title(self) -> str:
        """The words for it in a sentence."""
        return f"the lock of {self.service}" if self.service else "the lock"

    def check(self, now: Sequence[LockedColumn]) -> None:
        """Raise LockMismatch, which names the columns and their changes, unless each locked column is as it was."""
        if changes := self.changes(now):
            raise LockMismatch(f"{self.title} does not hold: {told(changes)}")

    def renamed(self, names: Mapping[str, str]) -> Lock:
        """The same lock with features' present names, by their former ones; columns keep their names in answers."""
        if not names.keys() & {*self.features, *(v.partition("@")[0] for v in self.versions)}:
            return self
        columns: list[LockedColumn] = []
        meanings: dict[str, str] = {}
        for column in self.columns:
            now = replace(column, parts=_renamed(column.parts, names, meanings))
            meanings[column.meaning] = now.meaning
            columns.append(now)
        versions = (version.partition("@") for version in self.versions)
        return replace(
            self,
            columns=tuple(columns),
            versions=tuple(f"{names.get(name, name)}@{number}" for name, _, number in versions),
        )

    @property
    def features(self) -> tuple[str, ...]:
        """The features that its columns are of, each once."""
        return tuple(dict.fromkeys(c.feature for c in self.columns if c.feature is not None))

    def to_json(self) -> dict[str, Any]:
        """The document, as `features.lock` holds it."""
        return {
            "format": FORMAT,
            "service": self.service,
            "store": self.store,
            "created_at": to_iso(self.created_at),
            "versions": list(self.versions),
            "columns": [_document(column) for column in self.columns],
        }

    @classmethod
    def from_json(cls, document: object) -> Lock:
        """Read a document; ValueError, TypeError, KeyError or a MlforgeError for one that is no lock's."""
        if not isinstance(document, dict) or "columns" not in document:
            raise ValueError("it is not a lock")
        columns = tuple(_column(column) for column in document["columns"])
        if not columns or len({column.name for column in columns}) < len(columns):
            raise ValueError("it names no column, or one twice")
        texts = [document["service"], document["store"], *document["versions"]]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("its service, store and versions are texts")
        created_at = from_iso(document["created_at"]) or 0
        versions = tuple(document["versions"])
        return cls(document["service"], columns, versions, document["store"], created_at)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it to a file, whole or not at all; returns the path. RetrievalError where it cannot be written."""
        file = path_of(path)
        if not file.name or file.is_dir():
            raise RetrievalError(f"cannot write the lock {file}: it is a folder; name a file")
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            temporary.write_text(self.text, encoding="utf-8")
            temporary.replace(file)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise RetrievalError(f"cannot write the lock {file}: {error.strerror}") from error
        return file

    @property
    def text(self) -> str:
        """The document as text for people, with a column a line."""
        document = self.to_json()
        columns = document.pop("columns")
        head = "".join(f"{json.dumps(k)}: {json.dumps(v)},\n" for k, v in document.items())
        lines = ",\n ".join(json.dumps(column, ensure_ascii=False) for column in columns)
        return f'{{\n{head}"columns": [\n {lines}\n]\n}}\n'

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Lock:
        """Read a file; RetrievalError if there is none, it is damaged, or a newer mlforge wrote it."""
        try:
            text = path_of(path).read_text(encoding="utf-8")
        except OSError as error:
            raise RetrievalError(
                f"cannot read the lock {path}: {error.strerror}; 'mlforge lock SERVICE' writes one"
            ) from error
        except ValueError as error:
            raise _no_lock(str(path), error) from error
        return cls.from_text(text, str(path))

    @classmethod
    def from_text(cls, text: str, where: str) -> Lock:
        """Read what `text` gives; RetrievalError for one that is damaged, or that a newer mlforge wrote.

        where: the words for it in an error.
        """
        try:
            document = decoded(text)
            if isinstance(document, dict) and document.get("format", FORMAT) != FORMAT:
                raise RetrievalError(
                    f"{where} is a lock of format {document['format']!r}, this mlforge knows {FORMAT}: "
                    "upgrade to the release that wrote it"
                )
            return cls.from_json(document)
        except RetrievalError:
            raise
        except (
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            RecursionError,
            MlforgeError,
        ) as error:
            raise _no_lock(where, error) from error


def lock_named(lock: object) -> Lock:
    """The lock that a caller gives as a value or as the path of its file; RetrievalError for anything else."""
    if isinstance(lock, Lock):
        return lock
    if isinstance(lock, (str, os.PathLike)) and os.fspath(lock):
        return Lock.load(lock)
    raise RetrievalError(f"lock must be a Lock or the path of its file, not {shown(lock)}")


def told(changes: Sequence[Change]) -> str:
    """Changes as one sentence, the first few in full."""
    more = f"; and {len(changes) - _TOLD} more" if len(changes) > _TOLD else ""
    return "; ".join(map(str, changes[:_TOLD])) + more


def _no_lock(where: str, error: Exception) -> RetrievalError:
    return RetrievalError(
        f"{where} is no lock, or it is damaged ({error}); restore it, or make a new one with 'mlforge lock SERVICE'"
    )


def key_dtypes(schema: Schema, keys: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of a key and its dtype, sorted; those whose columns have not shown a dtype yet are left out."""
    dtype_of = dtypes(schema)
    return tuple(
        (key, dtype_of[key]) for key in sorted(keys) if dtype_of.get(key, "Null") != "Null"
    )


def _key_changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """How the dtypes of keys changed, in words, as far as both sides name them.

    Integers of all widths are one: the entities are the same, and a drop may widen a key by itself.
    """
    return [
        f"the type of its key {key} {dtype} became {now[key]}"
        for key, dtype in before.items()
        if _key_type(now.get(key, dtype)) != _key_type(dtype)
    ]


def _key_type(dtype: str) -> str:
    return INTEGERS[0] if dtype in INTEGERS else dtype


def _document(column: LockedColumn) -> dict[str, Any]:
    document = {
        "name": column.name,
        "dtype": column.dtype,
        "meaning": column.meaning,
        "of": dict(column.parts),
    }
    return {**document, "keys": dict(column.keys)} if column.keys else document


def _column(document: Mapping[str, Any]) -> LockedColumn:
    name, dtype, parts = document["name"], document["dtype"], document["of"]
    if not isinstance(name, str) or not isinstance(dtype, str) or not isinstance(parts, dict):
        raise TypeError("a column has a name, a dtype and what it is of")
    if "feature" in parts and not isinstance(parts.get("name"), str):
        raise TypeError(f"{name} does not say which column of its feature it is")
    keys = dict(document.get("keys", {}))
    if not all(isinstance(text, str) for pair in keys.items() for text in pair):
        raise TypeError(f"the keys of {name} have names and dtypes")
    column = LockedColumn(name, dtype, parts, tuple(sorted(keys.items())))
    if column.meaning != document["meaning"]:
        raise ValueError(f"the meaning of {name} does not fit what it is of")
    return column


def _renamed(parts: Parts, names: Mapping[str, str], meanings: Mapping[str, str]) -> Parts:
    """The parts with the present name of the feature; meanings: of the columns before it, by the one that each had."""
    if "feature" in parts:
        return {**parts, "feature": names.get(parts["feature"], parts["feature"])}
    reads = parts.get("reads")
    if not isinstance(reads, Mapping):
        return parts
    return {**parts, "reads": {name: meanings.get(own, own) for name, own in reads.items()}}


def _of_service(parts: Parts) -> dict[str, Any]:
    """The parts that a service gives."""
    return {name: parts[name] for name in _OF_SERVICE if name in parts}


def _gone(column: LockedColumn, now: Iterable[LockedColumn], locked: Sequence[LockedColumn]) -> str:
    """That a column is missing, and the new one that took its place where one differs in a single part."""
    known = {other.name for other in locked}
    new = [other for other in now if other.name not in known]
    for other in new:
        if column.feature is None or other.feature != column.feature:
            continue
        aside = {name: column.parts.get(name) for name in ("name", "code", *_OF_SERVICE)}
        words = differences(column.parts, {**other.parts, **aside})
        if len(words) == 1 and "column" in column.parts:
            return f"it is gone: {words[0]} ({other.name})"
    return "it is gone"
