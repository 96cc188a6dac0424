"""The texts of nested dtypes: `List(Int64)`, `Array(Float32, 768)`, `Struct("lat": Float64, "lon": Float64)`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

NULL = "Null"
"""The dtype of what has no value at all, be it a column or a part of one."""


@dataclass(frozen=True, slots=True)
class Nested:
    """A nested dtype: its kind, the dtypes within, by name for a struct's fields, and an array's width.

    kind: List, Array or Struct. A list and an array have one dtype within, named "".
    """

    kind: str
    parts: tuple[tuple[str, str], ...]
    width: int = 0

    @property
    def text(self) -> str:
        """The dtype's text."""
        if self.kind == "Struct":
            within = ", ".join(f"{json.dumps(name)}: {dtype}" for name, dtype in self.parts)
        else:
            within = self.parts[0][1] + (f", {self.width}" if self.kind == "Array" else "")
        return f"{self.kind}({within})"


@lru_cache(maxsize=512)
def nested(text: str) -> Nested | None:
    """The nested dtype of a text, None for a text of any other dtype, or of none."""
    kind, opened, rest = text.partition("(")
    if kind not in ("List", "Array", "Struct") or not opened or not rest.endswith(")"):
        return None
    within = rest[:-1]
    try:
        if kind == "Struct":
            return Nested(kind, tuple(_fields(within)))
        if kind == "List":
            return Nested(kind, (("", within),)) if within and "=" not in within else None
        inner, _, width = within.rpartition(", ")
        return Nested(kind, (("", inner),), int(width)) if inner else None
    except ValueError:
        return None


def holds_nested(target: str, dtype: str) -> bool:
    """Whether a nested dtype has each value of another: it is the same, but for parts that have no value at all."""
    if dtype in (target, NULL):
        return True
    parts = _parts_of_both(target, dtype)
    return parts is not None and all(holds_nested(x, y) for x, y in parts)


def agree(one: str, other: str) -> bool:
    """Whether two dtypes are the same, but for parts that have no value at all in one of them, which had no dtype to lose."""
    if one == other or NULL in (one, other):
        return True
    parts = _parts_of_both(one, other)
    return parts is not None and all(agree(x, y) for x, y in parts)


def filled(dtype: str, other: str) -> str:
    """A dtype, with another's where it has no value at all; as it is where the two do not agree."""
    if dtype == NULL:
        return other
    own = nested(dtype)
    if own is None or not agree(dtype, other) or other == NULL:
        return dtype
    parts = [filled(x, y) for x, y in _parts_of_both(dtype, other) or ()]
    names = (name for name, _ in own.parts)
    return replace(own, parts=tuple(zip(names, parts, strict=True))).text


def _parts_of_both(one: str, other: str) -> list[tuple[str, str]] | None:
    """The dtypes within two nested ones, side by side; None where these are not of one kind, width and fields."""
    outer, inner = nested(one), nested(other)
    if outer is None or inner is None or _frame(outer) != _frame(inner):
        return None
    return [(x, y) for (_, x), (_, y) in zip(outer.parts, inner.parts, strict=True)]


def _frame(dtype: Nested) -> tuple[str, int, tuple[str, ...]]:
    return dtype.kind, dtype.width, tuple(name for name, _ in dtype.parts)


def _fields(text: str) -> Iterator[tuple[str, str]]:
    """The names and dtypes of a struct's fields. Raises ValueError for other text."""
    decode, place = json.JSONDecoder().raw_decode, 0
    while place < len(text):
        name, place = decode(text, place)
        if not isinstance(name, str) or text[place : place + 2] != ": ":
            raise ValueError(text)
        start = place + 2
        place = _end_of_dtype(text, start)
        yield name, text[start:place]
        place += 2  # the comma and the blank


def _end_of_dtype(text: str, start: int) -> int:
    """Where a dtype ends that begins there: at a comma outside of parentheses and names, or with the text."""
    depth, place = 0, start
    while place < len(text):
        letter = text[place]
        if letter == '"':
            _, place = json.JSONDecoder().raw_decode(text, place)
            continue
        if letter == "," and depth == 0:
            break
        depth += (letter == "(") - (letter == ")")
        place += 1
    return place
