"""Three features of a small shop, fed by two folders of parquet files.

`python examples/shop/generate.py` writes the files; `mlforge up` beside this file does the rest.
"""

import polars as pl

import mlforge.validators as v
from mlforge import Definitions, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore


@feature(
    keys=["user_id"],
    source="data/transactions/",
    timestamp="event_time",
    metrics=[
        Rolling(
            windows=["7d", "30d"],
            aggregations={"amount": ["count", "sum", "mean", "max"]},
        )
    ],
    derive={
        "week_share": "coalesce(amount__sum__7d / amount__sum__30d, 0)",
        "is_record": "amount__max__7d >= amount__max__30d",
    },
    validators={"amount": [v.in_range(0, 10_000)]},
    tags=["customer", "money"],
)
def user_spend(df: pl.DataFrame) -> pl.DataFrame:
    """A customer's spending, over the 7 and 30 days before any instant, and how much of it is new."""
    return df.filter(pl.col("kind") == "sale").select("user_id", "event_time", "amount")


@feature(
    keys=["merchant_id"],
    source="data/transactions/",
    timestamp="event_time",
    interval="1d",
    metrics=[
        Rolling(
            windows=["1d", "7d"],
            aggregations={"sold": ["count", "sum", "median"], "refunded": "sum"},
        )
    ],
    validators={"merchant_id": [v.matches_regex(r"^m\d{3}$")]},
    tags=["merchant", "money"],
)
def merchant_daily(df: pl.DataFrame) -> pl.DataFrame:
    """A merchant's sales and refunds, by whole days (UTC)."""
    is_sale = pl.col("kind") == "sale"
    return df.select(
        "merchant_id",
        "event_time",
        sold=pl.when(is_sale).then("amount"),
        refunded=pl.when(~is_sale).then("amount"),
    )


@feature(
    keys=["user_id"],
    source="data/profiles/",
    timestamp="updated_at",
    validators={
        "country": [v.not_null()],
        "plan": [v.is_in(["free", "plus", "pro"])],
    },
    tags=["customer"],
)
def user_profile(df: pl.DataFrame) -> pl.DataFrame:
    """A customer's country and plan: the latest row at or before any instant."""
    return df.select("user_id", "updated_at", "country", "plan")


defs = Definitions(
    name="shop",
    store=LocalStore("feature_store"),
    features=[user_spend, merchant_daily, user_profile],
)
