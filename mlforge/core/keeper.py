"""Keepers: the definitions that keep a feature or a service of a store in which several have some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from mlforge.core.renames import Renames

FEATURE, SERVICE = "feature", "service"


@dataclass(frozen=True, slots=True)
class Keeper:
    """The definitions at work: their name, and whether other definitions have features in the same store."""

    name: str = ""
    shares: bool = False


ALONE = Keeper()


@dataclass(frozen=True, slots=True)
class DefinedNames:
    """The features and services that definitions had when they last said so."""

    features: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()

    def has(self, kind: str, name: str, renames: Renames) -> bool:
        """Whether a feature or a service is among them; a renamed feature under either name."""
        if kind == SERVICE:
            return name in self.services
        return name in {renames.now(feature) for feature in self.features}

    def to_json(self) -> dict[str, Any]:
        """The value as JSON has it."""
        return {"features": sorted(self.features), "services": sorted(self.services)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` gives; TypeError or KeyError for anything else."""
        return cls(*(frozenset(map(str, document[kind])) for kind in ("features", "services")))


class NamesStore(Protocol):
    """The part of a store that knows which names its definitions have."""

    def defined_names(self, definitions: str) -> DefinedNames | None:
        """The names that definitions had when they last said so, None where they never did."""

    def renames(self) -> Renames:
        """The renames of features."""


def has_let_go(store: NamesStore, keeper: str, kind: str, name: str) -> bool:
    """Whether the definitions that keep a feature or a service have said since that they no longer name it."""
    names = store.defined_names(keeper)
    return names is not None and not names.has(kind, name, store.renames())


def kept_by_others(store: NamesStore, kept: str, keeper: Keeper, kind: str, name: str) -> bool:
    """Whether definitions other than these keep a feature or a service, and name it still.

    kept: the name of those that keep it, empty where nobody does.
    """
    return kept not in ("", keeper.name) and not has_let_go(store, kept, kind, name)


def next_keeper(kept: str, keeper: Keeper) -> str:
    """The name of the definitions that keep what these may keep: theirs where the store is shared, or they keep it already."""
    return keeper.name if keeper.shares or kept == keeper.name else ""


def refusal(kind: str, name: str, kept: str, keeper: Keeper) -> str:
    """The words for a feature or a service that other definitions keep, and what would work."""
    return (
        f"the definitions {kept!r}, which share this store, have another {kind} {name!r}: name the one of "
        f"{keeper.name!r} otherwise, take it out of one of them, or hand it over: 'mlforge adopt {name}', with these "
        f"definitions, keeps it here from then on. If these are those definitions, say Definitions(name={kept!r}), or take over all "
        f"that they keep: 'mlforge adopt --from {kept}'"
    )
