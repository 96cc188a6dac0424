"""The stored partials of a feature at one instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlforge.core.manifest import Partial
from mlforge.store.local.live_packs import Packed


@dataclass(frozen=True)
class Inventory:
    """Stored partials at one instant: the loose ones, with whether each is a link, and those in live packs."""

    loose: Mapping[str, bool]
    packed: Packed

    def lone(self, partial: Partial) -> bool:
        """Whether a partial is stored in a file of its own and in no pack."""
        return self.loose.get(partial.hash) is False and partial.hash not in self.packed.places
