"""Arguments as users write them: a value of the right kind, or a DefinitionError that says what would work."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable, Mapping, Set
from typing import Any, TypeVar

from mlforge.errors import DefinitionError

T = TypeVar("T")

_TEXTS = (str, bytes, bytearray)
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 80


def shown(value: object) -> str:
    """A value as a message shows it: its repr, shortened, in one line, and its type where the repr does not show it."""
    try:
        text = _repr.repr(value)
    except Exception:  # noqa: BLE001 - a value's repr may raise anything
        text = object.__repr__(value)
    plain = value is None or isinstance(value, (*_TEXTS, bool, int, float, list, tuple, dict, set))
    return text if plain else f"{' '.join(text.split())} ({type(value).__name__})"


def text(value: object, what: str, works: str) -> str:
    """The text; DefinitionError for an empty one and for all else."""
    if not isinstance(value, str) or not value:
        raise DefinitionError(f"{what} must be a text, not {shown(value)}; {works}")
    return value


def path(value: object, what: str, works: str) -> str | os.PathLike[str]:
    """The path, a text or a Path; DefinitionError for an empty text and for all else."""
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        raise DefinitionError(f"{what} must be a path, not {shown(value)}; {works}")
    if not os.fspath(value):
        raise DefinitionError(f"{what} is empty; {works}")
    return value


def texts(values: object, what: str, works: str) -> tuple[str, ...]:
    """The texts of a list, or a single text as a list of one; DefinitionError for any other value.

    A set is sorted, since its order differs between processes.
    """
    if isinstance(values, str):
        return (text(values, what, works),)
    return tuple(text(value, f"each of {what}", works) for value in listed(values, what, works))


def listed(values: object, what: str, works: str) -> tuple[Any, ...]:
    """The values of a list; DefinitionError for a text, a mapping and any other value that is no list.

    A set comes sorted by the text of its values: its own order differs between processes.
    """
    if isinstance(values, (*_TEXTS, Mapping)) or not isinstance(values, Iterable):
        raise DefinitionError(f"{what} must be a list, not {shown(values)}; {works}")
    return tuple(sorted(values, key=str) if isinstance(values, Set) else values)


def instances(values: object, kind: type[T], what: str, works: str) -> tuple[T, ...]:
    """The values of a list, all instances of one type; DefinitionError for any other value."""
    several = listed(values, what, works)
    for value in several:
        if not isinstance(value, kind):
            raise DefinitionError(
                f"each of {what} must be a {kind.__name__}, not {shown(value)}; {works}"
            )
    return several


def named(values: object, what: str, works: str) -> Mapping[str, Any]:
    """A mapping whose keys are texts; DefinitionError for all else."""
    if not isinstance(values, Mapping):
        raise DefinitionError(f"{what} must be a dict, not {shown(values)}; {works}")
    for key in values:
        text(key, f"each key of {what}", works)
    return values


def number(value: object, what: str, works: str, *, whole: bool = False) -> Any:
    """An int, or a float where it need not be whole; DefinitionError for all else, booleans included."""
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise DefinitionError(
            f"{what} must be a {'whole ' if whole else ''}number, not {shown(value)}; {works}"
        )
    return value


def choice(value: object, choices: Iterable[str], what: str) -> str:
    """The value, if it is a choice; DefinitionError that names the choices for all else."""
    if not isinstance(value, str) or value not in choices:
        raise DefinitionError(f"{what}={shown(value)} is unknown; use one of {', '.join(choices)}")
    return value


def flag(value: object, what: str) -> bool:
    """True or False; DefinitionError for all else."""
    if not isinstance(value, bool):
        raise DefinitionError(f"{what} must be True or False, not {shown(value)}")
    return value


def called(value: object, what: str, works: str) -> object:
    """The callable; DefinitionError for all else."""
    if not callable(value):
        raise DefinitionError(f"{what} must be a function, not {shown(value)}; {works}")
    return value


def instance(value: object, kind: type[Any], what: str, works: str) -> object:
    """The instance of a type; DefinitionError for all else."""
    if not isinstance(value, kind):
        name = "text" if kind is str else kind.__name__
        raise DefinitionError(f"{what} must be a {name}, not {shown(value)}; {works}")
    return value
