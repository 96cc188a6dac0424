"""What a feature's folder notes beside its versions: mutable, never part of a version's meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A source file that is left out, and why; `memo` names the content and code that were tried."""

    path: str
    reason: str
    memo: str
    since: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A source file's last known state: while its stat is the same, so is its content.

    `good` is the hash of the last content that was not set aside, empty if there was none.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    hash: str
    rows: int = 0
    good: str = ""


@dataclass(frozen=True)
class Books:
    """Quarantine, hold, pins, ignored files, and the description and tags of the latest definition."""

    quarantine: Mapping[str, Quarantined] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)
    hold: str | None = None
    pins: tuple[str, ...] = ()
    description: str = ""
    tags: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The document, as `_books.json` holds it."""
        return {
            "quarantine": {
                path: {"reason": q.reason, "memo": q.memo, "since": q.since}
                for path, q in self.quarantine.items()
            },
            "ignored": dict(self.ignored),
            "hold": self.hold,
            "pins": list(self.pins),
            "description": self.description,
            "tags": list(self.tags),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None) -> Self:
        """Read the document; None gives empty books."""
        if document is None:
            return cls()
        return cls(
            quarantine={
                path: Quarantined(path, q["reason"], q["memo"], q["since"])
                for path, q in document["quarantine"].items()
            },
            ignored=document["ignored"],
            hold=document["hold"],
            pins=tuple(document["pins"]),
            description=document["description"],
            tags=tuple(document["tags"]),
        )


def seen_to_json(seen: Mapping[str, Seen]) -> dict[str, Any]:
    """The document of `_sources.json`."""
    return {
        p: [s.size, s.mtime_ns, s.ctime_ns, s.inode, s.hash, s.rows, s.good]
        for p, s in seen.items()
    }


def seen_from_json(document: Mapping[str, Any] | None) -> dict[str, Seen]:
    """Read what `seen_to_json` wrote; None gives nothing."""
    return {path: Seen(*fields) for path, fields in (document or {}).items()}
