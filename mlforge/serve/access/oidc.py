"""Tokens of OpenID issuers (`Authorization: Bearer` with a JWT): whether an issuer's public keys vouch for one, and what it claims."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
import urllib.request
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from mlforge.core.certificates import trust
from mlforge.core.logs import get_logger
from mlforge.errors import DefinitionError, MissingExtra
from mlforge.serve.access.origins import is_loopback
from mlforge.serve.problems import Refused
from mlforge.serve.threads import LOOKS, in_thread

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")  # fmt: skip
"""The ways to sign that are taken: with a key pair alone, whose public half is no secret."""
LEEWAY_S = 60
"""By how much the clocks of an issuer and of this machine may differ."""
FRESH_S, AGAIN_S = 3_600.0, 10.0
"""After how long an issuer's keys are asked for anew, and tokens are checked anew; how long a failure, or a key that it has not, is left at that."""
_TIMEOUT_S, _MOST_BYTES, _MOST_KNOWN = 5.0, 1 << 20, 10_000
_DISCOVERY = "/.well-known/openid-configuration"
_log = get_logger(__name__)
Claims = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who issues tokens. url: its name, as tokens have it in `iss`. audience: for whom they must be. jwks: where its keys are; None where its own configuration says so.

    ca: a file of authorities, PEM, that may vouch for it; None for those of the system.
    """

    url: str
    audience: str
    jwks: str | None = None
    ca: Path | None = None

    def keys(self) -> list[Any]:
        """The public keys that it signs with now. Raises OSError or ValueError where it does not tell them."""
        jwks = self.jwks
        if jwks is None:
            document = self._document(f"{self.url.rstrip('/')}{_DISCOVERY}")
            if document.get("issuer") != self.url:
                raise ValueError(f"it calls itself {document.get('issuer')!r}")
            jwks = str(document.get("jwks_uri"))
            check_url(jwks, "its jwks_uri")
        return _public_keys(self._document(jwks))

    def context(self) -> ssl.SSLContext:
        """The context of connections to it; DefinitionError where the file of authorities does not serve."""
        if self.ca is None:
            return ssl.create_default_context()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which trusts nobody yet
        trust(context, self.ca)
        return context

    def _document(self, url: str) -> dict[str, Any]:
        https = urllib.request.HTTPSHandler(context=self.context())
        opener = urllib.request.build_opener(https, _NoRedirects())
        try:
            with opener.open(url, timeout=_TIMEOUT_S) as answer:
                document = json.loads(answer.read(_MOST_BYTES))
        except HTTPError as refused:
            refused.close()  # it is an answer, too, with a connection of its own
            raise
        if not isinstance(document, dict):
            raise ValueError(f"{url} holds no object")
        return document


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """No request: keys come from where the file of keys says, and from nowhere else."""


def check_url(url: str, what: str) -> None:
    """Raise DefinitionError unless keys that come from a URL can be believed: over TLS, or from this machine."""
    at = urlsplit(url)
    if at.scheme != "https" and not (at.scheme == "http" and is_loopback(at.hostname)):
        raise DefinitionError(f"{what} is {url!r}; keys come over https:// alone")


def check_extra() -> None:
    """Raise MissingExtra unless tokens can be checked."""
    try:
        import joserfc  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra.of("an issuer of tokens in the file of keys", "oidc") from error


@dataclass
class _Keys:
    """An issuer's keys as last seen, and when that was, in seconds that only go forward; None before."""

    keys: list[Any] = field(default_factory=list)
    at: float | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class Taken:
    """A token that its issuer vouches for. until: the seconds since the epoch at which it has to be checked anew, or is over."""

    claims: Claims
    until: float


class Tokens:
    """The check of tokens; clocks: seconds that only go forward, and seconds since the epoch."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._clock, self._now = clock, now
        self._keys: dict[Issuer, _Keys] = {}
        self._known: dict[tuple[Issuer, bytes], Taken] = {}

    async def taken(self, token: bytes, issuer: Issuer) -> Taken:
        """The token, with what it claims. Refused: 401 for one that its issuer does not vouch for, 503 where the issuer's keys cannot be had."""
        known = self._known.get(place := (issuer, sha256(token).digest()))
        if known is not None and self._now() < known.until:
            return known
        keys = await self._keys_for(issuer, _part(token, 0).get("kid"))
        claims = _verified(token, issuer, keys, int(self._now()))
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        until = min(claims["exp"] + LEEWAY_S, self._now() + FRESH_S)
        self._known[place] = taken = Taken(claims, until)
        return taken

    async def _keys_for(self, issuer: Issuer, kid: object) -> list[Any]:
        """The keys that may have signed: those of that id, or all where the token names none."""
        known = self._keys.setdefault(issuer, _Keys())
        async with known.lock:
            fitting = _of_id(known.keys, kid)
            age_s = None if known.at is None else self._clock() - known.at
            if age_s is None or age_s > (FRESH_S if fitting else AGAIN_S):
                known.at = self._clock()
                try:
                    known.keys = await in_thread(LOOKS, issuer.keys)
                except (OSError, ValueError, HTTPException, DefinitionError) as error:
                    _log.warning(
                        "an issuer's keys are not to be had", issuer=issuer.url, error=error
                    )
                fitting = _of_id(known.keys, kid)
        if not known.keys:
            raise Refused(
                503, "issuer_unavailable", f"the keys of {issuer.url} cannot be had; ask again"
            )
        return fitting


def issuer_of(token: bytes) -> str | None:
    """Who a token says has issued it, which nothing has proven yet; None for what is no token."""
    return _part(token, 1).get("iss") if token.count(b".") == 2 else None


def _part(token: bytes, number: int) -> dict[str, Any]:
    """A part of a token, 0 the header, 1 the claims; empty for what is none."""
    text = token.split(b".")[number]
    try:
        part = json.loads(urlsafe_b64decode(text + b"=" * (-len(text) % 4)))
    except (ValueError, RecursionError):
        return {}
    return part if isinstance(part, dict) else {}


def _of_id(keys: list[Any], kid: object) -> list[Any]:
    return keys if kid is None else [key for key in keys if key.kid == kid]


def _public_keys(document: Mapping[str, Any]) -> list[Any]:
    """The keys of a JWKS that signatures are checked with; those of other kinds are left out."""
    from joserfc.errors import JoseError
    from joserfc.jwk import import_key

    entries, keys = document.get("keys"), []
    for entry in entries if isinstance(entries, list) else ():
        is_public = isinstance(entry, dict) and entry.get("kty") in ("RSA", "EC", "OKP")
        if is_public and entry.get("use", "sig") == "sig":
            try:
                keys.append(import_key(entry))
            except (JoseError, ValueError, TypeError, KeyError):  # a kind of later days
                continue
    if not keys:
        raise ValueError("it has no key that signs")
    return keys


def _verified(token: bytes, issuer: Issuer, keys: list[Any], now: int) -> Claims:
    from joserfc import jwt
    from joserfc.errors import JoseError

    registry = jwt.JWTClaimsRegistry(
        now=now,
        leeway=LEEWAY_S,
        iss={"essential": True, "value": issuer.url},
        aud={"essential": True, "value": issuer.audience},
        exp={"essential": True},
        sub={"essential": True},
    )
    why: Exception | str = "it is signed with a key that its issuer has not"
    for key in keys:
        try:
            claims = jwt.decode(token, key, algorithms=list(ALGORITHMS)).claims
        except (JoseError, ValueError, TypeError) as error:
            why = error
            continue
        try:
            registry.validate(claims)
        except (JoseError, ValueError, TypeError) as error:
            why = error
            break  # no other key would make it another token
        return dict(claims)
    raise Refused(401, "unfit_token", f"the token is not taken: {str(why) or type(why).__name__}")
