"""Functions written down: texts that are equal only for functions that do the same, as far as their code and values tell."""

from __future__ import annotations

import dataclasses
import enum
import logging
import os
import re
from collections import deque
from collections.abc import Callable, Mapping, Set
from operator import itemgetter
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import polars as pl

from mlforge.features.ast_form import normal_form
from mlforge.features.hidden_state import (
    beside,
    copied,
    has_python,
    hides,
    is_generator,
    is_logger,
    is_of_python,
    is_plain,
    is_told,
    is_wrapper,
    owner_of,
    state_of,
)
from mlforge.features.known_texts import KnownTexts, TooDeepError
from mlforge.features.own_classes import members
from mlforge.features.references import Home, module_of, parts, references
from mlforge.features.texts import (
    bound_of,
    buffer_text,
    columns_of,
    content_texts,
    digest,
    expression_text,
    name_of,
    objects_in,
    pack,
    plain_text,
    plan_text,
    shown_text,
)

_FORMAT = "mlforge code 1"
_MOST_NAMES = 8
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
_SETTLED: dict[int, tuple[str, str]] = {}
"""States of objects, by their ids, that functions changed while they ran: the last one, and that of before, which stands for it."""


@dataclasses.dataclass(frozen=True)
class Written:
    """A function written down.

    tells_all: whether the hash tells all that the function does. unseen: the types of objects of which only a name or a repr is
    known, by the name that the code has for them. states: hashes of the states of objects from elsewhere, by such names.
    ids: the ids of these objects.
    """

    hash: str = ""
    tells_all: bool = False
    unseen: Mapping[str, str] = dataclasses.field(default_factory=dict)
    states: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ids: Mapping[str, int] = dataclasses.field(default_factory=dict)


def written(function: Callable[..., object]) -> Written:
    """The function written down, with all that it uses as that is now."""
    scribe = _Scribe(Home.of(function))
    text = scribe.text(function)
    hash_ = digest(pack(_FORMAT, text))
    return Written(hash_, scribe.tells_all, scribe.unseen, scribe.states, scribe.ids)


def settled(before: Written, after: Written) -> tuple[str, ...]:
    """The names of objects whose states a function changed while it ran; from now on the states of before stand for these.

    For other functions that use the objects, too: else each run of one would make the others other code.
    """
    changed = tuple(n for n, state in before.states.items() if after.states.get(n, state) != state)
    for name in changed:
        if before.ids[name] == after.ids[name]:
            _SETTLED[before.ids[name]] = after.states[name], before.states[name]
    return changed


class _Unseen(Exception):
    """A turn in the flow, never seen outside: a state holds something that has no copies."""


class _Scribe:
    """Writes values down so that equal texts mean equal behaviour, as long as it `tells_all`: some values hide what they do."""

    def __init__(self, home: Home) -> None:
        self._home, self.tells_all = home, True
        self.unseen: dict[str, str] = {}
        self.states: dict[str, str] = {}
        self.ids: dict[str, int] = {}
        self._names: list[str] = []
        self._depth = 0  # of states within states
        self._texts = KnownTexts(self._describe, _shortened)

    def text(self, value: object) -> str:
        """A value's text; inside a cycle, how far out it began."""
        if type(value) in _PLAIN:
            return plain_text(value)
        try:
            return self._texts.of(value)
        except TooDeepError:
            if self._depth:
                raise
            self._hide("a value that lies too deep within others,")
            self._texts.cut()
            return pack("too deep")

    def _describe(self, value: Any) -> str:
        kind = type(value)
        if hides(value, self._home):
            self.tells_all = False
            if has_python(value):
                self._note("an expression that calls Python,")
        match value:
            case FunctionType():
                return self._function(value)
            case ModuleType():
                return pack("module", value.__name__)
            case type():
                return self._class(value)
            case enum.Enum():
                return pack("member", self.text(kind), value.name, self.text(value.value))
            case pl.Expr():
                return pack("expression", expression_text(value))
            case pl.LazyFrame():
                return pack("plan", plan_text(value))
            case re.Pattern():
                return pack("pattern", self.text(value.pattern), str(value.flags))
            case logging.Logger():
                return pack("logger", value.name)
            case BuiltinFunctionType():
                owner = owner_of(value)
                bound = [] if owner is None else [self.text(owner)]
                return pack("builtin", str(value.__module__), value.__qualname__, *bound)
            case os._Environ():
                return "environment"
        if (objects := objects_in(value)) is not None:
            return pack(self.text(kind), self.text(objects))
        if hasattr(kind, "__arrow_c_stream__") and (content := content_texts(value)) is not None:
            return pack(self.text(kind), *content, *self._beside_rows(value))
        if inner := parts(value):
            return pack(self.text(kind), *self._items(inner), *self._rest(value, inner))
        if isinstance(value, Mapping):
            factory = self.text(getattr(value, "default_factory", None))
            by_key = sorted(((self.text(k), k) for k in value), key=itemgetter(0))
            pairs = sorted(pack(text, self._named(str(k), value[k])) for text, k in by_key)
            return pack(self.text(kind), factory, *pairs, *self._more(value))
        if isinstance(value, Set):
            return pack(self.text(kind), *self._in_any_order(value), *self._more(value))
        if isinstance(value, (tuple, list, deque)):
            items = [self._named(str(place), item) for place, item in enumerate(value)]
            return pack(self.text(kind), *items, *bound_of(value), *self._more(value))
        if self._home.owns_type(kind):
            text = pack("instance", self.text(kind), *self._items(state_of(value)))
            return text if is_plain(kind, self._home) else self._with_state(text, value)
        return self._foreign(value)

    def _function(self, function: FunctionType) -> str:
        inner = self._items(references(function, self._home))
        if not self._home.owns(module_of(function)):
            return pack("library", module_of(function), function.__code__.co_qualname, *inner)
        return pack(
            "function",
            normal_form(function.__code__, function.__globals__) or self._code(function.__code__),
            self._named("default", function.__defaults__),
            self._named("default", function.__kwdefaults__),
            *inner,
            *self._items(beside(function, {})),
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
        return pack("bytecode", code.co_code.hex(), str(code.co_flags), *names, *constants)

    def _class(self, kind: type) -> str:
        if not self._home.owns_type(kind):
            return name_of(kind)
        fields = (
            (field.name for field in dataclasses.fields(kind))
            if dataclasses.is_dataclass(kind)
            else ()
        )
        bases = map(self.text, kind.__bases__)
        meta = {"metaclass": type(kind)} if self._home.owns_type(type(kind)) else {}
        return pack("class", *bases, *fields, *self._items(members(kind) | meta))

    def _items(self, named: Mapping[str, object]) -> list[str]:
        return [pack(name, self._named(name, value)) for name, value in sorted(named.items())]

    def _named(self, name: str, value: object) -> str:
        self._names.append(name)
        try:
            return self.text(value)
        finally:
            self._names.pop()

    def _in_any_order(self, items: Set[object]) -> list[str]:
        """The texts of a set's items, which come in another order in each process; just their number where these are not to be had."""
        kinds = sorted({kind for kind in map(type, items) if kind not in _PLAIN}, key=name_of)
        texts = self._texts.in_any_order(items, self.text, kinds)
        if texts is None:
            self._hide("a set whose objects lead to one another in too many ways, or lie too deep,")
            return [f"cycles among {len(items)}"]
        return texts

    def _more(self, value: object) -> list[str]:
        """Texts of all that a container holds beside its elements; a container of Python holds nothing that counts."""
        return [] if is_of_python(type(value).__module__) else self._items(state_of(value))

    def _rest(self, value: object, inner: Mapping[str, object]) -> list[str]:
        """Texts of all that a wrapper or a dataclass holds beside its parts."""
        if self._home.owns_type(type(value)) or dataclasses.is_dataclass(value):
            return self._items(beside(value, inner))
        more = "" if is_wrapper(value) else self._with_state("", value)
        return [more] if more else []

    def _beside_rows(self, value: Any) -> list[str]:
        """Of a frame of pandas the labels of its rows, where they are not just numbers, and its attributes, if it has some."""
        index = getattr(value, "index", None)
        if not type(value).__module__.startswith("pandas") or index is None:
            return []
        is_numbers = type(index).__name__ == "RangeIndex" and (index.start, index.step) == (0, 1)
        labels = [] if is_numbers else [self.text(index.tolist())]
        attributes = getattr(value, "attrs", None)
        return [*labels, *([pack("attributes", self.text(attributes))] if attributes else [])]

    def _foreign(self, value: Any) -> str:
        """A logger by its type, an array by its content; anything else by its repr, and by its state where that may tell more."""
        if is_logger(value):
            return pack("logger", name_of(type(value)))
        if is_generator(value):
            # A model does not depend on that which it was fitted by.
            self.tells_all = self.tells_all and self._depth > 0
            return shown_text(value)
        text = self._shown(value)
        return text if is_told(value) else self._with_state(text, value)

    def _shown(self, value: Any) -> str:
        text = buffer_text(value)
        if text is not None:
            return text
        if hasattr(value, "dtype") and callable(getattr(value, "tolist", None)):
            if columns := columns_of(value):
                return pack(name_of(type(value)), str(value.shape), *self._items(columns))
            return pack(name_of(type(value)), str(value.dtype), self.text(value.tolist()))
        return shown_text(value)

    def _with_state(self, text: str, value: Any) -> str:
        """The text of a value with its state, as far as that is seen; alone for one that is found under a name."""
        made = copied(value)
        if made is not None and len(made) == 1:
            return text
        state = self._state(made)
        if state is None:
            self.tells_all = False
            if not is_of_python(type(value).__module__):
                self._note(f"a {name_of(type(value))},")
            return text
        if not self._depth:
            last, stands_for_it = _SETTLED.get(id(value), ("", ""))
            state = stands_for_it if state == last else state
            name = ".".join(self._names)
            self.states[name], self.ids[name] = state, id(value)
        return pack(text, state)

    def _state(self, made: tuple[object, ...] | None) -> str | None:
        """The text of what a copy would be made of; None where some of it has no copies, as what is volatile mostly has none."""
        if made is None:
            if self._depth:
                raise _Unseen
            return None
        self._depth += 1
        try:
            return self.text(made)
        except (_Unseen, TooDeepError, RecursionError) as error:
            if self._depth > 1:
                raise
            if isinstance(error, TooDeepError):
                self._texts.cut()
            return None
        finally:
            self._depth -= 1

    def _hide(self, what: str) -> None:
        """Note a value whose text leaves something out."""
        self.tells_all = False
        self._note(what)

    def _note(self, what: str) -> None:
        """Note a value of which only a name is known, by its name in the code."""
        names = self._names[:_MOST_NAMES] + [".."] * (len(self._names) > _MOST_NAMES)
        self.unseen[".".join(names) or "itself"] = what


def _shortened(text: str) -> str:
    return text if len(text) <= 64 else digest(text)
