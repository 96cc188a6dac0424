"""The texts of nested dtypes: read as they are written, whatever the fields' names."""

from __future__ import annotations

import pytest

from mlforge.core.nested import Nested, agree, filled, holds_nested, nested
from mlforge.core.widening import Backing, casts, settle

TEXTS = [
    "List(Int64)",
    "List(List(Datetime(us, UTC)))",
    "Array(Float32, 768)",
    "Array(Array(Int8, 2), 3)",
    "Array(Decimal(38, 2), 4)",
    'Struct("lat": Float64, "lon": Float64)',
    'Struct("a b": List(Decimal(10, 2)), "q\\"x,(": Struct("y": Array(Date, 2)), ")": String)',
    r'Struct("\u00e9\n": Boolean)',
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_read_as_it_was_written(text: str) -> None:
    outer = nested(text)
    assert outer is not None
    assert outer.text == text


def test_parts_are_told_apart_whatever_their_names_hold() -> None:
    outer = nested(TEXTS[6])
    assert outer is not None
    assert dict(outer.parts) == {
        "a b": "List(Decimal(10, 2))",
        'q"x,(': 'Struct("y": Array(Date, 2))',
        ")": "String",
    }
    assert nested("Array(Array(Int8, 2), 3)") == Nested("Array", (("", "Array(Int8, 2)"),), 3)


@pytest.mark.parametrize(
    "text",
    ["Int64", "Decimal(10, 2)", "Datetime(us, UTC)", "List", "List()", "Array(Int8)", "Struct(a: Int8)",
     "Array(Float32, shape=(3,))", "Struct({'a': Int64})", 'Struct("a" Int64)', "List(Datetime(time_unit='us'))"],
)  # fmt: skip
def test_other_texts_are_none(text: str) -> None:
    assert nested(text) is None


@pytest.mark.parametrize(
    ("target", "dtype", "holds"),
    [
        ("List(String)", "List(Null)", True),
        ("List(Null)", "List(String)", False),
        ("List(Int64)", "List(Int32)", False),
        ("Array(Int8, 2)", "Array(Null, 2)", True),
        ("Array(Int8, 2)", "Array(Null, 3)", False),
        ('Struct("a": List(Int8))', 'Struct("a": List(Null))', True),
        ('Struct("a": Int8)', 'Struct("a": Null)', True),
        ('Struct("a": Int8)', 'Struct("b": Int8)', False),
        ('Struct("a": Int8)', 'Struct("a": Int8, "b": Int8)', False),
    ],
)
def test_a_part_without_any_value_goes_with_any_dtype(target: str, dtype: str, holds: bool) -> None:
    assert holds_nested(target, dtype) is holds
    assert casts(dtype, target) is holds


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("List(Null)", "List(Int64)", "List(Int64)"),
        ("Null", "List(Null)", "List(Null)"),
        ("List(List(Null))", "List(List(String))", "List(List(String))"),
        ("Array(Null, 2)", "Array(Int8, 2)", "Array(Int8, 2)"),
        (
            'Struct("a": Null, "b": Int8)',
            'Struct("a": List(Int8), "b": Null)',
            'Struct("a": List(Int8), "b": Int8)',
        ),
        ("List(Int64)", "List(String)", None),
        ("List(Null)", "Array(Null, 2)", None),
        ('Struct("a": Null)', 'Struct("b": Int8)', None),
        ("Int64", "Int32", None),
    ],
)
def test_dtypes_agree_where_one_has_no_value_and_each_fills_the_others_gaps(
    one: str, other: str, together: str | None
) -> None:
    assert agree(one, other) is agree(other, one) is (together is not None)
    assert filled(one, other) == (together or one)
    assert filled(other, one) == (together or other)


def test_the_dtype_that_holds_those_of_all_files_wins_whatever_their_number() -> None:
    backing = {"List(Null)": Backing(9, 90), "List(String)": Backing(1, 1)}
    assert settle(backing) == "List(String)"
