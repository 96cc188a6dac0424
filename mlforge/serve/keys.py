"""API keys: who may ask for what, and how often, from a file that holds the keys' hashes alone.

[checkout-app]
sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
services = ["checkout_fraud"]     # these alone; without it, all that the server answers
per_second = 200                  # requests, by each process; without it, any number
sources = ["purchases"]           # may send rows to these; without it, to none
operates = true                   # may also approve, retry and roll back; without it, only read
"""

from __future__ import annotations

import math
import re
import time
import tomllib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from mlforge.core.arguments import shown
from mlforge.errors import DefinitionError, did_you_mean
from mlforge.serve.http import Scope, header
from mlforge.serve.origins import this_machine
from mlforge.serve.problems import Refused
from mlforge.serve.reads import SERVICES

OPEN = ("/healthz", "/readyz", "/key")
"""The paths that need no key: who asks whether a process lives has none, and a page takes one at `/key`."""
ASSETS = "/assets/"
"""The style and the script of the page, which are the same for everybody."""
COOKIE = "mlforge_key"
"""The cookie in which a browser keeps a key, base64url: it is taken for the page alone, not below `/v1/`."""
_API = "/v1/"
_OF_SOURCES = ("/v1/sources/", "/v1/drops/")
_PAGE_OF_SERVICE = "/services/"
_HOLDER, AT_LOOPBACK = "mlforge.key", "mlforge.at_loopback"
_FIELDS = ("sha256", "services", "per_second", "operates", "sources")
_LONGEST_WAIT_S = 86_400
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as the file has it.

    services: None for all that the server answers. per_second: None for any number. operates: whether its holder may approve, retry and roll back.
    sources: those that its holder may send rows to.
    """

    name: str
    hash: str
    services: frozenset[str] | None = None
    per_second: float | None = None
    operates: bool = False
    sources: frozenset[str] = frozenset()

    def allows(self, path: str) -> bool:
        """Whether the key's holder may ask for a path."""
        if path.startswith(_OF_SOURCES):
            return bool(self.sources)  # `check_writes` looks at which
        if self.services is None:
            return True
        below = next((p for p in (SERVICES, _PAGE_OF_SERVICE) if path.startswith(p)), None)
        return below is not None and path.removeprefix(below).partition("@")[0] in self.services


@dataclass
class _Allowance:
    """Requests that may be made at once: as many as a second brings, filled as time goes by."""

    left: float
    at: float


class Admission:
    """The check of each request's key; clock: seconds that only go forward."""

    def __init__(self, keys: Collection[ApiKey], clock: Callable[[], float] = time.monotonic):
        self._by_hash = {key.hash: key for key in keys}
        self._allowances: dict[str, _Allowance] = {}
        self._clock = clock

    def check(self, scope: Scope) -> None:
        """Raise Refused: 401 without a key that is known, 403 for what it does not allow, 429 for too many requests."""
        path: str = scope["path"]
        if path in OPEN or path.startswith(ASSETS):
            return
        key = scope[_HOLDER] = self.holder(_brought(scope))
        if key is None:
            raise Refused(
                401, "unknown_key", "send a key that this server knows: 'Authorization: Bearer KEY'"
            )
        if not key.allows(path):
            raise Refused(403, "not_allowed", f"the key of {key.name} does not allow {path}")
        if key.per_second is not None and not self._takes_one(key.hash, key.per_second):
            wait = (1 - self._allowances[key.hash].left) / key.per_second
            raise Refused(
                429,
                "too_many_requests",
                f"{key.name} may ask {key.per_second:g} times a second",
                retry_after=str(min(math.ceil(wait), _LONGEST_WAIT_S)),
            )

    def holder(self, key: bytes) -> ApiKey | None:
        """The entry of a key; None where the file has none."""
        return self._by_hash.get(sha256(key).hexdigest())

    def _takes_one(self, key: str, per_second: float) -> bool:
        now, most = self._clock(), max(per_second, 1.0)
        allowance = self._allowances.setdefault(key, _Allowance(most, now))
        allowance.left = min(most, allowance.left + (now - allowance.at) * per_second)
        allowance.at = now
        if allowance.left < 1:
            return False
        allowance.left -= 1
        return True


def holder_of(scope: Scope) -> ApiKey | None:
    """The key that a request was admitted with; None where the server asks for none."""
    key: ApiKey | None = scope.get(_HOLDER)
    return key


def check_operates(scope: Scope) -> None:
    """Raise Refused unless the request's key may approve, retry and roll back; without a file of keys nobody may."""
    key = holder_of(scope)
    if key is None:
        raise Refused(
            403,
            "not_allowed",
            "this server has no file of keys (--keys), so nobody may do this here",
        )
    if not key.operates:
        raise Refused(
            403,
            "not_allowed",
            f"the key of {key.name} may only read; 'operates = true' lets it do this",
        )


def check_writes(scope: Scope, source: str) -> None:
    """Raise Refused unless the request's key may send rows to a source.

    Without a file of keys this machine alone may, where the server listens at loopback.
    """
    key = holder_of(scope)
    if key is None:
        if scope.get(AT_LOOPBACK) and this_machine(scope):
            return
        raise Refused(
            403, "not_allowed", "this server has no file of keys (--keys), so nobody may send rows"
        )
    if source not in key.sources:
        raise Refused(
            403,
            "not_allowed",
            f"the key of {key.name} may not send rows to {source!r}; its 'sources' in the file of keys name those",
        )


def cookie_of(key: str) -> str:
    """A key as a cookie holds it."""
    return urlsafe_b64encode(key.encode()).decode().rstrip("=")


def _brought(scope: Scope) -> bytes:
    """The key that a request brings; empty where it brings none."""
    scheme, _, key = header(scope, b"authorization").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip().encode("latin-1")
    return b"" if scope["path"].startswith(_API) else _kept(header(scope, b"cookie"))


def _kept(cookies: str) -> bytes:
    """The key in a request's cookies."""
    for cookie in cookies.split(";"):
        name, _, value = cookie.strip().partition("=")
        if name == COOKIE:
            try:
                return urlsafe_b64decode(value + "=" * (-len(value) % 4))
            except ValueError:
                return b""
    return b""


def keys_in(file: Path, services: Mapping[str, object]) -> list[ApiKey]:
    """The keys of a file. Raises DefinitionError for one that cannot be read or understood; it quotes no hash.

    services: those that there are, by name.
    """
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DefinitionError(f"the keys in {file} cannot be read: {error}") from None
    keys = [_key(f"{file}: [{name}]", name, entry, services) for name, entry in document.items()]
    if not keys:
        raise DefinitionError(f"{file} holds no key; nobody could ask for anything")
    if len({key.hash for key in keys}) < len(keys):
        raise DefinitionError(f"{file}: two entries have one key; give each a key of its own")
    return keys


def _key(what: str, name: str, entry: Any, services: Mapping[str, object]) -> ApiKey:
    if not isinstance(entry, dict):
        raise DefinitionError(f'{what} is no table; write sha256 = "..." below [{name}]')
    for field in entry:
        if field not in _FIELDS:
            raise DefinitionError(f"{what} has no field {field!r}; {did_you_mean(field, _FIELDS)}")
    hashed = entry.get("sha256")
    if not isinstance(hashed, str) or not _HASH.fullmatch(hashed):
        raise DefinitionError(
            f"{what}: sha256 must be the key's hash, 64 hex digits in small letters"
        )
    if hashed == sha256(b"").hexdigest():
        raise DefinitionError(f"{what}: sha256 is that of no key at all, which everybody has")
    operates = entry.get("operates", False)
    if not isinstance(operates, bool):
        raise DefinitionError(f"{what}: operates is {shown(operates)}; write true or false")
    sources = _names(what, entry, "sources") or []
    return ApiKey(
        name,
        hashed,
        _services(what, entry, services),
        _rate(what, entry),
        operates,
        frozenset(source.strip("/") for source in sources),
    )


def _services(
    what: str, entry: Mapping[str, Any], services: Mapping[str, object]
) -> frozenset[str] | None:
    names = _names(what, entry, "services")
    if names is None:
        return None
    for name in names:
        if name not in services:
            raise DefinitionError(f"{what}: no service {name!r}; {did_you_mean(name, services)}")
    return frozenset(names)


def _names(what: str, entry: Mapping[str, Any], field: str) -> list[str] | None:
    """The names that a field lists; None where the entry has no such field."""
    names = entry.get(field)
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DefinitionError(f"{what}: {field} is {shown(names)}; write a list of names")
    return names


def _rate(what: str, entry: Mapping[str, Any]) -> float | None:
    rate = entry.get("per_second")
    if rate is None:
        return None
    if type(rate) not in (int, float) or not 0 < rate < math.inf:
        raise DefinitionError(f"{what}: per_second is {shown(rate)}; write a number above 0")
    return float(rate)
