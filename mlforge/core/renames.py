"""Renames of a store's features: which name a feature has now, and which names it had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

from mlforge.core.manifest import Manifest
from mlforge.core.values import FEATURE, from_iso, to_iso


@dataclass(frozen=True, slots=True)
class Rename:
    """A feature's name before and after, and when it changed, in UTC microseconds."""

    before: str
    after: str
    at: int


@dataclass(frozen=True)
class Renames:
    """All renames of a store's features, the oldest first."""

    done: tuple[Rename, ...] = ()

    def __bool__(self) -> bool:
        """Whether any feature was renamed."""
        return bool(self.done)

    @cached_property
    def names(self) -> Mapping[str, str]:
        """The present name of each former one; a feature that has an old name again is not among them."""
        names: dict[str, str] = {}
        for rename in self.done:
            for former, now in names.items():
                names[former] = rename.after if now == rename.before else now
            names[rename.before] = rename.after
            names.pop(rename.after, None)
        return names

    def now(self, name: str) -> str:
        """The present name of the feature that has, or had, this one."""
        return self.names.get(name, name)

    def formerly(self, name: str) -> tuple[str, ...]:
        """The former names of the feature that has this one, the latest first."""
        former = [rename.before for rename in reversed(self.done)]
        return tuple(dict.fromkeys(n for n in former if self.names.get(n) == name))

    def of(self, name: str) -> tuple[Rename, ...]:
        """The renames that a feature went through, the oldest first."""
        names = {name, *self.formerly(name)}
        return tuple(rename for rename in self.done if rename.before in names)

    def sentence(self, name: str) -> str | None:
        """The words for what became of a former name; None for any other name."""
        now = self.names.get(name)
        if now is None:
            return None
        at = max(rename.at for rename in self.done if rename.before == name)
        return f"{name} was renamed to {now} at {to_iso(at)}"

    def with_rename(self, rename: Rename) -> Self:
        """Together with one more."""
        return replace(self, done=(*self.done, rename))

    def without(self, name: str) -> Self:
        """Without those of a feature that is no more: its former names are free."""
        gone = set(self.of(name))
        return replace(self, done=tuple(rename for rename in self.done if rename not in gone))

    def manifest(self, manifest: Manifest) -> Manifest:
        """The manifest with the present name of the feature that it was made from."""
        upstream = manifest.upstream if self.done else None
        if upstream is None or upstream[0] not in self.names:
            return manifest
        name, version = upstream
        return replace(manifest, source=f"{FEATURE}{self.now(name)}@{version}")

    def to_json(self) -> list[dict[str, str | None]]:
        """The value as JSON has it."""
        return [
            {"before": each.before, "after": each.after, "at": to_iso(each.at)}
            for each in self.done
        ]

    @classmethod
    def from_json(cls, documents: Iterable[Mapping[str, Any]]) -> Self:
        """Read what `to_json` gives; ValueError, TypeError or KeyError for anything else."""
        return cls(tuple(map(_rename, documents)))


def _rename(document: Mapping[str, Any]) -> Rename:
    before, after, at = document["before"], document["after"], from_iso(document["at"])
    if not isinstance(before, str) or not isinstance(after, str) or at is None:
        raise ValueError("a rename has a name before, one after, and an instant")
    return Rename(before, after, at)
