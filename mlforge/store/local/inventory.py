"""The stored partials of a feature at one instant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass

from mlforge.core.manifest import Partial
from mlforge.store.local.live_packs import Packed
from mlforge.store.local.looked_up import LookedUp


@dataclass(frozen=True)
class Inventory:
    """Stored partials at one instant: the loose ones, as they are asked for, and those in live packs."""

    loose: LookedUp
    packed: Packed

    @property
    def hashes(self) -> Set[str]:
        """The hashes of all of them."""
        return StoredHashes(self)

    def lone(self, partial: Partial) -> bool:
        """Whether a partial is stored in a file of its own and in no pack."""
        return partial.hash not in self.packed.places and self.loose.link(partial.hash) is False


@dataclass(frozen=True, eq=False)
class StoredHashes(Set[str]):
    """The hashes of an inventory, which are not gathered: there may be very many, of which few are asked for."""

    inventory: Inventory

    @classmethod
    def _from_iterable(cls, hashes: Iterable[str]) -> Set[str]:  # type: ignore[override]
        return set(hashes)

    def __contains__(self, hash_: object) -> bool:
        inventory = self.inventory
        return hash_ in inventory.packed.places or inventory.loose.link(str(hash_)) is False

    def __iter__(self) -> Iterator[str]:
        packed = self.inventory.packed.places
        yield from packed
        for hash_, is_link in self.inventory.loose.all.items():
            if not is_link and hash_ not in packed:
                yield hash_

    def __len__(self) -> int:
        return sum(1 for _ in self)
