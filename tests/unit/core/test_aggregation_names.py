"""An unknown aggregation is told with the one that is meant, if any is."""

from __future__ import annotations

import pytest

from mlforge.errors import DefinitionError
from mlforge.metrics import Rolling


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("avg", "mean"),
        ("Average", "mean"),
        ("SUM", "sum"),
        ("sun", "sum"),
        ("total", "sum"),
        ("cuont", "count"),
        ("len", "count"),
        ("stddev", "std"),
        ("maximum", "max"),
        ("mediann", "median"),
        ("p50", "median"),
    ],
)
def test_the_nearest_aggregation_is_named_by_meaning_or_but_for_a_slip(
    written: str, meant: str
) -> None:
    with pytest.raises(DefinitionError, match=f"did you mean '{meant}'"):
        Rolling("7d", {"amount": [written]})


@pytest.mark.parametrize("written", ["last", "first", "mode", "var", "nunique", "top_3", "p99"])
def test_no_aggregation_of_another_meaning_is_offered(written: str) -> None:
    with pytest.raises(DefinitionError, match="there are count, sum") as caught:
        Rolling("7d", {"amount": [written]})
    assert "did you mean" not in str(caught.value)
