"""Files of partials that lie in no pack, in a folder of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlforge.store.local.folder_memo import FolderMemo
from mlforge.store.local.looked_up import LookedUp
from mlforge.store.local.paths import entries_of

HASH = re.compile(r"[0-9A-Za-z]{1,100}")
SUFFIX = ".parquet"


@dataclass(frozen=True, slots=True)
class LooseListing:
    """Loose partials by hash, with whether each is a link, and hidden files, which a killed writer left."""

    loose: Mapping[str, bool]
    hidden: tuple[Path, ...]


class LooseFiles:
    """The folder of loose partials, listed again where it has changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._loose: Mapping[str, bool] = {}
        self._memo = FolderMemo(folder, self._listed)

    def look(self) -> LookedUp:
        """The loose partials that are there now, by hash."""
        return LookedUp(self.folder, SUFFIX, HASH, lambda: self.listed().loose)

    def listed(self) -> LooseListing:
        """All files that are there now."""
        return self._memo.look()

    def _listed(self) -> LooseListing:
        before, loose, hidden = self._loose, dict[str, bool](), []
        for entry in entries_of(self.folder):
            name = entry.name
            hash_ = name[: -len(SUFFIX)]
            if name.endswith(SUFFIX) and (hash_ in before or HASH.fullmatch(hash_)):
                loose[hash_] = entry.is_symlink()
            elif name[0] == ".":
                hidden.append(Path(entry.path))
        self._loose = loose
        return LooseListing(loose, tuple(hidden))
