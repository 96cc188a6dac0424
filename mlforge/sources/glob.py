"""Globs over the parts of a path, without a look at the disk."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass

Parts = tuple[str, ...]

_ANY = re.compile(r".+", re.DOTALL)
_MAGIC = re.compile(r"[*?\[]")


def is_magic(part: str) -> bool:
    """Whether the part of a path is a glob."""
    return _MAGIC.search(part) is not None


@dataclass(frozen=True, slots=True)
class Pattern:
    """Patterns of a path below some folder, part by part; None is `**`, any number of parts."""

    parts: tuple[re.Pattern[str] | None, ...]

    @classmethod
    def glob(cls, parts: Parts) -> Pattern:
        """`*`, `?` and `[` within a part, `**` over parts; a final `**` matches all files below."""
        patterns = [None if part == "**" else re.compile(fnmatch.translate(part)) for part in parts]
        return cls((*patterns, _ANY)) if patterns[-1] is None else cls(tuple(patterns))

    @classmethod
    def at(cls, name: str) -> Pattern:
        """The thing of that name, and all that is below it."""
        return cls((re.compile(re.escape(name)), None))

    @property
    def is_one(self) -> bool:
        """Whether it names one thing, as `at` does."""
        return self.parts[-1] is None

    def fits(self, path: Parts) -> bool:
        """Whether it matches the whole path."""
        return bool(path) if self is EVERYTHING else _fits(path, self.parts)

    def leads(self, path: Parts) -> bool:
        """Whether it may match something below the path."""
        if self is EVERYTHING:
            return True
        for name, part in zip(path, self.parts, strict=False):
            if part is None:
                return True
            if part.fullmatch(name) is None:
                return False
        return len(path) < len(self.parts)


EVERYTHING = Pattern((None, _ANY))


def _fits(path: Parts, parts: tuple[re.Pattern[str] | None, ...]) -> bool:
    if not parts:
        return not path
    head, remaining = parts[0], parts[1:]
    if head is None:
        return any(_fits(path[start:], remaining) for start in range(len(path) + 1))
    return bool(path) and head.fullmatch(path[0]) is not None and _fits(path[1:], remaining)
