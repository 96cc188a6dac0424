"""Plugins: objects that installed packages declare under a group of entry points.

`importlib.metadata` tells the same: its import, and the mail parser that it brings, take 30 ms of CPU, a third of
`mlforge --help`. It is asked where packages are imported from something else than folders.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

_DISTRIBUTION = re.compile(r"([^-]+)(?:-.*)?\.(?:dist|egg)-info")
_SEPARATORS = re.compile(r"[-_.]+")


class Plugin(NamedTuple):
    """An object of an installed package, under the name that the package gives it."""

    name: str
    value: str
    """`module:attribute`."""

    def load(self) -> Any:
        """The object; whatever its module raises."""
        module, _, attribute = self.value.partition(":")
        loaded: Any = import_module(module)
        for part in filter(None, attribute.split(".")):
            loaded = getattr(loaded, part)
        return loaded


def plugins(group: str) -> list[Plugin]:
    """The objects that packages on Python's path declare under the group, by name; of a package that is there twice the first's."""
    if any(Path(entry).is_file() for entry in sys.path):
        return sorted(_by_metadata(group))
    return sorted(plugin for each in _declarations(sys.path) for plugin in _in_group(each, group))


def _by_metadata(group: str) -> Iterator[Plugin]:
    from importlib.metadata import entry_points

    for entry in entry_points(group=group):
        yield Plugin(entry.name, entry.value)


def _declarations(path: Iterable[str]) -> Iterator[bytes]:
    """The content of each package's `entry_points.txt`."""
    known: set[str] = set()
    for folder in path:
        for name in _listed(folder or "."):
            match = _DISTRIBUTION.fullmatch(name)
            if match is None:
                continue
            distribution = _SEPARATORS.sub("-", match[1]).lower()
            if distribution not in known:
                known.add(distribution)
                yield _content(f"{folder}/{name}/entry_points.txt")


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names are all that is asked for
    except OSError:
        return []


def _content(file: str) -> bytes:
    try:
        with open(file, "rb") as opened:  # noqa: PTH123 - for hundreds of packages
            return opened.read()
    except OSError:  # it declares nothing
        return b""


def _in_group(declaration: bytes, group: str) -> Iterator[Plugin]:
    heading = f"[{group}]"
    if heading.encode() not in declaration:
        return
    section = ""
    for line in map(str.strip, declaration.decode().splitlines()):
        if line.startswith("["):
            section = line
        elif section == heading and line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield Plugin(name.strip(), value.partition("[")[0].strip())
