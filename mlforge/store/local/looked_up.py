"""Files of a folder as somebody asks for them: the first few are looked for one by one, for more the folder is listed.

After thousands of drops a folder holds thousands of files, of which the next drop asks for a few.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

_FEW = 128  # to look for so many takes as long as to list some three hundred files


class LookedUp:
    """The files `<name><suffix>` of a folder. What was once found out about a name stays so.

    names: the names that a file may have. listed: all files by name, with whether each is a link.
    """

    def __init__(
        self,
        folder: Path,
        suffix: str,
        names: re.Pattern[str],
        listed: Callable[[], Mapping[str, bool]],
    ) -> None:
        self._folder, self._suffix, self._names = str(folder), suffix, names
        self._list = listed
        self._listed: Mapping[str, bool] | None = None
        self._known: dict[str, bool | None] = {}

    @property
    def all(self) -> Mapping[str, bool]:
        """All files by name, with whether each is a link."""
        if self._listed is None:
            self._listed = self._list()
        return self._listed

    def link(self, name: str) -> bool | None:
        """Whether the file of a name is a link; None where there is no such file."""
        if self._listed is None and name in self._known:
            return self._known[name]
        if self._listed is not None or len(self._known) >= _FEW:
            return self.all.get(name)
        is_link = None
        if self._names.fullmatch(name) is not None:
            is_link = _is_link(f"{self._folder}/{name}{self._suffix}")
        self._known[name] = is_link
        return is_link

    def __contains__(self, name: str) -> bool:
        return self.link(name) is not None


def _is_link(path: str) -> bool | None:
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None
