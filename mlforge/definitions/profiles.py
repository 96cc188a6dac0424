"""Profiles: where a project's store, online store and root are in development, staging, production, from `mlforge.toml`.

default = "dev"                          # without --profile and MLFORGE_PROFILE; may be left out

[profiles.prod]
store = "/srv/shop/feature_store"
root = "/srv/shop"
online_store = {url = "${MLFORGE_PROD_REDIS}", ttl = 604800}     # or the URL alone
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlforge.definitions.environment import PROFILES_FILE
from mlforge.errors import DefinitionError, did_you_mean

_KEYS, _ONLINE_KEYS = ("store", "online_store", "root"), ("url", "ttl", "prefix", "layout")
_KINDS = ((bool, "true or false"), (int | float, "a number"), (list, "a list"), (dict, "a table"))
_VARIABLE = re.compile(r"\$(?:\$|\{(\w+)\})")


@dataclass(frozen=True, slots=True)
class OnlinePlace:
    """The place of an online store: its URL, and what differs from the definitions' own; None leaves that as it is."""

    url: str = field(repr=False)
    ttl: int | None = None
    prefix: str | None = None
    layout: str | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """The places that a profile gives; None leaves one as the definitions have it.

    file: where it stands, for messages. store, root: paths, relative ones from the file's folder.
    """

    name: str
    file: Path
    store: str | None = None
    root: str | None = None
    online_store: OnlinePlace | None = None


def profile_in(
    folder: Path, name: str | None, environment: Mapping[str, str] = os.environ
) -> Profile | None:
    """The profile of that name in the folder's `mlforge.toml`; by default its `default`, None where it has none.

    `${NAME}` in a value is the environment's value of NAME, `$$` a dollar. Raises DefinitionError for a profile that there is
    not, also where there is no file, for keys and values that are not understood, and for a variable that is not set; an
    online store's URL, which may hold a password, is in no message.
    """
    import tomllib

    file = folder / PROFILES_FILE
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if name is None:
            return None
        raise DefinitionError(
            f"there is no profile {name!r}: no {PROFILES_FILE} lies beside the definitions, in {folder}"
        ) from None
    except (OSError, ValueError) as error:
        raise DefinitionError(f"{file}: cannot be read as TOML: {error}") from error
    _check_keys(document, ("default", "profiles"), f"{file}:")
    profiles, default = _table(document.get("profiles", {}), f"{file}: profiles"), None
    if "default" in document:
        default = _text(document["default"], f"{file}: default")
    chosen = name or default
    if chosen is None:
        return None
    if chosen not in profiles:
        raise DefinitionError(
            f"{file}: there is no profile {chosen!r}; {did_you_mean(chosen, profiles)}"
        )
    return _profile(chosen, file, profiles[chosen], environment)


def _profile(name: str, file: Path, entry: object, environment: Mapping[str, str]) -> Profile:
    where = f"{file}: profiles.{name}"
    table = _table(entry, where)
    _check_keys(table, _KEYS, f"{where}:")
    paths = {
        key: _filled(table[key], f"{where}: {key}", environment)
        for key in ("store", "root")
        if key in table
    }
    online = table.get("online_store")
    place = None if online is None else _online(online, f"{where}: online_store", environment)
    return Profile(name, file, paths.get("store"), paths.get("root"), place)


def _online(value: object, where: str, environment: Mapping[str, str]) -> OnlinePlace:
    table = {"url": value} if isinstance(value, str) else _table(value, where)
    _check_keys(table, _ONLINE_KEYS, f"{where}:")
    if "url" not in table:
        raise DefinitionError(f'{where}: has no url; write url = "${{MLFORGE_REDIS}}"')
    ttl = table.get("ttl")
    prefix, layout = (
        None if key not in table else _filled(table[key], f"{where}: {key}", environment)
        for key in ("prefix", "layout")
    )
    if ttl is not None and (isinstance(ttl, bool) or not isinstance(ttl, int)):
        raise DefinitionError(f"{where}: ttl must be a number of seconds, not {_kind(ttl)}")
    return OnlinePlace(
        _filled(table["url"], f"{where}: url", environment),
        ttl,
        prefix,
        layout,
    )


def _filled(value: object, where: str, environment: Mapping[str, str]) -> str:
    """A text with values of the environment in place of their names."""
    text = _text(value, where)

    def value_of(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "$"
        if not environment.get(name):
            raise DefinitionError(
                f"{where}: needs {name}, which the environment does not have; export it, or write the value itself"
            )
        return environment[name]

    rest = _VARIABLE.sub("", text)
    if "$" in rest:
        raise DefinitionError(
            f"{where}: a '$' begins neither ${{NAME}} nor $$; write $$ for a dollar itself"
        )
    return _VARIABLE.sub(value_of, text)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise DefinitionError(f"{where}: must be a text, not {_kind(value)}")
    return value


def _table(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DefinitionError(f"{where}: must be a table, not {_kind(value)}")
    return value


def _check_keys(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    for key in table:
        if key not in known:
            named = "unknown key" if "://" in key else f"unknown key {key!r}"
            raise DefinitionError(f"{where} {named}; {did_you_mean(key, known)}")


def _kind(value: object) -> str:
    """The kind of a value in words: a value in a wrong place may hold a password."""
    if isinstance(value, str):
        return "a text" if value else "an empty one"
    return next(
        (word for kind, word in _KINDS if isinstance(value, kind)), "a value of another kind"
    )
