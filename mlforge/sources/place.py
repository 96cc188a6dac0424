"""A text of a source: the folder that it starts from, and which files below it are meant."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from mlforge.errors import DefinitionError
from mlforge.sources.glob import EVERYTHING, Parts, Pattern, is_magic

SUFFIXES = (".parquet", ".pq")
HIDDEN = (".", "_")
UNFINISHED = (".tmp", ".part", ".crdownload")
READERS = {
    ".csv": "pl.read_csv",
    ".tsv": "pl.read_csv",
    ".json": "pl.read_json",
    ".jsonl": "pl.read_ndjson",
    ".ndjson": "pl.read_ndjson",
    ".arrow": "pl.read_ipc",
    ".feather": "pl.read_ipc",
    ".ipc": "pl.read_ipc",
    ".avro": "pl.read_avro",
    ".xlsx": "pl.read_excel",
}
_SCHEME = re.compile(r"\s*(?:[A-Za-z][A-Za-z0-9+.-]+:/|(?:delta|iceberg|hudi):)")


@dataclass(frozen=True, slots=True)
class Place:
    """A folder to watch, and which files below it count.

    prefix: precedes the paths of its files, where a source has several places.
    trusts_names: whether files are named explicitly, and so count as parquet whatever their suffix.
    """

    text: str
    root: Path
    pattern: Pattern = field(repr=False)
    prefix: str = ""
    trusts_names: bool = False

    @classmethod
    def of(cls, text: str, base: Path, *, alone: bool = True) -> Place:
        """The place that a feature's source text names; a relative text starts from `base`.

        Text with `*`, `?` or `[` is a glob (`**` spans folders). Text that ends in .parquet or .pq, or that
        is a file now, is one file, or the folder of that name that some tools write. All else is a folder.
        alone: whether the place is the whole source. Raises DefinitionError for a text that can name no file.
        """
        _check(text)
        parts = Path(os.path.expanduser(text) if text.startswith("~/") else text).parts  # noqa: PTH111 - `~name` is a name
        is_folder = text.endswith("/")
        magic = next((i for i, part in enumerate(parts) if is_magic(part)), len(parts))
        trusts = not is_folder and bool(parts and parts[-1].strip("*?"))
        if magic < len(parts):
            pattern = Pattern.glob((*parts[magic:], "**") if is_folder else parts[magic:])
        elif parts and not is_folder and _is_one(parts, base):
            magic -= 1
            pattern = Pattern.at(parts[-1])
        else:
            pattern, trusts = EVERYTHING, False
        for part in parts[magic:]:
            if is_skipped(part):
                raise DefinitionError(
                    f"source {text!r} names no file, for {part!r} is passed over: names that begin "
                    f"with {' or '.join(HIDDEN)} or end in {', '.join(UNFINISHED)} are never read"
                )
        # Lexical, for nothing of it may exist yet.
        root = Path(os.path.abspath(base.joinpath(*parts[:magic])))  # noqa: PTH100
        written = "" if alone else os.path.normpath(os.path.join(*parts[:magic], ""))  # noqa: PTH118
        prefix = "" if written in ("", ".") else f"{written.rstrip('/')}/"
        return cls(text, root, pattern, prefix, trusts)

    def takes(self, parts: Parts) -> bool:
        """Whether a file at this path below the root would count; looks at the names alone."""
        return (
            bool(parts)
            and not any(map(is_skipped, parts))
            and self.pattern.fits(parts)
            and self.is_parquet(parts)
        )

    def is_parquet(self, parts: Parts) -> bool:
        """Whether a file whose path fits the pattern counts as parquet."""
        name = parts[-1].lower()
        if name.endswith(SUFFIXES):
            return True
        named = self.trusts_names and (len(parts) == 1 or not self.pattern.is_one)
        return named and Path(name).suffix not in READERS

    def below(self, path: Path) -> Parts | None:
        """The parts of an absolute path below the root, also by the root's real path; None for one elsewhere."""
        root = self.root
        if not path.is_relative_to(root):
            root = Path(os.path.realpath(root))  # some systems tell events by real paths
        return path.relative_to(root).parts if path.is_relative_to(root) else None


def is_skipped(name: str) -> bool:
    """Whether a part of a path is passed over without a word."""
    return name.startswith(HIDDEN) or name.endswith(UNFINISHED)


def _is_one(parts: Parts, base: Path) -> bool:
    name = parts[-1].lower()
    if name.endswith(SUFFIXES):
        return True
    return Path(name).suffix not in READERS and os.path.isfile(base.joinpath(*parts))  # noqa: PTH113 - False where pathlib raises


def _check(text: str) -> None:
    scheme = _SCHEME.match(text)
    if scheme is not None:
        raise DefinitionError(
            f"source {text!r} begins with {scheme[0].strip()!r}, which mlforge does not read: it reads local "
            "files, and objects of s3://, gs:// and az://; bring the files to one of these (a local folder of that name is written "
            f"{'./' + text!r})"
        )
    if not text or "\0" in text:
        raise DefinitionError(
            f"source {text!r} is not a path; use a local parquet file, a folder, or a glob"
        )
