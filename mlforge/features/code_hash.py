"""The hash of a function's code: its own, its helpers' and the constants that they use."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import logging
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import polars as pl

from mlforge.features.ast_form import normal_form
from mlforge.features.hidden_state import hides, is_told, state_of
from mlforge.features.references import Home, members, module_of, parts, references

_FORMAT = "mlforge code 1"
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_ROWS = 10_000


def code_hash(function: Callable[..., object]) -> str:
    """sha256 hex over what a function does, as far as its code tells; the same in every process.

    It covers the normalised syntax of the function and of every helper in its package or beside it,
    reached through globals, closures and defaults, and the values of the constants that these use.
    Layout, comments, docstrings, annotations, the function's own name and decorators do not count;
    installed packages and the standard library count by name alone, whatever their version. Without
    source (exec, an edited file) bytecode stands in, which differs between Python releases. Mutable
    constants count as they are at the call: hash definitions once, when they are loaded.
    """
    return _written(function)[0]


def _written(function: Callable[..., object]) -> tuple[str, bool]:
    """The code hash, and whether it tells all that the function does."""
    scribe = _Scribe(Home.of(function))
    text = scribe.text(function)
    return _digest(_pack(_FORMAT, text)), scribe.tells_all


class CodeState:
    """The code hash of a function in a process where a user may change helpers and constants, as in a notebook.

    The hash is stable between two looks. Changes that the function itself makes during a look, to a
    cache for one, are none.
    """

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function
        self._hash: str | None = None
        self._raw, self._tells_all = "", False

    @property
    def tells_all(self) -> bool:
        """Whether other functions of this hash do the same, as of the last look.

        Not where the code uses a value of which only a name or a repr is known: a fitted model, a bound method of a dict.
        """
        if self._hash is None:
            self.look()
        return self._tells_all

    @property
    def hash(self) -> str:
        """The hash as of the last look; the first call looks."""
        return self.look() if self._hash is None else self._hash

    def look(self) -> str:
        """The code hash, computed again if something changed since the last look."""
        raw, self._tells_all = _written(self._function)
        if self._hash is None or raw != self._raw:
            self._hash = self._raw = raw
        return self._hash

    @contextmanager
    def looked_at(self) -> Iterator[None]:
        """Look, then let the function run, and take all as it is then for unchanged."""
        self.look()
        try:
            yield
        finally:
            self._raw = code_hash(self._function)


class _Scribe:
    """Writes values down so that equal texts mean equal behaviour, as long as it `tells_all`: some values hide what they do."""

    def __init__(self, home: Home) -> None:
        self._home, self.tells_all = home, True
        self._open: dict[int, int] = {}
        self._known: dict[int, tuple[object, str]] = {}  # holds the values: ids must not be reused

    def text(self, value: object) -> str:
        """A value's text; inside a cycle, how far out it began."""
        if type(value) in _PLAIN:
            return f"{type(value).__name__} {value!a}"
        key = id(value)
        if key in self._open:
            return f"cycle {self._open[key]}"
        if key not in self._known:
            self._open[key] = len(self._open)
            text = self._describe(value)
            del self._open[key]
            self._known[key] = (value, text if len(text) <= 64 else _digest(text))
        return self._known[key][1]

    def _describe(self, value: Any) -> str:
        kind = type(value)
        self.tells_all = self.tells_all and not hides(value, self._home)
        match value:
            case FunctionType():
                return self._function(value)
            case ModuleType():
                return _pack("module", value.__name__)
            case type():
                return self._class(value)
            case enum.Enum():
                return _pack("member", self.text(kind), value.name, self.text(value.value))
            case pl.Expr():
                return _pack("expression", _expression(value))
            case pl.LazyFrame():
                return _pack("plan", _plan(value))
            case re.Pattern():
                return _pack("pattern", self.text(value.pattern), str(value.flags))
            case logging.Logger():
                return _pack("logger", value.name)
            case BuiltinFunctionType():
                return _pack("builtin", str(value.__module__), value.__qualname__)
            case os._Environ():
                return "environment"
        if hasattr(kind, "__arrow_c_stream__"):
            return _pack(self.text(kind), *_content(value))
        if inner := parts(value):
            return _pack(self.text(kind), *self._items(inner))
        if isinstance(value, Mapping):
            factory = self.text(getattr(value, "default_factory", None))
            return _pack(
                self.text(kind),
                factory,
                *sorted(_pack(self.text(k), self.text(v)) for k, v in value.items()),
            )
        if isinstance(value, Set):
            return _pack(self.text(kind), *sorted(map(self.text, value)))
        if isinstance(value, (tuple, list, deque)):
            return _pack(self.text(kind), *map(self.text, value))
        if self._home.owns_type(kind):
            return _pack("instance", self.text(kind), *self._items(state_of(value)))
        return self._foreign(value)

    def _function(self, function: FunctionType) -> str:
        inner = self._items(references(function, self._home))
        if not self._home.owns(module_of(function)):
            return _pack("library", module_of(function), function.__code__.co_qualname, *inner)
        return _pack(
            "function",
            normal_form(function.__code__, function.__globals__) or self._code(function.__code__),
            self.text(function.__defaults__),
            self.text(function.__kwdefaults__),
            *inner,
        )

    def _code(self, code: CodeType) -> str:
        constants = [
            self._code(c) if isinstance(c, CodeType) else self.text(c) for c in code.co_consts
        ]
        names = (
            *code.co_names,
            "",
            *code.co_varnames,
            "",
            *code.co_freevars,
            "",
            *code.co_cellvars,
        )
        return _pack("bytecode", code.co_code.hex(), str(code.co_flags), *names, *constants)

    def _class(self, kind: type) -> str:
        if not self._home.owns_type(kind):
            return _name(kind)
        fields = (
            (field.name for field in dataclasses.fields(kind))
            if dataclasses.is_dataclass(kind)
            else ()
        )
        bases = map(self.text, kind.__bases__)
        return _pack("class", *bases, *fields, *self._items(members(kind)))

    def _items(self, named: Mapping[str, object]) -> list[str]:
        return [_pack(name, self.text(value)) for name, value in sorted(named.items())]

    def _foreign(self, value: Any) -> str:
        """An array by its content; anything else by its repr, addresses left out."""
        self.tells_all = self.tells_all and is_told(value)
        try:
            view = memoryview(value)
            if "O" not in view.format:
                return _pack(
                    _name(type(value)), view.format, str(view.shape), _digest(view.tobytes())
                )
        except (TypeError, ValueError):
            pass
        if hasattr(value, "dtype") and callable(getattr(value, "tolist", None)):
            return _pack(_name(type(value)), str(value.dtype), self.text(value.tolist()))
        try:
            return _pack(_name(type(value)), _ADDRESS.sub("", repr(value)))
        except Exception:  # noqa: BLE001 - the repr of a foreign value may raise anything
            return _name(type(value))


def _pack(*texts: str) -> str:
    """Texts joined into one, unambiguously: different lists give different texts."""
    return "".join(f"{len(text)}:{text}," for text in texts)


def _digest(content: str | bytes) -> str:
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _expression(expression: pl.Expr) -> str:
    text = str(expression)
    if "python_udf" in text:  # does not serialise, or not to the same bytes each time
        return text
    try:
        return expression.meta.serialize(format="json")
    except pl.exceptions.PolarsError:
        return text


def _plan(frame: pl.LazyFrame) -> str:
    try:
        return _digest(frame.serialize())
    except pl.exceptions.PolarsError:
        return frame.explain(optimized=False)


def _content(value: Any) -> tuple[str, str]:
    """Schema and rows of anything that speaks Arrow."""
    frame = value if isinstance(value, pl.DataFrame) else pl.DataFrame(value)
    digest = hashlib.sha256()
    for part in frame.iter_slices(_ROWS):
        digest.update(repr(part.rows()).encode("utf-8", "surrogatepass"))
    return repr(frame.schema), digest.hexdigest()
