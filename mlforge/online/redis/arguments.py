"""Arguments of a RedisStore, checked: each refusal is a DefinitionError that says what works."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mlforge.errors import DefinitionError
from mlforge.store import Store

_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


def password_in(file: str | os.PathLike[str], password: str | None) -> str:
    """The password that a file holds, where none is given besides."""
    if password is not None:
        raise DefinitionError("RedisStore: give password or password_file, not both")
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise DefinitionError(
            f"RedisStore: password_file {file} cannot be read ({error})"
        ) from None


def checked_ttl(ttl: object) -> int | None:
    """The TTL in seconds, None for ever."""
    if ttl is None:
        return None
    if isinstance(ttl, bool) or not isinstance(ttl, int) or ttl <= 0:
        raise DefinitionError(
            f"RedisStore: ttl={ttl!r} must be whole seconds above zero, or None for no expiry"
        )
    return ttl


def checked_owner(owner: object) -> Store | str | None:
    """The offline store whose rows readers mean, or its id; None for any."""
    if owner is None or isinstance(owner, Store) or (isinstance(owner, str) and owner):
        return owner
    raise DefinitionError(
        f"RedisStore: owner={owner!r} is not allowed; give the offline store, or its id"
    )


def checked_prefix(prefix: object) -> str:
    """The prefix of all keys."""
    if not isinstance(prefix, str) or _PREFIX.fullmatch(prefix) is None:
        raise DefinitionError(
            f"RedisStore: prefix={prefix!r} is not allowed; use letters, digits and _ . : -"
        )
    return prefix
