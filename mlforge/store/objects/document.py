"""`<feature>/_latest.json`: all that changes of a feature, in one object, so that each change is one compare-and-swap."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple, Self

from mlforge.core.values import Version, is_name
from mlforge.store.local.io import json_text
from mlforge.store.local.paths import check_format, well_formed
from mlforge.store.records import Books
from mlforge.store.transaction import Pointer

_FORMAT, _FORMAT_RENAMED = 1, 2
"""A release that knows no renames would take a feature's folder for its name: it leaves the second format alone."""
RECENT = 32
"""How many versions a document remembers one by one."""


def new_id() -> str:
    """A text that no other process makes."""
    return uuid.uuid4().hex


class Renaming(NamedTuple):
    """A rename that a process has in mind: the name that the feature would get, and a text that no other rename has."""

    to: str
    id: str


@dataclass(frozen=True)
class FeatureDocument:
    """A feature as its bucket has it.

    born: a new text for each life of the name; an erased feature's files are never taken for its successor's.
    nonce: a new text for each change, by which a writer that got no answer knows its own.
    highest: the highest version that was ever served. recent: the latest versions, with the generation at which each
    was first served. removing: versions that are gone for readers, with the instant, in UTC microseconds; their objects
    follow. erasing: when the whole feature began to go, None where it does not. swept: how often objects that no version
    names were deleted. sweeping: when that began, None where it does not go on. forgotten: how many changes of what the store has
    forgotten its writers know, None where nobody has looked yet. scrubbed: how often all was deleted at once that no version
    names. called: the feature's name, empty where it is that of its folder. renamed: the id of the rename that gave it. renaming: the
    one that may come next. lies_in: the folder of the feature that has the name of this one; such a document tells nothing else, and
    counts as long as the feature there says the same.
    """

    born: str = field(default_factory=new_id)
    nonce: str = field(default_factory=new_id)
    pointer: Pointer | None = None
    highest: Version | None = None
    recent: Mapping[Version, int] = field(default_factory=dict)
    books: Books = field(default_factory=Books)
    removing: Mapping[Version, int] = field(default_factory=dict)
    erasing: int | None = None
    swept: int = 0
    sweeping: int | None = None
    forgotten: int | None = None
    scrubbed: int = 0
    called: str = ""
    renamed: str = ""
    renaming: Renaming | None = None
    lies_in: str = ""

    def is_of(self, name: str, folder: str) -> bool:
        """Whether it is that of the feature which has this name by now; folder: where the document lies."""
        return not self.lies_in and (self.called or folder) == name

    def ended(self, **changes: Any) -> Self:
        """A document of the same life and name that says nothing else of the feature but the changes."""
        kept = {"born": self.born, "called": self.called, "renamed": self.renamed}
        return type(self)(**(kept | changes))

    @property
    def generation(self) -> int:
        """The generation of the pointer, 0 before the first version."""
        return self.pointer.generation if self.pointer else 0

    def is_alive(self, born: str) -> bool:
        """Whether this is the life of the name that began with `born`, and it does not end."""
        return self.born == born and self.erasing is None

    def serving(self, version: Version, at_least: int = 0) -> Self:
        """The document with this version served, at the next generation, or at a later one: `at_least`."""
        pointer = Pointer(version, max(self.generation + 1, at_least))
        highest = max(version, self.highest) if self.highest else version
        recent = {version: pointer.generation, **self.recent}
        if version in self.recent:
            recent[version] = self.recent[version]
        newest = sorted(recent.items(), reverse=True)
        return replace(self, pointer=pointer, highest=highest, recent=dict(islice(newest, RECENT)))

    def past(self, left: Iterable[Version], now: int) -> Self:
        """The document without versions below the served one that publishers have left unserved: their objects go."""
        assert self.pointer is not None
        passed = {v: now for v in left if v < self.pointer.version and self.is_unserved(v)}
        return replace(self, removing={**passed, **self.removing}) if passed else self

    def is_there(self, version: Version) -> bool:
        """Whether a version that has a manifest is there for readers: it was served, and does not go."""
        is_going = self.erasing is not None or version in self.removing
        return not is_going and not self.is_unserved(version)

    def is_unserved(self, version: Version) -> bool:
        """Whether a version that has a manifest was never served, as far as the recent ones tell."""
        if version in self.recent or version in self.removing:
            return False
        return not self.recent or version > min(self.recent)

    def to_bytes(self) -> bytes:
        """The object."""
        pointer = self.pointer
        return json_text(
            {
                "format": _FORMAT_RENAMED if self.called or self.lies_in else _FORMAT,
                "version": str(pointer.version) if pointer else None,
                "generation": self.generation,
                "highest": str(self.highest) if self.highest else None,
                "recent": {str(version): n for version, n in self.recent.items()},
                "removing": {str(version): when for version, when in self.removing.items()},
                **({"erasing": self.erasing} if self.erasing is not None else {}),
                **({"swept": self.swept} if self.swept else {}),
                **({"sweeping": self.sweeping} if self.sweeping is not None else {}),
                **({"forgotten": self.forgotten} if self.forgotten is not None else {}),
                **({"scrubbed": self.scrubbed} if self.scrubbed else {}),
                **({"called": self.called} if self.called else {}),
                **({"renamed": self.renamed} if self.renamed else {}),
                **({"renaming": self.renaming._asdict()} if self.renaming else {}),
                **({"lies_in": self.lies_in} if self.lies_in else {}),
                "books": self.books.to_json(),
                "born": self.born,
                "nonce": self.nonce,
            }
        ).encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Self:
        """The document of an object; IntegrityError for a damaged one, UnsupportedStore for a newer mlforge's."""
        with well_formed(where):
            document: Any = json.loads(data)
            if document.get("format") != _FORMAT_RENAMED:
                check_format(document, where, _FORMAT)
            served, highest = document["version"], document["highest"]
            return cls(
                born=_id(document["born"]),
                nonce=_id(document["nonce"]),
                pointer=Pointer(Version.parse(served), int(document["generation"]))
                if served
                else None,
                highest=Version.parse(highest) if highest else None,
                recent={Version.parse(v): int(n) for v, n in document["recent"].items()},
                removing={Version.parse(v): int(n) for v, n in document["removing"].items()},
                erasing=document.get("erasing"),
                swept=int(document.get("swept", 0)),
                sweeping=document.get("sweeping"),
                forgotten=document.get("forgotten"),
                scrubbed=int(document.get("scrubbed", 0)),
                called=_name_or_none(document.get("called", "")),
                renamed=str(document.get("renamed", "")),
                renaming=Renaming(**document["renaming"]) if document.get("renaming") else None,
                lies_in=_name_or_none(document.get("lies_in", "")),
                books=Books.from_json(document["books"]),
            )


def _name_or_none(text: Any) -> str:
    """A name that may become part of a key, or an empty text."""
    if text and not is_name(text):
        raise ValueError(f"{text!r} is no name")
    return text or ""


def _id(text: Any) -> str:
    """A text that may become part of a path."""
    if not isinstance(text, str) or not text.isalnum() or len(text) > 64:
        raise ValueError(f"{text!r} is no id")
    return text
