"""`_metadata/store.json`: which store this is, wherever its folder is moved or restored to."""

from __future__ import annotations

import json
import os
import re
import uuid
from pathlib import Path

from mlforge.core import clock
from mlforge.core.values import from_iso, to_iso
from mlforge.errors import IntegrityError, UnsupportedStore
from mlforge.store.local import io
from mlforge.store.local.file_memo import FileMemo
from mlforge.store.local.paths import check_format, is_link, no_link
from mlforge.store.records import StoreIdentity

FILE = "store.json"
_FORMAT = 1
_ID = re.compile(r"[0-9A-Za-z_-]{8,64}")


class IdentityFile:
    """The identity of the store in a folder, read once while the file stays as it is."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._folder, self._file = str(store / "_metadata"), str(store / "_metadata" / FILE)
        self._memo = FileMemo[StoreIdentity]()

    @property
    def path(self) -> Path:
        """Where it lies."""
        return no_link(self._store / "_metadata") / FILE

    def read(self) -> StoreIdentity | None:
        """The identity, None where there is no such file.

        Raises IntegrityError if the file is damaged, UnsupportedStore if a newer mlforge wrote it.
        """
        # Each read of values online asks for it: paths are dear.
        if os.path.islink(self._folder):  # noqa: PTH114 - by its text
            raise is_link(Path(self._folder))
        return self._memo.of(self._file, self._parsed)

    def _parsed(self) -> StoreIdentity | None:
        path = self.path
        text = io.read_bytes(path)
        return None if text is None else understood(text, path)

    def make(self, identity: StoreIdentity | None = None) -> StoreIdentity:
        """Write an identity, by default a new one, unless somebody was faster; returns the one that counts."""
        path = self.path
        with io.storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        chosen = identity or StoreIdentity(uuid.uuid4().hex, clock.now())
        document = {"id": chosen.id, "created_at": to_iso(chosen.created_at)}
        io.create(path, io.json_text(document).encode())
        kept = self.read()
        if kept is None:
            raise IntegrityError(f"{path} has vanished just after it was written; try again")
        return kept


def check_identity(store: object, kept: StoreIdentity, other: StoreIdentity) -> StoreIdentity:
    """The identity that is kept, which is the other's; UnsupportedStore where it is not."""
    if kept.id != other.id:
        raise UnsupportedStore(
            f"{store!r} is a store of its own, and no copy of the other: copy to a place where there is none"
        )
    return kept


def understood(text: bytes, path: Path | str) -> StoreIdentity:
    """The identity in a document; raises as `IdentityFile.read`."""
    try:
        document = json.loads(text.decode())
        check_format(document, path, _FORMAT)
        identity, created_at = document["id"], from_iso(document["created_at"])
        if not isinstance(identity, str) or not _ID.fullmatch(identity) or created_at is None:
            raise ValueError("it has no valid id and created_at")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise IntegrityError(
            f"{path} is damaged ({type(error).__name__}: {error}); restore it from a backup, or delete it: "
            "the store then gets a new identity with its next write, and what other stores and Redis "
            "know it by changes"
        ) from error
    return StoreIdentity(identity, created_at)
