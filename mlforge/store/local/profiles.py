"""Profiles of the parts of a feature's tables: a cache, each named after the hash of the part's bytes.

    _profiles/<hash>.json

They may be deleted at any time; a document that is damaged is as good as none.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlforge.errors import IntegrityError, StoreError
from mlforge.store.local import io
from mlforge.store.local.paths import entries_of, no_link

_SUFFIX = ".json"
_HASH = re.compile(r"[0-9a-f]{8,128}")
_STALE_S = 3600.0  # a hidden file that is older has no writer any more


@dataclass(frozen=True)
class ProfileFolder:
    """The profiles in a feature's folder."""

    home: Path

    @property
    def folder(self) -> Path:
        """The folder of profiles; StoreError if it is a link."""
        return no_link(self.home / "_profiles")

    def read(self, hashes: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        """The documents that are there, by the parts' hashes."""
        documents: dict[str, Mapping[str, Any]] = {}
        for hash_ in hashes:
            path = no_link(self._path(hash_))
            with suppress(IntegrityError):
                document = io.read_json(path)
                if isinstance(document, dict):
                    documents[hash_] = document
        return documents

    def write(self, documents: Mapping[str, Mapping[str, Any]]) -> None:
        """Write each document whole or not at all."""
        with io.storage_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
            for hash_, document in documents.items():
                io.write_json(no_link(self._path(hash_)), document, durable=False)

    def keep_only(self, hashes: Collection[str]) -> None:
        """Delete the profiles of all other parts, and what a killed writer left half-written."""
        for entry in entries_of(self.folder):
            path = Path(entry.path)
            with io.storage_errors(path), suppress(FileNotFoundError):
                is_unwanted = (
                    time.time() - path.lstat().st_mtime > _STALE_S
                    if entry.name.startswith(".")
                    else path.stem not in hashes
                )
                if is_unwanted:
                    path.unlink()

    def _path(self, hash_: str) -> Path:
        if _HASH.fullmatch(hash_) is None:
            raise StoreError(f"{hash_!r} is not the hash of a part")
        return self.folder / f"{hash_}{_SUFFIX}"
