"""The file of API keys, which holds their hashes alone.


[checkout-app]
sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
services = ["checkout_fraud"]     # these alone; without it, all that the server answers
per_second = 200                  # requests, by each process; without it, any number
sources = ["purchases"]           # may send rows to these, and tell of changes below "s3://shop/drops"; without it, to none
operates = true                   # may also approve, retry and roll back; without it, only read

[staff]                           # instead of a key: whoever brings a token (JWT) of an OpenID issuer
issuer = "https://login.example"
audience = "features"
claims = { groups = "risk" }      # tokens with these alone; a list holds several values
jwks = "https://..."              # where the issuer's keys are; without it, its own configuration says so
ca = "issuer-ca.pem"              # authorities that vouch for it; without it, those of the system
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from mlforge.core.arguments import shown
from mlforge.errors import DefinitionError, did_you_mean
from mlforge.serve.access.keys import ApiKey
from mlforge.serve.access.oidc import Issuer, check_extra, check_url

_FIELDS = ("sha256", "services", "per_second", "operates", "sources")
_OF_TOKENS = ("issuer", "audience", "claims", "jwks", "ca")
_HASH = re.compile(r"[0-9a-f]{64}")


def keys_in(file: Path, services: Mapping[str, object]) -> list[ApiKey]:
    """The keys of a file. Raises DefinitionError for one that cannot be read or understood; it quotes no hash.

    services: those that there are, by name.
    """
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DefinitionError(f"the keys in {file} cannot be read: {error}") from None
    keys = [
        _key(f"{file}: [{name}]", name, entry, services, file.parent)
        for name, entry in document.items()
    ]
    if not keys:
        raise DefinitionError(f"{file} holds no key; nobody could ask for anything")
    hashes = [key.hash for key in keys if key.issuer is None]
    if len(set(hashes)) < len(hashes):
        raise DefinitionError(f"{file}: two entries have one key; give each a key of its own")
    return keys


def _key(what: str, name: str, entry: Any, services: Mapping[str, object], folder: Path) -> ApiKey:
    if not isinstance(entry, dict):
        raise DefinitionError(f'{what} is no table; write sha256 = "..." below [{name}]')
    fields = _FIELDS if "issuer" not in entry else (*_OF_TOKENS, *_FIELDS[1:])
    for field in entry:
        if field not in fields:
            raise DefinitionError(f"{what} has no field {field!r}; {did_you_mean(field, fields)}")
    issuer = _issuer(what, entry, folder) if "issuer" in entry else None
    hashed = "" if issuer is not None else _hash(what, entry)
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
        issuer,
        _claims(what, entry),
    )


def _hash(what: str, entry: Mapping[str, Any]) -> str:
    hashed = entry.get("sha256")
    if not isinstance(hashed, str) or not _HASH.fullmatch(hashed):
        raise DefinitionError(
            f"{what}: sha256 must be the key's hash, 64 hex digits in small letters"
        )
    if hashed == sha256(b"").hexdigest():
        raise DefinitionError(f"{what}: sha256 is that of no key at all, which everybody has")
    return hashed


def _issuer(what: str, entry: Mapping[str, Any], folder: Path) -> Issuer:
    """The issuer whose tokens an entry takes. folder: that a relative path of `ca` starts from."""
    texts = {name: entry.get(name) for name in ("issuer", "audience", "jwks", "ca")}
    for name, value in texts.items():
        if value is None and name in ("jwks", "ca"):
            continue
        if not isinstance(value, str) or not value.strip():
            raise DefinitionError(f"{what}: {name} is {shown(value)}; write a text")
    check_url(str(texts["issuer"]), f"{what}: issuer")
    if texts["jwks"] is not None:
        check_url(texts["jwks"], f"{what}: jwks")
    check_extra()
    ca = None if texts["ca"] is None else folder / texts["ca"]
    issuer = Issuer(str(texts["issuer"]), str(texts["audience"]), texts["jwks"], ca)
    issuer.context()  # a file that does not serve ends the start
    return issuer


def _claims(what: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    claims = entry.get("claims", {})
    if not isinstance(claims, dict):
        raise DefinitionError(
            f'{what}: claims is {shown(claims)}; write a table, as in {{ groups = "risk" }}'
        )
    for name, value in claims.items():
        if value == []:
            raise DefinitionError(
                f"{what}: claims asks for nothing of {name!r}, which every token has; write the values, or leave it out"
            )
    return claims


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
