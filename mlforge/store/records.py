"""Notes of a feature's folder beside its versions: mutable, never part of a version's meaning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

from mlforge.core.values import Version


@dataclass(frozen=True, slots=True)
class StoreIdentity:
    """A store's own name, which stays when its folder is moved or restored; `created_at` in UTC microseconds.

    id: 8 to 64 letters, digits, `-` and `_`.
    """

    id: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A source file that is left out, and why; `memo` names the content and code that were tried."""

    path: str
    reason: str
    memo: str
    since: int


class FileState(NamedTuple):
    """A source file's last known state; an unchanged stat means unchanged content.

    `good` is the hash of the last content that was not quarantined, empty if there is none. `shape` lists
    the content's columns, as ingestion writes them; empty where they are unknown.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    hash: str
    rows: int = 0
    good: str = ""
    shape: str = ""


class FileStateMap(dict[str, FileState]):
    """The last known states of source files, by path; a store keeps the very mapping that it is given.

    memo: a value, and what was worked out from it and the states, for whoever asks the store next.
    Nobody changes the states of a mapping that has one.
    """

    memo: tuple[object, Any] | None = None
    before: FileStateMap | None = None
    """The states of which these are a copy, until a store keeps them."""

    @cached_property
    def touched(self) -> set[str]:
        """The paths whose states were set or taken away one by one: of a copy, all that may differ."""
        return set()

    @cached_property
    def shapes(self) -> set[str]:
        """The shapes of all states, and of some that were there before: a copy goes on with the very same set."""
        return {state.shape for state in self.values()}

    @cached_property
    def _paths(self) -> dict[str, str]:
        """By the hash of a content the path that had it last; a copy goes on with the very same mapping."""
        return {state.hash: path for path, state in self.items()}

    def of_content(self, content: str) -> FileState | None:
        """The state of some file with this content; None if there is none."""
        path = self._paths.get(content)
        if path is None:
            return None
        state = self.get(path)
        if state is not None and state.hash == content:
            return state
        return next((state for state in self.values() if state.hash == content), None)

    def without(self, paths: Iterable[str]) -> FileStateMap:
        """A copy without the states of some paths, to be changed path by path."""
        copy, left = FileStateMap(self), set(paths)
        copy.before, copy.touched = self, {*left}
        copy.__dict__ |= {"shapes": self.shapes, "_paths": self._paths}
        # What came last goes first, as it mostly is that: a dict that lost one from between others takes five times as long to copy.
        while next(reversed(copy), None) in left:
            left.discard(copy.popitem()[0])
        for path in left:
            del copy[path]
        return copy

    def __setitem__(self, path: str, state: FileState) -> None:
        self.touched.add(path)
        if "shapes" in self.__dict__:
            self.shapes.add(state.shape)
            self._paths[state.hash] = path
        super().__setitem__(path, state)

    def __delitem__(self, path: str) -> None:
        self.touched.add(path)
        super().__delitem__(path)


@dataclass(frozen=True, slots=True)
class SetPin:
    """The versions of a feature that a training set was made from, the folder it was made in, and when.

    at: UTC microseconds. until: for how long they are kept while the set is being made, in UTC microseconds, as its process may be
    killed; None once it is made.
    """

    versions: tuple[str, ...]
    out: str
    at: int
    until: int | None = None

    def keeps_at(self, now: int) -> bool:
        """Whether the versions are kept at an instant, in UTC microseconds."""
        return self.until is None or now < self.until


@dataclass(frozen=True, slots=True)
class ExportNote:
    """The version that an exported table is, and when it became that; at: UTC microseconds."""

    version: str
    at: int


@dataclass(frozen=True, slots=True)
class DriftNote:
    """The drift of a column in the rows that a version added: its index, and the index from which on it is one.

    psi: the population stability index. version: the one that was judged.
    """

    psi: float
    limit: float
    version: str

    @property
    def is_drift(self) -> bool:
        """Whether the rows have drifted."""
        return self.psi >= self.limit


class Sealed(NamedTuple):
    """Partitions of a source from before an instant, in UTC microseconds, which is as the file states say."""

    until: int
    source: str


class FeatureKeeper(NamedTuple):
    """The definitions that keep a feature of a store that others use, too, and the hash of their definition of it."""

    name: str
    definition: str


@dataclass(frozen=True)
class Books:
    """Quarantine, hold, pins, ignored files, and the description and tags of the latest definition.

    hold: why a person must decide, None where nobody must. by_person: a person holds the feature, so that only
    a person lets it go on; otherwise a refresh may find that the reason has gone. pins: versions that people keep.
    sets: versions that training sets keep, by the set's id. defaults: values for nulls in answers, by column, as
    `described_default` has them. drift: the last judgement of each column that has a rule of drift. sealed: which partitions of the
    source are not listed again. copied: how a copy was left when it was made (see `mlforge.maintenance.copy_checks`), empty in
    a store that is none. keeper: the definitions that keep the feature, None where no others share the store. exports: tables that the
    feature was exported to, by format and place, as in `delta:/tables/spend`.
    """

    quarantine: Mapping[str, Quarantined] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)
    hold: str | None = None
    by_person: bool = False
    pins: tuple[str, ...] = ()
    description: str = ""
    tags: tuple[str, ...] = ()
    sets: Mapping[str, SetPin] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    drift: Mapping[str, DriftNote] = field(default_factory=dict)
    sealed: Sealed | None = None
    copied: str = ""
    keeper: FeatureKeeper | None = None
    exports: Mapping[str, ExportNote] = field(default_factory=dict)

    def kept_at(self, now: int) -> frozenset[str]:
        """The versions that people or training sets keep from every prune at an instant, in UTC microseconds."""
        keeping = (held.versions for held in self.sets.values() if held.keeps_at(now))
        return frozenset(self.pins).union(*keeping)

    def drift_at(self, served: Version) -> dict[str, DriftNote]:
        """The notes of drift that are of the served version or an older one: not of one that was rolled back from."""
        return {c: n for c, n in self.drift.items() if Version.parse(n.version) <= served}

    def to_json(self) -> dict[str, Any]:
        """The document, as `_books.json` holds it."""
        return {
            "quarantine": {
                path: {"reason": q.reason, "memo": q.memo, "since": q.since}
                for path, q in self.quarantine.items()
            },
            "ignored": dict(self.ignored),
            "hold": self.hold,
            "by_person": self.by_person,
            "pins": list(self.pins),
            "description": self.description,
            "tags": list(self.tags),
            **({"sets": self._sets_json()} if self.sets else {}),
            **({"defaults": dict(self.defaults)} if self.defaults else {}),
            **({"sealed": self.sealed._asdict()} if self.sealed else {}),
            **(
                {"drift": {c: asdict(note) for c, note in self.drift.items()}} if self.drift else {}
            ),
            **({"copied": self.copied} if self.copied else {}),
            **({"keeper": self.keeper._asdict()} if self.keeper else {}),
            **(
                {"exports": {table: asdict(note) for table, note in self.exports.items()}}
                if self.exports
                else {}
            ),
        }

    def _sets_json(self) -> dict[str, Any]:
        return {
            set_id: {"versions": list(held.versions), "out": held.out, "at": held.at}
            | ({} if held.until is None else {"until": held.until})
            for set_id, held in self.sets.items()
        }

    def held(self, reason: str, *, by_person: bool = False) -> Self:
        """The same books with another reason for a hold."""
        return replace(self, hold=reason, by_person=by_person)

    def freed(self) -> Self:
        """The same books without a hold."""
        return replace(self, hold=None, by_person=False)

    def kept_by(self, keeper: FeatureKeeper) -> Self:
        """The same books with other definitions as the feature's keeper."""
        return replace(self, keeper=keeper)

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None) -> Self:
        """The books of a document; empty books for None."""
        if document is None:
            return cls()
        return cls(
            quarantine={
                path: Quarantined(path, q["reason"], q["memo"], q["since"])
                for path, q in document["quarantine"].items()
            },
            ignored=document["ignored"],
            hold=document["hold"],
            by_person=document.get("by_person", _is_rollback(document["hold"])),
            pins=tuple(document["pins"]),
            description=document["description"],
            tags=tuple(document["tags"]),
            sets={
                set_id: SetPin(tuple(held["versions"]), held["out"], held["at"], held.get("until"))
                for set_id, held in document.get("sets", {}).items()
            },
            defaults=document.get("defaults", {}),
            drift={c: DriftNote(**note) for c, note in document.get("drift", {}).items()},
            sealed=Sealed(**document["sealed"]) if document.get("sealed") else None,
            copied=document.get("copied", ""),
            keeper=FeatureKeeper(**document["keeper"]) if document.get("keeper") else None,
            exports={t: ExportNote(**note) for t, note in document.get("exports", {}).items()},
        )


def _is_rollback(hold: str | None) -> bool:
    """Whether the hold in books of an older release, which recorded no kind of hold, stems from a rollback."""
    return hold is not None and hold.startswith("rolled back from ")


@dataclass(frozen=True, slots=True)
class Audit:
    """The outcome of holding a version against the raw files; instants are UTC microseconds.

    entities, values: how many were compared. unproven: sampled entities with events in files whose content
    is `gone`. skipped: what was not compared, and why. mismatches, first: how many values or rows are
    wrong, and the first in words. suspects: the entities concerned, which later audits look at again.
    proven: the version and time of the last audit without a mismatch, and how many values it compared.
    """

    version: str
    at: int
    entities: int
    values: int
    unproven: int = 0
    gone: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    mismatches: int = 0
    first: tuple[str, ...] = ()
    suspects: tuple[str, ...] = ()
    all: bool = False
    seconds: float = 0.0
    proven: Proven | None = None

    @property
    def is_proof(self) -> bool:
        """Whether something was compared, and nothing was wrong."""
        return self.values > 0 and not self.mismatches

    def following(self, before: Audit | None) -> Audit:
        """With the last proof: its own, else the one of before."""
        if self.is_proof:
            return replace(self, proven=Proven(self.version, self.at, self.values))
        return replace(self, proven=before.proven if before else None)

    def to_json(self) -> dict[str, Any]:
        """The document, as `_audit.json` holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read the document."""
        fields = {name: document[name] for name in cls.__dataclass_fields__}
        lists = {name: tuple(fields[name]) for name in ("gone", "skipped", "first", "suspects")}
        proven = fields["proven"] and Proven(**fields["proven"])
        return cls(**{**fields, **lists, "proven": proven})


@dataclass(frozen=True, slots=True)
class Proven:
    """A version, when it was last held against the raw files without a mismatch, on how many values."""

    version: str
    at: int
    values: int
