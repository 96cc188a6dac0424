"""An unknown aggregation is told with the one that is meant, if any is."""

from __future__ import annotations

import pytest

from mlforge.core.aggregations import AGGREGATIONS, aggregation, output_dtype
from mlforge.errors import DataError, DefinitionError
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
        ("q50", "p50"),
        ("variance", "var"),
        ("nunique", "count_distinct"),
        ("n_unique", "count_distinct"),
        ("latest", "last"),
        ("earliest", "first"),
        ("last_seen", "last_time"),
        ("most_common", "mode"),
        ("p999", "p99_9"),
        ("p99.9", "p99_9"),
        ("percentile_90", "p90"),
        ("quantile_0.95", "p95"),
        ("p05", "p5"),
        ("p0", "min"),
        ("p100", "max"),
        ("bool_or", "max"),
        ("recent", "last"),
        ("last_03", "last_3"),
        ("Last_3", "last_3"),
        ("latest_5", "last_5"),
        ("topk_10", "top_10"),
        ("top10", "top_10"),
        ("last_K", "last_3"),
        ("pN", "p90"),
        ("frist", "first"),
        ("count_distnct", "count_distinct"),
        ("nunque", "count_distinct"),
        ("avrage", "mean"),
        ("lastest", "last"),
        ("percentle", "p90"),
    ],
)
def test_the_nearest_aggregation_is_named_by_meaning_or_but_for_a_slip(
    written: str, meant: str
) -> None:
    with pytest.raises(DefinitionError, match=f"did you mean '{meant}'"):
        Rolling("7d", {"amount": [written]})


@pytest.mark.parametrize("written", ["skew", "kurtosis", "geometric", "corr", "zzz"])
def test_no_aggregation_of_another_meaning_is_offered(written: str) -> None:
    with pytest.raises(DefinitionError, match="there are count, sum") as caught:
        Rolling("7d", {"amount": [written]})
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "allowed"),
    [
        ("p100", "p1 to p99, and p99_9"),
        ("p0", "p1 to p99, and p99_9"),
        ("p99_99", "p1 to p99, and p99_9"),
        ("p50_5", "p1 to p99, and p99_9"),
        ("last_0", "of last_K, K is 1 to 1000"),
        ("last_1001", "of last_K, K is 1 to 1000"),
        ("first_0", "of first_K, K is 1 to 1000"),
        ("top_5000", "of top_K, K is 1 to 1000"),
    ],
)
def test_a_number_out_of_range_is_told_with_the_range(written: str, allowed: str) -> None:
    with pytest.raises(DefinitionError, match="unknown aggregation") as caught:
        Rolling("7d", {"amount": [written]})
    assert f"{written!r}; " in str(caught.value)
    assert allowed in str(caught.value)


@pytest.mark.parametrize(
    "written", ["p" + "9" * 5_000, "last_" + "1" * 5_000, "last_1\n", "last_\u0663"]
)
def test_numbers_that_are_none_are_refused_like_any_name(written: str) -> None:
    with pytest.raises(DefinitionError, match="unknown aggregation"):
        Rolling("7d", {"amount": [written]})


@pytest.mark.parametrize("name", ["p1", "p99", "p99_9", "first_1", "last_1000", "top_7"])
def test_numbers_within_the_range_are_names(name: str) -> None:
    [column] = Rolling("7d", {"amount": name}).columns(None)
    assert column.name == f"amount__{name}__7d"


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_every_aggregation_says_what_goes_with_a_dtype_it_does_not_take(name: str) -> None:
    kind = aggregation(name).kind
    works = kind.dtype("List(Float64)") is not None
    assert works == (name == "count" or kind.name.startswith(("first", "last")))
    if not works:
        with pytest.raises(DataError, match=rf"x: {name} of List\(Float64\).*count.*last_K"):
            output_dtype(name, "List(Float64)", "x")
