"""Deletion that leaves no copy: a part of the contract of a store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection

from mlforge.core.forgotten import Forgotten


class Erasure(ABC):
    """The methods of a store that leave no copy of what they delete."""

    @abstractmethod
    def erase(self, name: str) -> None:
        """Delete a feature with all that is kept of it; call with the feature's lock held.

        The name is free then, as if it had never been: its next version is the first. Erasing what is gone changes
        nothing. Raises VersionInUse while a reader holds a lease; the feature is served as before then, perhaps
        with fewer versions.
        """

    @abstractmethod
    def scrub(self, name: str, hashes: Collection[str], sorted_by: str | None = None) -> None:
        """Delete partials with every copy of them, in files that others took the place of and in tiles, too.

        Call with the feature's lock held, once no version names them. A reader amid one of the files fails. sorted_by:
        as in `write_partials`. Raises IntegrityError where a file that holds others, too, is damaged.
        """

    @abstractmethod
    def forgotten(self) -> Forgotten:
        """The entities whose rows no partial takes up; IntegrityError if the document cannot be understood."""

    @abstractmethod
    def write_forgotten(self, forgotten: Forgotten) -> None:
        """Forget further entities, durably; none that is forgotten is known again.

        Raises StoreBusy where another process has chosen another salt meanwhile.
        """

    @abstractmethod
    def end_forgetting(self, names: Collection[str], forgotten: Forgotten) -> None:
        """Note that features hold no row of entities any more, unless further entities were forgotten meanwhile."""
