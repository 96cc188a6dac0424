"""Lossless widening of dtypes: which dtype holds another's values, and the least that holds several.

Files of one source may store a column in several dtypes: Int32 and Int64, Float32 and Float64, decimals of
more or fewer digits. The column then takes the least dtype that holds all of them, whatever their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlforge.core.nested import holds_nested, nested
from mlforge.core.schema import DIGITS, decimal_digits

EXACT_IN_FLOAT = 2**53
"""Up to this size each integer is a Float64 of its own."""
_NARROW = " within 2^53"

_SMALLEST = ("Int8", "UInt8")
_SMALL = (*_SMALLEST, "Int16", "UInt16")
_MIDDLE = (*_SMALL, "Int32", "UInt32")
_LONG = ("Int64", "UInt64")
_NARROWED = tuple(dtype + _NARROW for dtype in _LONG)
# From the least to the greatest: each with what it holds besides itself.
_HOLDS: dict[str, tuple[str, ...]] = {
    "Int8": (),
    "UInt8": (),
    "Int16": _SMALLEST,
    "UInt16": ("UInt8",),
    "Int32": _SMALL,
    "UInt32": ("UInt8", "UInt16"),
    "UInt64": ("UInt8", "UInt16", "UInt32", _NARROWED[1]),
    "Int64": (*_MIDDLE, *_NARROWED),
    "Float32": _SMALL,
    "Float64": (*_MIDDLE, *_NARROWED, "Float32"),
}
_RANK = {dtype: rank for rank, dtype in enumerate(_HOLDS)}
_INTEGER_DIGITS = {
    **dict.fromkeys(_SMALLEST, 3),
    **dict.fromkeys(("Int16", "UInt16"), 5),
    **dict.fromkeys(("Int32", "UInt32"), 10),
    **dict.fromkeys(_NARROWED, 16),
    "Int64": 19,
    "UInt64": 20,
}


@dataclass(frozen=True, slots=True)
class Backing:
    """The number of files, and of rows in them, that have a column in a dtype."""

    files: int = 0
    rows: int = 0

    def __add__(self, other: Backing) -> Backing:
        return Backing(self.files + other.files, self.rows + other.rows)


def narrowed(dtype: str, *, narrow: bool) -> str:
    """The dtype of a column, marked if its values are long integers that a Float64 holds exactly."""
    return dtype + _NARROW if narrow and dtype in _LONG else dtype


def plain(dtype: str) -> str:
    """The dtype proper, without the mark of `narrowed`."""
    return dtype.removesuffix(_NARROW)


def casts(present: str, target: str) -> bool:
    """Whether a column may be cast from one dtype to the other, given that its values fit."""
    return holds(target, narrowed(present, narrow=True))


def holds(target: str, dtype: str) -> bool:
    """Whether each value of a dtype, perhaps a narrowed one, is one of the target's."""
    if target == plain(dtype):
        return True
    if nested(target) is not None:
        return holds_nested(target, dtype)
    digits = decimal_digits(target)
    if digits is None:
        return dtype in _HOLDS.get(target, ())
    before, after = _digits(dtype)
    return 0 <= before <= digits[0] and after <= digits[1]


def settle(backing: Mapping[str, Backing]) -> str:
    """The dtype that a column takes: the least that holds all dtypes, else one that leaves some of them out.

    If none holds all, the dtype that suits most files wins, then most rows, then the
    smallest text. backing: by dtype, perhaps narrowed; not empty.
    """
    if len(backing) == 1:
        return plain(*backing)
    least: dict[frozenset[str], str] = {}
    for candidate in sorted(_candidates(backing), key=_rank, reverse=True):
        held = frozenset(dtype for dtype in backing if holds(candidate, dtype))
        least[held] = candidate

    def weight(held: frozenset[str]) -> tuple[int, int, str]:
        support = sum((backing[dtype] for dtype in held), Backing())
        return -support.files, -support.rows, least[held]

    return least[min((held for held in least if held), key=weight)]


def _candidates(dtypes: Iterable[str]) -> set[str]:
    names = list(dtypes)
    candidates = {plain(dtype) for dtype in names}
    if any(dtype in _HOLDS for dtype in candidates):
        candidates |= _HOLDS.keys()
    if any(decimal_digits(dtype) for dtype in names):
        digits = [(before, after) for before, after in map(_digits, names) if before >= 0]
        candidates |= {
            f"Decimal({before + after}, {after})"
            for before, _ in digits
            for _, after in digits
            if 0 < before + after <= DIGITS
        }
    return candidates


def _digits(dtype: str) -> tuple[int, int]:
    """The digits before and after the point; before is negative for what is no exact number."""
    return decimal_digits(dtype) or (_INTEGER_DIGITS.get(dtype, -1), 0)


def _rank(dtype: str) -> tuple[int, int, str]:
    digits = decimal_digits(dtype)
    return _RANK.get(dtype, len(_RANK)), sum(digits) if digits else 0, dtype
