"""Tiles merge to values whose last bits tell nothing of what is beside them."""

from __future__ import annotations

import random
from decimal import Decimal

import polars as pl

from mlforge.core.metrics import Rolling
from mlforge.engines import timeline
from mlforge.engines.tiles.build import Tiles, build_tiles, part_alias
from mlforge.engines.tiles.merge import merge
from mlforge.features.feature import Feature, feature
from tests.support.projects import SPEND, at, identity

DECIMAL = "Decimal(38, 2)"


def daily(*aggregations: str) -> Feature:
    metrics = [Rolling(["2d"], {"amount": list(aggregations)})]
    return feature(**{**SPEND, "interval": "1d", "metrics": metrics})(identity)


def test_the_mean_of_decimals_of_one_row_is_that_of_the_row_among_others() -> None:
    """polars divides a lone row by a number, and several through its reciprocal."""
    spec, chance = daily("mean").spec, random.Random(1)
    [metric] = spec.columns
    events = pl.DataFrame(
        {
            "user_id": [1],
            "at": [at(1)],
            "amount": pl.Series([Decimal("1.25")], dtype=pl.Decimal(38, 2)),
        }
    )
    tiles = build_tiles(timeline.of_events(events.lazy(), spec), spec, {"amount": DECIMAL})
    merged = merge(tiles, spec, [metric], {"amount": DECIMAL})
    numbers = {each.name: [chance.randint(1, 10**6) for _ in range(60)] for each in merged.merges}
    results = pl.DataFrame(numbers)
    together = results.select(merged.finalized).to_series()
    alone = [row.select(merged.finalized).item() for row in results.iter_slices(1)]
    assert together.to_list() == alone


def test_means_of_tiles_that_were_put_together_are_those_of_tiles_made_together() -> None:
    """polars holds a column of such tiles as one value, and divides by it through its reciprocal."""
    spec, chance = daily("std").spec, random.Random(1)
    frame = pl.DataFrame(
        [(user, at(1 + hour / 24), chance.random()) for user in range(60) for hour in range(3)],
        schema={"user_id": pl.Int64, "at": pl.Datetime("us", "UTC"), "amount": pl.Float64},
        orient="row",
    )
    made = build_tiles(timeline.of_events(frame.lazy(), spec), spec, {"amount": "Float64"})
    rows = made.rows.collect().sort("user_id")
    pieces, keys = pl.concat(rows.iter_slices(1)), rows.select("user_id")
    apart = pieces.join(keys, on="user_id", how="semi").sort("user_id")
    means = [
        merge(Tiles(each.lazy(), made.summary), spec, spec.columns, {"amount": "Float64"}).rows
        for each in (rows, apart)
    ]
    scaled = part_alias("amount", "scaled_mean")
    assert means[0][scaled].to_physical().equals(means[1][scaled].to_physical())
    assert len(set(means[0][part_alias("amount", "count")])) == 1
