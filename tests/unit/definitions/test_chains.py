"""Who is made from whom: order, circles, and features that are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import Definitions, Feature, feature
from mlforge.definitions import chains
from mlforge.errors import DefinitionError
from mlforge.store import LocalStore


def define(name: str, source: Any = "in/") -> Feature:
    return feature(name=name, keys=["k"], source=source)(lambda df: df)


def named(*features: Feature) -> dict[str, Feature]:
    return {each.name: each for each in features}


a = define("a")
b = define("b", a)
c = define("c", b)
d = define("d", "feature:a")
alone = define("alone", "other/")


def test_a_feature_comes_behind_all_that_it_is_made_from() -> None:
    features = named(c, alone, d, b, a)
    assert chains.in_order(features, features) == ["a", "b", "c", "d", "alone"]
    assert chains.in_order(features, ["alone", "d", "a"]) == ["alone", "a", "d"]
    assert chains.in_order(features, ["c", "a"]) == ["a", "c"]


def test_readers_near_and_far() -> None:
    features = named(a, b, c, d, alone)
    assert chains.readers(features, "a") == ["b", "d"]
    assert chains.upstreams(features, "c") == ["b", "a"]
    assert chains.with_readers(features, ["b"]) == ["b", "c"]
    assert chains.with_readers(features, ["a"]) == ["a", "b", "c", "d"]
    assert chains.stages(features, ["c", "alone", "a", "d"]) == [["alone", "a"], ["c", "d"]]


def test_a_feature_that_is_not_defined_is_named(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="b reads the feature 'a', which is not among"):
        Definitions(store=LocalStore(tmp_path), features=[b])


@pytest.mark.parametrize(
    ("features", "circle"),
    [
        ([define("x", "feature:x")], "x reads x"),
        ([define("x", "feature:y"), define("y", "feature:x")], "x reads y reads x"),
        (
            [define("t", "feature:x"), define("x", "feature:y"), define("y", "feature:x")],
            "x reads y reads x",
        ),
    ],
)
def test_a_circle_is_refused_and_named(
    features: list[Feature], circle: str, tmp_path: Path
) -> None:
    with pytest.raises(DefinitionError, match=f"in a circle: {circle};"):
        Definitions(store=LocalStore(tmp_path), features=features)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": ["in/", a]}, "lists a feature"),
        ({"source": ["in/", "feature:a"]}, "lists 'feature:a' among others"),
        ({"source": "feature:"}, "feature name '' is not allowed"),
        ({"source": "feature:../up"}, "is not allowed"),
        ({"source": "in/", "tables": {"t": a}}, "t is a feature; a table is a file"),
    ],
)
def test_what_a_feature_cannot_be_is_said(changes: dict[str, Any], said: str) -> None:
    def function(df: pl.DataFrame, **tables: pl.DataFrame) -> pl.DataFrame:
        return df

    with pytest.raises(DefinitionError, match=said):
        feature(name="f", keys=["k"], **changes)(function)


def test_a_feature_and_its_text_are_the_same_source() -> None:
    assert define("x", a).sources == define("x", "feature:a").sources == ("feature:a",)
    assert (b.upstream, a.upstream) == ("a", None)
