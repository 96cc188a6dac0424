"""References of a function: the names in its code, followed to what they are bound to."""

from __future__ import annotations

import dataclasses
import dis
import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from mlforge.features.ast_form import nested
from mlforge.features.indirect_names import added_to_frames, named_in_queries
from mlforge.features.own_classes import members

_LIBRARY_FOLDERS = {"site-packages", "dist-packages"}
_ANNOTATIONS = {"__annotate__", "<generic parameters>"}


@dataclasses.dataclass(frozen=True, slots=True)
class Home:
    """The package that a function is from: its code counts, that of installed packages does not."""

    package: str

    @classmethod
    def of(cls, function: object) -> Home:
        """The home of a function, partial, bound method or callable object."""
        while isinstance(function, (functools.partial, MethodType)):
            function = (
                function.func if isinstance(function, functools.partial) else function.__func__
            )
        if isinstance(function, FunctionType):
            return cls(_top(module_of(function)))
        return cls(_top(_text(getattr(type(function), "__module__", ""))))

    def owns(self, module: str) -> bool:
        """Whether a module is of this package, or lies beside it rather than being installed."""
        return _top(module) == self.package or not is_installed(_top(module))

    def owns_type(self, kind: type) -> bool:
        """Whether a class was written here, or made by `make_dataclass`, which in Python 3.11 says that it is of `types`."""
        module = _text(kind.__module__)
        return self.owns(module) or (module == "types" and dataclasses.is_dataclass(kind))

    def owns_value(self, value: object) -> bool:
        """Whether a function or a class was written here."""
        if isinstance(value, FunctionType):
            return self.owns(module_of(value))
        return isinstance(value, type) and self.owns_type(value)


def module_of(function: FunctionType) -> str:
    """Where a function's code is from; unlike `__module__` it is not changed by `functools.wraps`."""
    return _text(function.__globals__.get("__name__"))


def references(function: FunctionType, home: Home) -> dict[str, object]:
    """Values that the names in a function's code are bound to: closure cells, globals, imports within.

    Attributes of modules that the home owns are followed (`helpers.clean`). Of foreign code only the
    closure counts: that is where a library's wrapper keeps the function it was given.
    """
    by_name: dict[str, object] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            by_name[name] = cell.cell_contents
        except ValueError:  # not bound yet
            continue
    if not home.owns(module_of(function)):
        return by_name
    names: set[str] = set()
    for code in nested(function.__code__):
        if code.co_name in _ANNOTATIONS:
            continue
        names.update(code.co_names)
        for name in _globals(code) & function.__globals__.keys():
            by_name.setdefault(name, function.__globals__[name])
        for module in _imports(code, function.__globals__, home):
            by_name.setdefault(f"import {module.__name__}", module)
    texts = [*_texts(function), *(value for value in by_name.values() if isinstance(value, str))]
    by_name |= named_in_queries(names, texts, function.__globals__)
    by_name |= added_to_frames(sorted(names), home.owns_value)
    return by_name | _attributes(by_name, sorted(names), home)


def reachable(function: object) -> list[object]:
    """A function and all that it may use of its own package, each thing once.

    Functions and classes from elsewhere, and other values, are among it but not looked into.
    """
    home = Home.of(function)
    by_id: dict[int, object] = {}
    queue = [function]
    while queue:
        value = queue.pop()
        if id(value) in by_id:
            continue
        by_id[id(value)] = value
        if isinstance(value, FunctionType):
            queue.extend(references(value, home).values())
        elif isinstance(value, type):
            queue.extend(members(value).values() if home.owns_type(value) else ())
            queue.extend([type(value)] if home.owns_type(type(value)) else ())
        else:
            queue.extend(parts(value).values())
            queue.extend([type(value)] if home.owns_type(type(value)) else ())
    return list(by_id.values())


def parts(value: object) -> Mapping[str, object]:
    """Parts of a wrapper of functions, or of a dataclass instance; nothing for other values."""
    match value:
        case MethodType():
            return {"function": value.__func__, "self": value.__self__}
        case functools.partial():
            return {"function": value.func, "args": value.args, "keywords": value.keywords}
        case property():
            return {"get": value.fget, "set": value.fset, "delete": value.fdel}
        case staticmethod() | classmethod():
            return {"function": value.__func__}
        case functools.cached_property():
            return {"function": value.func}
        case type():
            return {}
    wrapped = inspect.getattr_static(value, "__wrapped__", None)
    if callable(wrapped):
        return {"function": wrapped}
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    return {}


def _top(module: str) -> str:
    return module.partition(".")[0]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


@functools.lru_cache(maxsize=1024)
def is_installed(package: str) -> bool:
    """Whether a package of this name is Python's own, ours, or one that an installer put there."""
    if package in sys.stdlib_module_names or package == "mlforge":
        return True
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError, AttributeError):  # `__main__`, names made up by exec
        return False
    if spec is None:
        return False
    places = [spec.origin or "", *(spec.submodule_search_locations or ())]
    return any(not _LIBRARY_FOLDERS.isdisjoint(PurePath(place).parts) for place in places)


def _texts(function: FunctionType) -> Iterator[str]:
    """The texts in a function's code, but for its docstring."""
    for code in nested(function.__code__):
        constants = (text for text in code.co_consts if isinstance(text, str))
        yield from (text for text in constants if text != function.__doc__)


def _globals(code: CodeType) -> set[str]:
    return {
        instruction.argval
        for instruction in dis.get_instructions(code)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }


def _imports(code: CodeType, namespace: dict[str, Any], home: Home) -> Iterator[ModuleType]:
    """The home's modules that the code imports when it runs; they are imported now."""
    instructions = [i for i in dis.get_instructions(code) if i.opname != "EXTENDED_ARG"]
    for index, instruction in enumerate(instructions):
        if instruction.opname != "IMPORT_NAME":
            continue
        level, imported_names = (before.argval for before in instructions[index - 2 : index])
        try:
            package = _text(namespace.get("__package__"))
            name = importlib.util.resolve_name("." * level + instruction.argval, package)
            if not home.owns(name):
                continue
            module = importlib.import_module(name)
            if not imported_names:  # `import kit.tools` gives the name of the package
                yield importlib.import_module(_top(name))
            for inner in imported_names or ():
                if not hasattr(module, inner):
                    yield importlib.import_module(f"{name}.{inner}")
        except Exception:  # noqa: BLE001 - a module may raise anything; then calling the function will tell
            continue
        yield module


def _attributes(
    referenced: Mapping[str, object], names: list[str], home: Home
) -> dict[str, object]:
    """`module.name` for every name in the code that a referenced module defines."""
    more: dict[str, object] = {}
    queue = [item for item in sorted(referenced.items()) if isinstance(item[1], ModuleType)]
    seen: set[int] = set()
    while queue:
        path, module = queue.pop(0)
        if id(module) in seen or not home.owns(_text(getattr(module, "__name__", ""))):
            continue
        seen.add(id(module))
        for name in (*names, "__getattr__"):  # which gives the names that it lacks
            if name in vars(module):
                more[f"{path}.{name}"] = value = vars(module)[name]
                if isinstance(value, ModuleType):
                    queue.append((f"{path}.{name}", value))
    return more
