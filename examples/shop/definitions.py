"""Five features of a small shop, fed by three folders of parquet files.

`python examples/shop/generate.py` writes the files; `mlforge up` beside this file does the rest.
"""

import polars as pl

import mlforge.validators as v
from mlforge import Definitions, feature
from mlforge.metrics import Rolling, ToDate
from mlforge.store import LocalStore


@feature(
    keys=["user_id"],
    source="data/transactions/",
    timestamp="event_time",
    metrics=[
        Rolling(["7d", "30d"], {"amount": ["count", "sum", "mean", "max"]}),
        Rolling("30d", {"device_id": "count_distinct"}),
        Rolling("all", {"amount": ["sum", "last_time"]}),
    ],
    derive={
        "week_share": "coalesce(amount__sum__7d / amount__sum__30d, 0)",
        "is_record": "amount__max__7d >= amount__max__30d",
        "days_silent": "days(t - amount__last_time__all)",
    },
    validators={"amount": [v.in_range(0, 10_000)]},
    tags=["customer", "money"],
)
def user_spend(df: pl.DataFrame) -> pl.DataFrame:
    """A customer's spending before any instant: lately, in all, from how many devices."""
    sales = df.filter(pl.col("kind") == "sale")
    return sales.select("user_id", "event_time", "amount", "device_id")


@feature(
    keys=["user_id"],
    source=user_spend,
    timestamp="event_time",
    metrics=[Rolling("30d", {"amount__sum__7d": ["last", "mean", "max"]})],
    derive={"against_usual": "amount__sum__7d__last__30d / amount__sum__7d__mean__30d"},
    tags=["customer", "money"],
)
def user_peaks(df: pl.DataFrame) -> pl.DataFrame:
    """A customer's week beside the weeks of a month: a feature on a feature."""
    return df.select("user_id", "event_time", "amount__sum__7d")


@feature(
    keys=["merchant_id"],
    source="data/transactions/",
    timestamp="event_time",
    interval="1d",
    metrics=[
        Rolling(["1d", "7d"], {"amount": ["count", "sum", "median"]}),
        Rolling("7d", {"amount": ["count", "sum"]}, where="is_refund"),
        ToDate("1mo", {"amount": "sum"}),
    ],
    derive={"refund_share": "coalesce(amount__sum__7d__is_refund, 0) / amount__sum__7d"},
    validators={"merchant_id": [v.matches_regex(r"^m\d{3}$")]},
    tags=["merchant", "money"],
)
def merchant_daily(df: pl.DataFrame) -> pl.DataFrame:
    """A merchant's payments, and those of them that are refunds, by whole days (UTC)."""
    is_refund = pl.col("kind") == "refund"
    return df.select("merchant_id", "event_time", "amount", is_refund=is_refund)


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


@feature(
    keys=["product_id"],
    source="data/products/",
    timestamp="updated_at",
    tags=["product"],
)
def product_embedding(df: pl.DataFrame) -> pl.DataFrame:
    """A product's price and embedding, an array of eight numbers: the latest row, too."""
    return df.select("product_id", "updated_at", "price", "embedding")


defs = Definitions(
    name="shop",
    store=LocalStore("feature_store"),
    features=[user_spend, user_peaks, merchant_daily, user_profile, product_embedding],
)
