"""The note that a store keeps of its renames: those that count, and those that were begun.

A begun one counts from the moment when the feature has moved, which a backend does in one step. So a process that ends midway
leaves a feature with its old name or with its new one, and nobody needs to know which before it looks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from mlforge.core.renames import Rename, Renames
from mlforge.store.local.paths import check_format

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Begun:
    """A rename that is about to happen.

    id: a text by which the feature's document says that it has happened. folder: where that document lies; both are empty in
    a store that moves folders.
    """

    rename: Rename
    id: str = ""
    folder: str = ""

    def to_json(self) -> dict[str, Any]:
        """The value as JSON has it."""
        [rename] = Renames((self.rename,)).to_json()
        return {**rename, **({"id": self.id, "folder": self.folder} if self.id else {})}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` gives; raises as `Renames.from_json`."""
        [rename] = Renames.from_json([document]).done
        return cls(rename, str(document.get("id", "")), str(document.get("folder", "")))


@dataclass(frozen=True)
class RenamesNote:
    """Renames that count, and begun ones, the oldest first."""

    done: Renames = field(default_factory=Renames)
    begun: tuple[Begun, ...] = ()

    def counting(self, has_moved: Callable[[Begun], bool]) -> Renames:
        """The renames that count by now."""
        renames = self.done
        for begun in filter(has_moved, self.begun):
            renames = renames.with_rename(begun.rename)
        return renames

    def concerns(self, name: str) -> bool:
        """Whether a rename of a feature that has, or had, this name is noted, a begun one among them."""
        names = {name for begun in self.begun for name in (begun.rename.before, begun.rename.after)}
        return bool(self.done.of(name)) or name in names

    def to_json(self) -> dict[str, Any]:
        """The document."""
        document: dict[str, Any] = {"format": FORMAT, "renames": self.done.to_json()}
        return document | ({"begun": [b.to_json() for b in self.begun]} if self.begun else {})

    @classmethod
    def from_json(cls, document: Mapping[str, Any], where: object) -> Self:
        """Read the document; UnsupportedStore for a newer mlforge's, else raises as `Renames.from_json`."""
        check_format(document, str(where), FORMAT)
        begun = tuple(map(Begun.from_json, document.get("begun", ())))
        return cls(Renames.from_json(document.get("renames", ())), begun)
