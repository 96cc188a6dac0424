"""API keys and tokens: who may ask for what, and how often."""

from __future__ import annotations

import math
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import groupby
from typing import Any

from mlforge.serve.access.oidc import Claims, Issuer, Tokens, issuer_of
from mlforge.serve.access.origins import this_machine
from mlforge.serve.http import Scope, header
from mlforge.serve.problems import Refused
from mlforge.serve.values.reads import SERVICES

OPEN = ("/healthz", "/readyz", "/key")
"""The paths that need no key: who asks whether a process lives has none, and a page takes one at `/key`."""
ASSETS = "/assets/"
"""The style and the script of the page, which are the same for everybody."""
COOKIE = "mlforge_key"
"""The cookie in which a browser keeps a key, base64url: it is taken for the page alone, not below `/v1/`."""
_API = "/v1/"
_OF_SOURCES = ("/v1/sources/", "/v1/drops/", "/v1/notices")
_PAGE_OF_SERVICE = "/services/"
_HOLDER, AT_LOOPBACK = "mlforge.key", "mlforge.at_loopback"
_LONGEST_WAIT_S = 86_400
MANY = 10_000
"""From how many allowances on those are left out that are full again."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An entry of the file of keys: a key, or the tokens of an issuer.

    hash: of the key; empty where a token is brought. issuer, claims: whose tokens, and what each must claim.
    services: None for all that the server answers. per_second: None for any number. operates: whether its holder may approve, retry and roll back.
    sources: those that its holder may send rows to, or tell of: names of folders, and addresses in buckets.
    until: the seconds since the epoch at which the token that was brought has to be checked anew; None for a key.
    """

    name: str
    hash: str
    services: frozenset[str] | None = None
    per_second: float | None = None
    operates: bool = False
    sources: frozenset[str] = frozenset()
    issuer: Issuer | None = None
    claims: Mapping[str, Any] = field(default_factory=dict, hash=False)
    until: float | None = None

    def fits(self, claims: Claims) -> bool:
        """Whether a token that claims so is one of these: a claim that is a list may hold what is asked for among others."""
        return all(_holds(claims.get(name), value) for name, value in self.claims.items())

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
    """Requests that may be made at once: as many as a second brings, filled as time goes by. full_at: when it is as one that nobody has used."""

    left: float
    at: float
    full_at: float


class Admission:
    """The check of each request's key; clock: seconds that only go forward."""

    def __init__(self, keys: Collection[ApiKey], clock: Callable[[], float] = time.monotonic):
        self._by_hash = {key.hash: key for key in keys if key.issuer is None}
        self._by_issuer: dict[str, list[ApiKey]] = {}
        for key in keys:
            if key.issuer is not None:
                self._by_issuer.setdefault(key.issuer.url, []).append(key)
        self._tokens = Tokens()
        self._allowances: dict[str, _Allowance] = {}
        self._many = MANY
        self._clock = clock

    async def check(self, scope: Scope) -> None:
        """Raise Refused: 401 without a key or token that is known, 403 for what it does not allow, 429 for too many requests."""
        path: str = scope["path"]
        if path in OPEN or path.startswith(ASSETS):
            return
        brought = _brought(scope)
        key = self.holder(brought)
        if key is None and self._by_issuer:
            key = await self._token_holder(brought)
        scope[_HOLDER] = key
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

    async def _token_holder(self, token: bytes) -> ApiKey | None:
        """The entry of a token, for its own subject; None for what is no token of an issuer here. Refused for one that is not taken."""
        entries = self._by_issuer.get(str(issuer_of(token)), ())
        refusal = None
        for issuer, alike in groupby(entries, lambda entry: entry.issuer):
            assert issuer is not None
            try:
                taken = await self._tokens.taken(token, issuer)
            except Refused as error:  # another entry may be for another audience
                refusal = refusal or error
                continue
            entry = next((entry for entry in alike if entry.fits(taken.claims)), None)
            if entry is not None:
                subject = str(taken.claims["sub"])
                of_subject = sha256(f"{issuer.url} {subject}".encode()).hexdigest()
                name, until = f"{entry.name}/{subject}", taken.until
                return replace(entry, name=name, hash=of_subject, until=until)
            refusal = Refused(403, "not_allowed", "no entry of the file of keys is for such tokens")
        if refusal is not None:
            raise refusal
        return None

    def _takes_one(self, key: str, per_second: float) -> bool:
        now, most = self._clock(), max(per_second, 1.0)
        if key not in self._allowances:
            self._make_room(now)
        allowance = self._allowances.setdefault(key, _Allowance(most, now, now))
        allowance.left = min(most, allowance.left + (now - allowance.at) * per_second)
        allowance.at = now
        is_left = allowance.left >= 1
        allowance.left -= is_left
        allowance.full_at = now + (most - allowance.left) / per_second
        return is_left

    def _make_room(self, now: float) -> None:
        """Leave out full allowances once there are many: tokens have any number of subjects."""
        if len(self._allowances) >= self._many:
            every = self._allowances.items()
            self._allowances = {key: each for key, each in every if each.full_at > now}
            self._many = max(MANY, 2 * len(self._allowances))


def _holds(claim: object, value: object) -> bool:
    """Whether a claim says a value, or each of several."""
    claimed = claim if isinstance(claim, list) else [claim]
    return all(one in claimed for one in (value if isinstance(value, list) else [value]))


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
    check_sends(scope)
    key = holder_of(scope)
    if key is not None and source not in key.sources:
        raise Refused(
            403,
            "not_allowed",
            f"the key of {key.name} may not send rows to {source!r}; its 'sources' in the file of keys name those",
        )


def check_sends(scope: Scope) -> None:
    """Raise Refused for who has no key and is not on the machine of a server without a file of keys, at a loopback address."""
    if holder_of(scope) is None and not (scope.get(AT_LOOPBACK) and this_machine(scope)):
        raise Refused(
            403, "not_allowed", "this server has no file of keys (--keys), so nobody may send rows"
        )


def may_send_of(scope: Scope, address: str) -> bool:
    """Whether the request's key may tell of an object: its `sources` name the bucket, or a prefix above it."""
    key = holder_of(scope)
    return key is None or address.startswith(tuple(f"{source}/" for source in key.sources))


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
