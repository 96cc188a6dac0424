"""Entities that a store has forgotten: a salted hash of each, so that files which still hold their rows bring none back.

The hash does not tell the value. Whoever may read the store may try values, though: ids that can be counted through
are pseudonyms, not secrets.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

REASON = "forgotten"
"""The reason by which manifests count the rows of a file that are left out."""
_REWRITTEN = "x"  # no digit of a hash


@dataclass(frozen=True, slots=True)
class Entity:
    """A key and the text of its value, as the hash of an online key has it."""

    key: str
    text: str

    def redacted(self, sentence: str) -> str:
        """A sentence in which the value, as a word of its own, is not named any more."""
        return re.sub(rf"(?<!\w){re.escape(self.text)}(?!\w)", "(forgotten)", sentence)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The hashes of forgotten entities by key; `salt` is the store's own, in hex.

    unfinished: features that may hold rows of them still, as their forgetting has not ended.
    """

    salt: str = ""
    hashes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    unfinished: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        """Whether anything was forgotten."""
        return bool(self.hashes)

    def holds(self, key: str, text: str) -> bool:
        """Whether the entity of a key and the text of a value was forgotten."""
        return self._hash(key, text) in self.hashes.get(key, ())

    def with_entities(self, entities: Iterable[Entity]) -> Forgotten:
        """Together with further entities."""
        hashes = {key: set(known) for key, known in self.hashes.items()}
        for entity in entities:
            hashes.setdefault(entity.key, set()).add(self._hash(entity.key, entity.text))
        return replace(self, hashes={key: frozenset(known) for key, known in hashes.items()})

    def begun(self, features: Iterable[str]) -> Forgotten:
        """The same entities, whose rows further features may hold."""
        return replace(self, unfinished=self.unfinished.union(features))

    def ended(self, features: Collection[str], of: Forgotten) -> Forgotten:
        """The same, after the rows of entities have left features; all features are as they were where more was forgotten since."""
        if of.hashes != self.hashes:
            return self
        return replace(self, unfinished=self.unfinished.difference(features))

    def together(self, other: Forgotten) -> Forgotten:
        """The entities that either has forgotten, hashed with the salt of this one, and the features that either has not ended."""
        keys = {**other.hashes, **self.hashes}
        none: frozenset[str] = frozenset()
        hashes = {k: self.hashes.get(k, none) | other.hashes.get(k, none) for k in keys}
        return Forgotten(self.salt, hashes, self.unfinished | other.unfinished)

    def rewritten(self, partial: str) -> str:
        """The hash under which a partial is kept without the rows of these entities."""
        return f"{origin(partial)}{_REWRITTEN}{self._told_with(partial)[:16]}"

    @property
    def digest(self) -> str:
        """A hash over all entities; empty where none was forgotten."""
        return self._told_with("") if self else ""

    def _told_with(self, text: str) -> str:
        marks = sorted(hash_ for known in self.hashes.values() for hash_ in known)
        return hashlib.sha256("\n".join([text, *marks]).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The document."""
        return {
            "salt": self.salt,
            "entities": {key: sorted(known) for key, known in sorted(self.hashes.items())},
            "unfinished": sorted(self.unfinished),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read the document; KeyError, TypeError, ValueError or AttributeError for one of another shape."""
        bytes.fromhex(document["salt"])
        entities = document["entities"].items()
        hashes = {str(key): frozenset(known) for key, known in entities}
        return cls(document["salt"], hashes, frozenset(document.get("unfinished", ())))

    def _hash(self, key: str, text: str) -> str:
        hashed = hashlib.blake2b(key=bytes.fromhex(self.salt), digest_size=20)
        hashed.update(f"{len(key)}:{key},".encode())
        hashed.update(text.encode())
        return hashed.hexdigest()


def origin(partial: str) -> str:
    """The hash that a partial has for its content, whatever was forgotten of it since."""
    return partial.partition(_REWRITTEN)[0]


def is_rewritten(partial: str) -> bool:
    """Whether a partial's hash is that of one which was rewritten without forgotten rows."""
    return _REWRITTEN in partial
