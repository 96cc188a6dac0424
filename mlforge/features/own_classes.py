"""Parts of a class that count for what it does, without what Python or a decorator wrote into it."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
from collections.abc import Iterator, Mapping
from types import (
    BuiltinFunctionType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    WrapperDescriptorType,
)
from typing import Any

from mlforge.features.texts import shown_text

_WRAPPERS = (property, staticmethod, classmethod, functools.cached_property)
_COMPILED = (
    BuiltinFunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    WrapperDescriptorType,
)
_CONSTANTS = (bool, int, float, complex, str, bytes, tuple)
_OF_PYTHON = frozenset(
    {
        "__doc__",
        "__firstlineno__",
        "__match_args__",
        "__module__",
        "__orig_bases__",
        "__parameters__",
    }
)
_OF_PYTHON |= {"__qualname__", "__slots__", "__static_attributes__", "__total__", "__type_params__"}
_OF_LIBRARIES = ("__attrs_", "__callable_proto", "__protocol", "__pydantic_")
_FIELD = {"init": True, "repr": True, "hash": None, "compare": True, "kw_only": False}
_CLASS = {"init": True, "repr": True, "eq": True, "order": False, "unsafe_hash": False}
"""Settings of a field, and of a data class, that are not told where they are the usual ones."""


def members(kind: type) -> dict[str, object]:
    """The definitions in a class's body by name, and what its fields are declared with where the body no longer tells it."""
    generated = dataclasses.is_dataclass(kind) or hasattr(kind, "_fields")
    body = {
        name: value
        for name, value in vars(kind).items()
        if _is_defined(kind, name, value)
        if not (
            generated
            and name.startswith("__")
            and isinstance(value, FunctionType)
            and value.__code__.co_filename == "<string>"
        )
    }
    return body | dict(_declared(kind))


def _is_defined(kind: type, name: str, value: object) -> bool:
    """Whether somebody wrote an entry into a class's body: of the names that are Python's own methods, and what stands for one or is a constant."""
    if isinstance(value, (FunctionType, *_WRAPPERS)) or not (name[0] == "_" == name[-1]):
        return True
    if name in _OF_PYTHON or name.startswith(_OF_LIBRARIES) or issubclass(kind, enum.Enum):
        return False
    return isinstance(value, _CONSTANTS) or _is_decorated(value)


def _is_decorated(value: object) -> bool:
    """Whether a value stands for a method that was decorated: it is called in its place, or gives what is."""
    if isinstance(value, (type, *_COMPILED)):
        return False
    return callable(value) or hasattr(type(value), "__get__")


def _declared(kind: type) -> Iterator[tuple[str, object]]:
    """The declarations of fields that a decorator or a metaclass has taken out of the body: a class with slots has no defaults in it."""
    fields = kind.__dict__.get("__dataclass_fields__")
    for name, field in fields.items() if isinstance(fields, Mapping) else ():
        if field.default is not dataclasses.MISSING and not _is_in_body(kind, name, field.default):
            yield f"{name} by default", field.default
        if field.default_factory is not dataclasses.MISSING:
            yield f"{name} by a call", field.default_factory
        if field.metadata:
            yield f"metadata of {name}", field.metadata
        if settings := _unusual(field, _FIELD):
            yield f"settings of {name}", settings
    if settings := _unusual(kind.__dict__.get("__dataclass_params__"), _CLASS):
        yield "settings", settings
    of_pydantic = kind.__dict__.get("__pydantic_fields__")
    for name, field in of_pydantic.items() if isinstance(of_pydantic, Mapping) else ():
        yield f"declaration of {name}", (shown_text(field), field.default, field.default_factory)


def _is_in_body(kind: type, name: str, default: object) -> bool:
    return inspect.getattr_static(kind, name, None) is default


def _unusual(told: Any, usual: Mapping[str, object]) -> dict[str, object]:
    """The settings that are not the usual ones."""
    return {
        name: value
        for name, each in usual.items()
        if (value := getattr(told, name, each)) is not each and value != each
    }
