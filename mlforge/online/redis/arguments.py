"""Arguments of a RedisStore, checked: each refusal is a DefinitionError that says what works."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mlforge.core.arguments import choice, number, path, shown, text
from mlforge.errors import DefinitionError
from mlforge.online.codec import LAYOUTS

_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


def password_in(file: str | os.PathLike[str], password: str | None) -> str:
    """The password that a file holds, where none is given besides."""
    if password is not None:
        raise DefinitionError("RedisStore: give password or password_file, not both")
    path(file, "RedisStore: password_file", "give the path of a file that holds the password")
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise DefinitionError(
            f"RedisStore: password_file {shown(os.fspath(file))} cannot be read ({_why(error)}); "
            "give the path of a file that holds the password"
        ) from None


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__


def checked_server(
    host: object, port: object, db: object, username: object, password: object
) -> dict[str, object]:
    """The server's address and user; numbers may be texts of digits, as environments hold them."""
    return {
        "host": text(host, "RedisStore: host", 'write host="localhost"'),
        "port": _whole(port, "port", "write port=6379", 65_535),
        "db": _whole(db, "db", "write db=0", 2**31 - 1),
        "username": _text_or_none(username, "username"),
        "password": _text_or_none(password, "password"),
    }


def _whole(value: object, name: str, works: str, greatest: int) -> int:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 10:
        value = int(value)
    whole = number(value, f"RedisStore: {name}", works, whole=True)
    if not 0 <= whole <= greatest:
        raise DefinitionError(f"RedisStore: {name}={shown(whole)} is out of bounds; {works}")
    return int(whole)


def _text_or_none(value: object, name: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise DefinitionError(  # without the value: it may be a password
        f"RedisStore: {name} must be a text, not of type {type(value).__name__}; leave it out for none"
    )


def checked_layout(layout: object) -> str:
    """The name of the layout of rows."""
    return choice(layout, LAYOUTS.values(), "RedisStore: layout")


def checked_prefix(prefix: object) -> str:
    """The prefix of all keys."""
    if not isinstance(prefix, str) or _PREFIX.fullmatch(prefix) is None:
        raise DefinitionError(
            f"RedisStore: prefix={shown(prefix)} is not allowed; use letters, digits and _ . : -"
        )
    return prefix
