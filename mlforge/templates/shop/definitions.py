"""Two features of a shop, and what a model takes of them. `mlforge up` beside this file keeps them computed."""

import polars as pl

import mlforge.validators as v
from mlforge import Definitions, Service, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore


@feature(
    keys=["user_id"],
    source="purchases/",
    timestamp="event_time",
    metrics=[Rolling(windows=["7d", "30d"], aggregations={"amount": ["count", "sum", "mean"]})],
    validators={"amount": [v.greater_than(0)]},
)
def user_spend(df: pl.DataFrame) -> pl.DataFrame:
    """A customer's spending, over the 7 and 30 days before any instant."""
    return df.select("user_id", "event_time", "amount")


@feature(
    keys=["product"],
    source="purchases/",
    timestamp="event_time",
    interval="1d",
    metrics=[Rolling(windows=["1d", "7d"], aggregations={"amount": ["count", "sum"]})],
)
def product_daily(df: pl.DataFrame) -> pl.DataFrame:
    """A product's sales, by whole days (UTC)."""
    return df.select("product", "event_time", "amount")


offer = Service(
    "offer",
    features=[user_spend["amount__count__7d", "amount__sum__7d"], product_daily["amount__sum__7d"]],
    request={"price": pl.Float64},
    derive={"share_of_week": "price / user_spend__amount__sum__7d"},
    description="What a model takes that is asked about a customer, a product and its price.",
)

defs = Definitions(
    store=LocalStore("feature_store"), features=[user_spend, product_daily], services=[offer]
)
