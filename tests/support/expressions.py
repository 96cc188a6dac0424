"""Random expressions of each kind, and rows to evaluate them on."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl

from mlforge.core.expression.kinds import (
    BOOL,
    DATE,
    DURATION,
    FLOAT,
    INSTANT_KIND,
    INT,
    TEXT,
    list_of,
)

BIG = (1 << 63) - 1
NAMES = {
    INT: ["i", "j", "small", "unsigned"],
    FLOAT: ["f", "g", "single", "money"],
    BOOL: ["yes", "no"],
    TEXT: ["city", "word"],
    INSTANT_KIND: ["t", "seen", "made"],
    DATE: ["day", "born"],
    list_of(INT): ["numbers"],
    list_of(TEXT): ["words"],
}
SCALARS = (INT, FLOAT, BOOL, TEXT, INSTANT_KIND, DATE)
_TEXTS = ["", "a", "ab", "Ab", "é", "日本", "a|b", "b\x00", "🙂a"]
_FIRST, _LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)
Draw = Callable[[random.Random], Any]


def _or_null(draw: Draw, share: float = 0.15) -> Draw:
    return lambda r: None if r.random() < share else draw(r)


def _float(r: random.Random) -> float:
    edge = [
        0.0,
        -0.0,
        0.5,
        1.5,
        2.5,
        -1.0,
        1e308,
        -1e308,
        5e-324,
        float("nan"),
        float("inf"),
        2.675,
    ]
    return r.choice(edge) if r.random() < 0.4 else r.choice([r.uniform(-9, 9), r.gauss(0, 1e6)])


def _int(r: random.Random) -> int:
    edge = [0, 1, -1, 2, 3, 7, BIG, -BIG - 1, 1 << 53, (1 << 53) + 1]
    return r.choice(edge) if r.random() < 0.6 else r.randint(-1000, 1000)


def _instant(r: random.Random) -> datetime:
    near = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=r.randint(0, 10**12))
    return r.choice([_FIRST, _LAST]) if r.random() < 0.1 else near


def _day(r: random.Random) -> date:
    return r.choice([date(2026, 1, r.randint(1, 28)), date(1, 1, 1), date(9999, 12, 31)])


_COLUMNS: dict[str, tuple[Any, Draw]] = {
    "i": (pl.Int64, _int),
    "j": (pl.Int64, _int),
    "small": (pl.Int8, lambda r: r.randint(-128, 127)),
    "unsigned": (pl.UInt64, lambda r: r.choice([0, 5, 2 * BIG + 1, BIG])),
    "f": (pl.Float64, _float),
    "g": (pl.Float64, _float),
    "single": (pl.Float32, lambda r: r.choice([0.1, 2.5, -3.75, 1e30])),
    "money": (pl.Decimal(20, 4), lambda r: Decimal(r.randint(-(10**9), 10**9)).scaleb(-4)),
    "yes": (pl.Boolean, lambda r: r.random() < 0.5),
    "no": (pl.Boolean, lambda r: r.random() < 0.5),
    "city": (pl.String, lambda r: r.choice(_TEXTS)),
    "word": (pl.String, lambda r: r.choice(_TEXTS)),
    "t": (pl.Datetime("us", "UTC"), _instant),
    "seen": (pl.Datetime("us", "UTC"), _instant),
    "made": (pl.Datetime("us", "UTC"), _instant),
    "day": (pl.Date, _day),
    "born": (pl.Date, _day),
    "numbers": (pl.List(pl.Int32), lambda r: [r.randint(-2, 3) for _ in range(r.randint(0, 4))]),
    "words": (pl.List(pl.String), lambda r: [r.choice(_TEXTS) for _ in range(r.randint(0, 3))]),
}


def rows(r: random.Random, count: int) -> pl.DataFrame:
    """Rows of every column, with nulls, extremes and non-finite floats."""
    return pl.DataFrame(
        {
            name: pl.Series([_or_null(draw)(r) for _ in range(count)], dtype=dtype)
            for name, (dtype, draw) in _COLUMNS.items()
        }
    )


class Writer:
    """Writes random expressions of a kind."""

    def __init__(self, r: random.Random) -> None:
        self.r = r

    def text(self, kind: str, depth: int) -> str:
        """An expression of the kind, at most `depth` operations deep."""
        if depth <= 0 or self.r.random() < 0.1:
            return self._leaf(kind)
        return self.r.choice(self._forms(kind))(depth - 1)

    def _leaf(self, kind: str) -> str:
        r = self.r
        if kind == DURATION:
            return f"({self._leaf(INSTANT_KIND)} - {r.choice(NAMES[INSTANT_KIND])})"
        literals: dict[str, Draw] = {
            INT: lambda r: str(r.choice([0, 1, 2, -3, 60, BIG, -BIG - 1])),
            FLOAT: lambda r: repr(r.choice([0.0, 0.5, 2.0, -1.5, 1e300, 0.1])),
            BOOL: lambda r: str(r.random() < 0.5),
            TEXT: lambda r: repr(r.choice(_TEXTS[:6])),
        }
        if kind in literals and r.random() < 0.3:
            return str(literals[kind](r))
        return r.choice(NAMES[kind])

    def _forms(self, kind: str) -> list[Callable[[int], str]]:
        text, r = self.text, self.r
        number = r.choice([INT, FLOAT])

        def binary(op: str, a: str, b: str) -> Callable[[int], str]:
            return lambda d: f"({text(a, d)} {op} {text(b, d)})"

        def call(name: str, *kinds: str) -> Callable[[int], str]:
            return lambda d: f"{name}({', '.join(text(k, d) for k in kinds)})"

        anything: list[Callable[[int], str]] = [
            lambda d: f"({text(kind, d)} if {text(BOOL, d)} else {text(kind, d)})",
            call("coalesce", kind, kind, kind),
        ]
        if kind != BOOL:
            anything += [call(r.choice(["min", "max"]), kind, kind), call("clip", kind, kind, kind)]
        listed = r.choice([(INT, "numbers"), (TEXT, "words")])
        compared = r.choice([INT, FLOAT, TEXT, INSTANT_KIND, DATE, DURATION])
        forms: dict[str, list[Callable[[int], str]]] = {
            INT: [
                *(binary(op, INT, INT) for op in ("+", "-", "*", "//", "%")),
                lambda d: f"-{text(INT, d)}",
                call(r.choice(["abs", "floor", "round"]), INT),
                call("length", TEXT),
                lambda d: f"length({listed[1]})",
            ],
            FLOAT: [
                *(binary(op, FLOAT, number) for op in ("+", "-", "*", "//", "%")),
                binary("/", number, number),
                binary("/", DURATION, DURATION),
                call(r.choice(["abs", "log", "log1p", "exp", "sqrt", "floor", "ceil"]), FLOAT),
                lambda d: f"round({text(FLOAT, d)}, {r.randint(0, 4)})",
                call(r.choice(["seconds", "hours", "days"]), DURATION),
            ],
            BOOL: [
                binary(r.choice(["<", "<=", ">", ">=", "==", "!="]), compared, compared),
                binary(r.choice(["<", "<=", ">", ">=", "==", "!="]), INT, FLOAT),
                binary("and", BOOL, BOOL),
                binary("or", BOOL, BOOL),
                lambda d: f"(not {text(BOOL, d)})",
                call("is_null", r.choice([*SCALARS, DURATION])),
                call("contains", TEXT, TEXT),
                lambda d: f"contains({listed[1]}, {text(listed[0], d)})",
                lambda d: f"({text(listed[0], d)} {r.choice(['in', 'not in'])} {listed[1]})",
                lambda d: f"({text(INT, d)} in (1, 2, -3))",
                lambda d: f"({text(TEXT, d)} in ('a', 'é'))",
                lambda d: f"({text(FLOAT, d)} in (0, 0.5))",
                lambda d: f"({text(INSTANT_KIND, d)} < '2026-01-07T12:00:00Z')",
                lambda d: f"({text(INT, d)} < {text(INT, d)} <= {text(FLOAT, d)})",
            ],
            TEXT: [],
            DATE: [],
            INSTANT_KIND: [binary(r.choice("+-"), INSTANT_KIND, DURATION)],
            DURATION: [
                binary("-", INSTANT_KIND, INSTANT_KIND),
                binary("-", DATE, r.choice([DATE, INSTANT_KIND])),
                binary(r.choice("+-"), DURATION, DURATION),
                lambda d: f"abs(-{text(DURATION, d)})",
            ],
        }
        return forms[kind] + anything
