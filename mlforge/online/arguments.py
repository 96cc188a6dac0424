"""Arguments that all online stores share, checked: each refusal is a DefinitionError that says what works; and how they are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlforge.core.arguments import shown
from mlforge.errors import DefinitionError
from mlforge.store import Store

if TYPE_CHECKING:
    from mlforge.online.base import OnlineStore

_LONGEST_TTL = 10**12
"""Seconds: some 30,000 years. A server refuses expiries whose milliseconds do not fit 64 bits."""


def checked_ttl(ttl: object, what: str) -> int | None:
    """The TTL in seconds, None for ever. what: the name of the store's class."""
    if ttl is None:
        return None
    if isinstance(ttl, bool) or not isinstance(ttl, int) or ttl <= 0:
        raise DefinitionError(
            f"{what}: ttl={shown(ttl)} must be whole seconds above zero, or None for no expiry"
        )
    if ttl > _LONGEST_TTL:
        raise DefinitionError(
            f"{what}: ttl={shown(ttl)} is longer than a server keeps; use None for no expiry"
        )
    return ttl


def checked_owner(owner: object, what: str) -> Store | str | None:
    """The offline store whose rows readers mean, or its id; None for any. what: the name of the store's class."""
    if owner is None or isinstance(owner, Store) or (isinstance(owner, str) and owner):
        return owner
    raise DefinitionError(
        f"{what}: owner={shown(owner)} is not allowed; give the offline store, or its id"
    )


def described_by(store: OnlineStore, options_hash: str) -> str:
    """The store's repr, its owner if it was named, and a hash of the options of its connection."""
    owner = store.owner if isinstance(store.owner, str) else None
    return f"{store!r} owner={owner} {options_hash}"
