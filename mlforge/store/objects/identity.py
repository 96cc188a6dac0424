"""Which store a bucket holds, as the cache knows it; and whether its server has shown that it can hold one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mlforge.core import clock
from mlforge.core.values import to_iso
from mlforge.errors import StoreUnavailable
from mlforge.store.local import io
from mlforge.store.local.identity import understood
from mlforge.store.objects import apart, keys
from mlforge.store.objects.bucket import Bucket
from mlforge.store.objects.document import new_id
from mlforge.store.objects.objects import ConditionFailed, Objects
from mlforge.store.objects.probe import probe
from mlforge.store.records import StoreIdentity

_FILE, _PROBED = "store.json", "probed"


class Identity:
    """The identity of the store below an address, kept in the store's folder of the cache.

    options: the configuration that the bucket was opened with.
    """

    def __init__(
        self, objects: Objects, cache: Path, options: Mapping[str, str] | None = None
    ) -> None:
        self._objects, self._options = objects, options
        self._cache, self._file, self._probed = cache, cache / _FILE, cache / _PROBED

    def read(self) -> StoreIdentity | None:
        """The identity, None where there is none; IntegrityError if it cannot be understood."""
        if not self._file.is_file():
            self._ask("identity")
        return self._kept()

    def establish(self) -> StoreIdentity:
        """The identity, made where there is none. Raises UnsupportedStore for a server that can hold no store."""
        if not self._is_settled:
            self._ask("establish")
        identity = self._kept()
        if identity is None:
            raise StoreUnavailable(
                f"{self._objects.url}: the cache {self._cache} has vanished; try again"
            )
        return identity

    def establish_as(self, identity: StoreIdentity) -> StoreIdentity:
        """As `establish`, in this process; where there is none it is made like another store's."""
        self.ask_here("establish", identity)
        return self.establish()

    def settle(self) -> None:
        """As `establish`, in this process."""
        if not self._is_settled:
            self.ask_here("establish")

    def _ask(self, deed: str) -> None:
        """As `ask_here`; in a process of its own while this one has none of the client's threads, as it may fork."""
        if isinstance(self._objects, Bucket) and not self._objects.is_in_use:
            apart.ask(deed, self._objects.url, self._options, self._cache)
        else:
            self.ask_here(deed)

    def ask_here(self, deed: str, identity: StoreIdentity | None = None) -> None:
        """Fetch the identity into the cache; to `establish` is to make it where there is none, by default a new one."""
        if deed == "establish" and not self._probed.is_file():
            probe(self._objects)
            with io.storage_errors(self._cache):
                self._cache.mkdir(parents=True, exist_ok=True)
                self._probed.touch()
        blob = self._objects.read(keys.IDENTITY)
        if blob is None and deed == "establish":
            chosen = identity or StoreIdentity(new_id(), clock.now())
            document = io.json_text(
                {"id": chosen.id, "created_at": to_iso(chosen.created_at)}
            ).encode()
            with suppress(ConditionFailed):
                self._objects.create(keys.IDENTITY, document)
            blob = self._objects.read(keys.IDENTITY)
        if blob is not None:
            with io.storage_errors(self._cache):
                self._cache.mkdir(parents=True, exist_ok=True)
            with io.replacing(self._file, durable=False) as temporary:
                temporary.write_bytes(blob.data)

    @property
    def _is_settled(self) -> bool:
        return self._probed.is_file() and self._file.is_file()

    def _kept(self) -> StoreIdentity | None:
        text = io.read_bytes(self._file)
        return None if text is None else understood(text, f"{self._objects.url}/{keys.IDENTITY}")
