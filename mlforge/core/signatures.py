"""Calls as users write them: one that does not fit a signature is a DefinitionError that says which would."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import ParamSpec, TypeVar

from mlforge.errors import DefinitionError, did_you_mean

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)


def named_arguments(what: str, works: str = "") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator of a callable: a call that does not fit its signature is a DefinitionError, not Python's TypeError.

    The signature is looked at only after a TypeError, so that a call that fits costs one more call of a function.

    what: how messages name the callable. works: what would work, by default the names of the arguments.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except TypeError:
                problem = _misfit(inspect.signature(function), args, kwargs, works)
                if problem is None:
                    raise
            raise DefinitionError(f"{what}: {problem}")

        return call

    return decorate


def named_methods(kind: C) -> C:
    """A decorator of a class: `named_arguments` for its constructor, and for its own public methods."""
    for name, member in list(vars(kind).items()):
        if name.startswith("_") and name != "__init__":
            continue
        wrapper = type(member) if isinstance(member, (classmethod, staticmethod)) else None
        function = member.__func__ if wrapper is not None else member
        if not inspect.isfunction(function) or getattr(function, "__isabstractmethod__", False):
            continue
        what = kind.__name__ if name == "__init__" else f"{kind.__name__}.{name}"
        checked = named_arguments(what)(function)
        setattr(kind, name, wrapper(checked) if wrapper is not None else checked)
    return kind


def _misfit(
    signature: inspect.Signature,
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    works: str,
) -> str | None:
    """The fault of a call and what would work; None for a call that fits."""
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        names = [name for name in signature.parameters if name not in ("self", "cls")]
        works = works or (f"it takes {', '.join(names)}" if names else "it takes no arguments")
        unknown = next((name for name in kwargs if name not in names), None)
        if unknown is None:
            return f"{error}; {works}"
        return f"unexpected keyword argument {unknown!r}; {did_you_mean(unknown, names)}"
    return None
