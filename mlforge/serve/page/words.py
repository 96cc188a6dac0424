"""Numbers, instants and names as the page writes them. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from mlforge.core import clock
from mlforge.core.text import duration as of_seconds
from mlforge.core.text import plural
from mlforge.core.text import size as of_bytes
from mlforge.core.values import from_iso

NONE = "\N{EN DASH}"
"""The sign for a value that there is none of."""
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.0{6}Z")
_HASH = re.compile(r"\b((?:\w+-)?[0-9a-f]{8})[0-9a-f]{24,}\b")
_VERBS = ("is", "has", "holds", "lacks", "cannot", "was", "does")
_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60))


def number(value: object) -> str:
    """`1,234`, `0.125`, `2026-01-15 10:00:00`: floats with four digits or more, whole instants without their zeros; a dash for nothing, other values as text."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return second(value) if _INSTANT.fullmatch(str(value)) else str(value)
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else _digits(value)


def _digits(value: float) -> str:
    return f"{value:,.2f}" if 100 <= abs(value) < 1e9 else f"{value:.4g}"


def sentence(text: object) -> str:
    """A text as a sentence: a capital at its start unless a name is there, a stop at its end, instants as people write them."""
    words = _INSTANT.sub(lambda found: f"{second(found[0])} UTC", str(text or "").strip())
    is_word = words.partition(" ")[0].strip(",:;.").isalpha()
    begin = words[:1].upper() if is_word else words[:1]
    return begin + words[1:] + ("" if not words or words[-1] in ".!?" else ".")


def brief(text: object) -> str:
    """A text in which no long hash is whole: `http-9aa8cc25….parquet came`."""
    return _HASH.sub("\\1…", str(text or ""))


def of(subject: str, why: str) -> str:
    """A reason that tells of a thing by a verb alone, as `is not parquet`, with its subject; any other as it is."""
    return f"{subject} {why}" if why.partition(" ")[0] in _VERBS else why


def share(value: float | None) -> str:
    """`12.5 %`; a dash for nothing."""
    return NONE if value is None else f"{100 * value:.1f} %"


def duration(milliseconds: float) -> str:
    """`87 ms`, `3.4 s`, `2 min 5 s`."""
    return of_seconds(milliseconds / 1000)


def size(count: int | None) -> str:
    """`12.3 MB`; a dash for nothing."""
    return NONE if count is None else of_bytes(count)


def second(iso: object) -> str:
    """`2026-01-15 10:00:00`; a dash for nothing."""
    return str(iso)[:19].replace("T", " ") if iso else NONE


def ago(iso: str | None) -> str:
    """`just now`, `5 minutes ago`, `in 2 hours`; a dash for nothing."""
    at = from_iso(iso) if iso else None
    if at is None:
        return NONE
    passed = (clock.now() - at) / 1e6
    for unit, length in _UNITS:
        count = round(abs(passed) / length)
        if abs(passed) >= length:
            text = plural(count, unit)
            return f"{text} ago" if passed > 0 else f"in {text}"
    return "just now"


def listed(texts: Sequence[object]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    names = [str(text) for text in texts]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def meaning(column: object) -> str:
    """A column of an entry in words: `sum of amount over 7d where is_refund`; empty where there is nothing to say."""
    aggregation, of = getattr(column, "aggregation", None), getattr(column, "of", None)
    feature = getattr(column, "feature", None)
    if aggregation is None:
        return f"{of} of {feature}" if feature else f"= {of}" if of else ""
    where, offset = getattr(column, "where", None), getattr(column, "offset", None)
    window = getattr(column, "window", None)
    over = "ever" if window == "all" else f"over {window}"
    text = f"{aggregation} of {of} {over}"
    text += f", {offset} before" if offset else ""
    return f"{text}, where {where}" if where else text
