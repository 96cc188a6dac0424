"""Tables that others have published, and queries that others have written, where their data lies beside the checkout."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mlforge import Definitions, feature, get_training_data
from mlforge.metrics import Rolling
from mlforge.store import LocalStore
from tests.support.paths import DATA

ENGINES = ("polars", "duckdb")
RETAIL, CHRONON = DATA / "online_retail", DATA / "chronon_quickstart"
PUBLISHED = [
    # customer, days since the last purchase, invoices, lines, money
    (12346, 325, 1, 1, 77183.60),
    (12347, 2, 7, 182, 4310.00),
    (12348, 75, 4, 31, 1797.24),
    (12349, 18, 1, 73, 1757.55),
    (12350, 310, 1, 17, 334.40),
]
"""Recency, frequency and monetary value as of 10 December 2011: the head of the table in every course on RFM."""


def present(folder: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not folder.is_dir(), reason=f"no {folder.name} beside the checkout")


@present(RETAIL)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("interval", [None, "1d"])
def test_recency_frequency_and_monetary_value_are_the_published_ones(
    tmp_path: Path, engine: str, interval: str | None
) -> None:
    as_of = datetime(2011, 12, 10, tzinfo=UTC)

    @feature(
        name="rfm",
        keys=["customer_id"],
        source=f"{RETAIL}/",
        timestamp="invoice_ts",
        interval=interval,
        metrics=[
            Rolling(
                "400d", {"money": ["sum", "count", "last_time"], "invoice_no": "count_distinct"}
            ),
            Rolling("400d", {"day": ["count_distinct", "first", "last"]}),
        ],
    )
    def rfm(df: pl.DataFrame) -> pl.DataFrame:
        sold = df.filter(pl.col("quantity") > 0, pl.col("customer_id") < 12_400)
        return sold.select(
            "customer_id",
            "invoice_ts",
            "invoice_no",
            money=pl.col("quantity") * pl.col("unit_price"),
            day=pl.col("invoice_ts").dt.date(),
        )

    store = LocalStore(tmp_path / "store")
    Definitions(store, [rfm], engine=engine, root=tmp_path).build()
    customers = store.read("rfm").select("customer_id").unique().sort("customer_id")
    spine = customers.with_columns(pl.lit(as_of).alias("invoice_ts"))
    found = get_training_data(spine, ["rfm"], store)
    recency = (as_of - pl.col("rfm__money__last_time__400d")).dt.total_days()
    told = found.select(
        "customer_id",
        recency,
        "rfm__invoice_no__count_distinct__400d",
        "rfm__money__count__400d",
        pl.col("rfm__money__sum__400d").round(2),
    )
    assert told.head(5).rows() == PUBLISHED
    lines = pl.read_parquet(RETAIL / "*.parquet")
    sold = lines.filter(pl.col("quantity") > 0, pl.col("customer_id") < 12_400)
    by_hand = (
        sold.group_by("customer_id")
        .agg(
            days=pl.col("invoice_ts").dt.date().n_unique().cast(pl.Int64),
            first=pl.col("invoice_ts").min().dt.date(),
            last=pl.col("invoice_ts").max().dt.date(),
        )
        .sort("customer_id")
    )
    of_days = pl.col("^rfm__day__.*$").name.replace("rfm__day__(.*)__400d", "$1")
    days = found.select("customer_id", of_days).rename({"count_distinct": "days"})
    assert days.rows() == by_hand.rows()


@present(CHRONON)
@pytest.mark.parametrize("engine", ENGINES)
def test_the_quick_start_of_another_feature_store_gives_what_its_query_says(
    tmp_path: Path, engine: str
) -> None:
    """Sum, count and mean of 3, 14 and 30 days, and the last ten prices, at each checkout."""

    @feature(
        name="purchases",
        keys=["user_id"],
        source=f"{CHRONON}/purchases/",
        timestamp="ts",
        metrics=[
            Rolling(
                ["3d", "14d", "30d"], {"purchase_price": ["sum", "count", "mean"]}, closed="left"
            ),
            Rolling("90d", {"purchase_price": ["last_10", "top_2", "p50"]}, closed="left"),
        ],
    )
    def purchases(df: pl.DataFrame) -> pl.DataFrame:
        return df

    store = LocalStore(tmp_path / "store")
    Definitions(store, [purchases], engine=engine, root=tmp_path).build()
    spine = pl.read_parquet(CHRONON / "checkouts/*.parquet", columns=["user_id", "ts"])
    found = get_training_data(spine, ["purchases"], store)
    price, at = "p.purchase_price", "c.ts"
    inside = {days: f"FILTER (p.ts >= {at} - INTERVAL {days} DAY)" for days in (3, 14, 30)}
    aggregates = {
        **{f"sum__{d}d": f"(sum({price}) {which})::BIGINT" for d, which in inside.items()},
        **{f"count__{d}d": f"count({price}) {which}" for d, which in inside.items()},
        **{f"mean__{d}d": f"avg({price}) {which}" for d, which in inside.items()},
        "last_10__90d": f"coalesce(list({price} ORDER BY p.ts DESC, {price} DESC) "
        f"FILTER ({price} IS NOT NULL), [])[:10]",
        "p50__90d": f"quantile_cont({price}, 0.5)",
    }
    columns = ", ".join(
        f'{sql} AS "purchases__purchase_price__{name}"' for name, sql in aggregates.items()
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        query = (
            f"SELECT any_value(c.user_id) AS user_id, {columns} "
            "FROM (SELECT *, row_number() OVER () AS n FROM spine) c "
            f"LEFT JOIN read_parquet('{CHRONON}/purchases/*.parquet') p "
            "ON p.user_id = c.user_id AND p.ts < c.ts GROUP BY n ORDER BY n"
        )
        connection.register("spine", spine.to_arrow())
        by_query = pl.DataFrame(pl.from_arrow(connection.sql(query).to_arrow_table()))
    assert_frame_equal(
        found.select(by_query.columns), by_query, check_exact=False, check_dtypes=False
    )
    counts = [len(values) for values in found["purchases__purchase_price__last_10__90d"]]
    assert max(counts) == 10
    assert max(spine["ts"]) - min(spine["ts"]) < timedelta(days=1)
